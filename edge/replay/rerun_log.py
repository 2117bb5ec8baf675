"""A whole log run again, its executions shared out among processes; and one execution with all that it needs.

Called by the command line. Each process reads the log itself and takes every n-th execution, so nothing but results
goes between them. The log is never written to.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

from edge.core.carried import held_by
from edge.core.endings import what_counts
from edge.core.errors import EdgeError
from edge.core.events import Event, ExecutionRequested
from edge.core.retention_events import ExecutionCarried
from edge.replay.difference import Difference
from edge.replay.pinned import Pinned, pinned_by
from edge.replay.reconstruct import Reconstructed, events_of, histories
from edge.replay.rerun import Rerun, rerun
from edge.replay.sandbox import Sandbox
from edge.replay.shield import shielded
from edge.replay.source import Source
from edge.replay.state_digest import log_digest
from playbooks.blueprint import Blueprint

#: Differences that are told one by one; all are counted.
TOLD_MAX: Final = 10


@dataclass(slots=True)
class LogRerun:
    """What came of running a log again. `digest` and `recorded` are of the states of those that were run."""

    executions: int = 0
    same: int = 0
    blocks: int = 0
    taken: int = 0
    #: Only request, answer and end are kept of them, so there is nothing to run.
    thinned: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, Difference]] = field(default_factory=list)
    digests: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    failed: str = ""

    def take(self, made: Rerun) -> None:
        """One execution more."""
        self.executions += 1
        self.same += made.same
        self.blocks += made.blocks
        self.taken += made.taken
        self.classes.update(each.kind for each in made.differences)
        self.first += [(made.execution, each) for each in made.differences[:1]]
        self.digests.append((made.execution, made.digest, made.recorded))

    def join(self, other: LogRerun) -> None:
        """What another process did."""
        for name in ("executions", "same", "blocks", "taken", "thinned"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.classes.update(other.classes)
        self.first += other.first
        self.digests += other.digests
        self.failed = self.failed or other.failed

    def log_digests(self, log_id: bytes) -> tuple[bytes, bytes]:
        """One digest of all states as they came out now, and one of all as recorded."""
        now = log_digest(log_id, ((seq, digest) for seq, digest, _ in self.digests))
        return now, log_digest(log_id, ((seq, recorded) for seq, _, recorded in self.digests))


def rerun_one(source: Source, made: Reconstructed, tolerance: float = 0.0) -> Rerun:
    """One execution run again. Raises LogDamaged where its playbook is not here, Unavailable."""
    digest = made.state.request.digest
    pinned = pinned_by(source.groups(), (digest,))
    blueprint = pinned.blueprint(digest)
    with Sandbox(pinned.hash_seed) as sandbox:
        return rerun(sandbox, source, blueprint, made.events, tolerance)


def rerun_log(source: Source, through: int | None, jobs: int, tolerance: float = 0.0) -> LogRerun:
    """Every execution of a log run again, by so many processes. Raises EdgeError."""
    if jobs == 1:
        return _part(source, through, 0, 1, tolerance)
    context = multiprocessing.get_context("fork")
    parts = []
    for number in range(jobs):
        ours, theirs = context.Pipe(duplex=False)
        given = (theirs, lambda n=number: _part(source, through, n, jobs, tolerance))
        process = context.Process(target=_told, args=given)
        process.start()
        theirs.close()
        parts.append((process, ours))
    whole = LogRerun()
    for process, ours in parts:
        try:
            whole.join(ours.recv())
        except EOFError:
            whole.failed = whole.failed or "A process ended before it was done."
        process.join()
    return whole


def _told(out: Connection, work: Callable[[], LogRerun]) -> None:
    try:
        made = work()
    except EdgeError as error:
        made = LogRerun(failed=str(error))
    out.send(made)


def _part(source: Source, through: int | None, number: int, of: int, tolerance: float) -> LogRerun:
    """Every `of`-th execution, from the one at place `number` on."""
    made, pinned = LogRerun(), Pinned()
    ready: dict[bytes, Blueprint] = {}
    sandbox: Sandbox | None = None

    def met() -> Iterator[Event]:
        for event in events_of(source, through=through):
            pinned.meet(event)
            yield event

    try:
        for place, history in enumerate(histories(met())):
            request = held_by(history[0])[0].body
            if place % of != number or not isinstance(request, ExecutionRequested):
                continue
            if type(history[-1].body) is ExecutionCarried:
                made.thinned += 1
                continue
            sandbox = sandbox or Sandbox(pinned.hash_seed)
            blueprint = pinned.blueprint(request.digest)
            if request.digest not in ready:
                ready[request.digest] = shielded(blueprint)
            made.take(
                rerun(sandbox, source, blueprint, what_counts(history), tolerance, ready[request.digest])
            )
    finally:
        if sandbox is not None:
            sandbox.close()
    return made
