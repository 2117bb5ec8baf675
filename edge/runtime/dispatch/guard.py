"""Stands between dispatcher and pool: claims learn what is known of downstreams, circuits what claims met.

Owned by the executor. To the dispatcher it is the pool, to the pool it is who claims come back to. It decides
nothing: what follows from a call is for `edge.runtime.downstreams.circuits`, what follows from an outcome for the
dispatcher.
"""

from __future__ import annotations

from edge.runtime.dispatch.dispatcher import Dispatcher
from edge.runtime.dispatch.ports import Pool
from edge.runtime.downstreams.circuits import Circuits
from edge.runtime.workers.work import Work
from edge.worker.claims import Claim, Outcome


class Guard:
    """See the module."""

    def __init__(self, circuits: Circuits, dispatcher: Dispatcher) -> None:
        self._circuits, self._dispatcher = circuits, dispatcher
        self._pool: Pool | None = None

    def use(self, pool: Pool) -> None:
        """The pool behind it."""
        self._pool = pool
        self._dispatcher.outgoing.pool = self

    def submit(self, work: Work) -> None:
        """Queue a claim (`edge.runtime.dispatch.ports.Pool`)."""
        assert self._pool is not None
        if work.access.hosts:
            work.circuits = self._circuits.for_claim(work.claim.number)
        self._pool.submit(work)

    def settled(self, claim: Claim, outcomes: list[Outcome]) -> None:
        """A worker answered (`edge.runtime.workers.pool.Claims`): what it met counts before what follows from it."""
        met = [each for outcome in outcomes for each in outcome.met]
        self._circuits.over(claim.number, met)
        self._dispatcher.settled(claim, outcomes)

    def lost(self, claim: Claim, code: str, reason: str) -> None:
        """A worker died over a claim (`edge.runtime.workers.pool.Claims`)."""
        self._circuits.over(claim.number, ())
        self._dispatcher.lost(claim, code, reason)
