"""What the dispatcher needs of others: a pool to send claims to, and somebody who writes down what came of them.

Implemented by `edge.runtime.workers.pool` and `edge.runtime.executions.executor`, and by the fakes of edge.testing.
Shapes only; must never hold code.
"""

from __future__ import annotations

from typing import Any, Protocol

from edge.core.scheduler import Finish, Run
from edge.runtime.loops.ports import LoopRecord
from edge.runtime.running.live import Activation, Live
from edge.runtime.workers.work import Work
from edge.worker.claims import Claim, Outcome


class Pool(Protocol):
    """Where claims go (`edge.runtime.workers.pool.WorkerPool`)."""

    def submit(self, work: Work) -> None:
        """Queue a claim."""


class Record(LoopRecord, Protocol):
    """Who writes down what came of it (`edge.runtime.executions.executor.Executor`)."""

    def record_intent(self, live: Live, act: Activation, run: Run, number: int) -> None:
        """Make a write's intent durable, then `pursue` again."""

    def paused(self, live: Live, act: Activation, claim: Claim, outcome: Outcome) -> bool:
        """Record what a pipeline did before it stopped; False where that is lost, and so is the attempt."""

    def settled(self, live: Live, act: Activation, claim: Claim, outcomes: list[Outcome]) -> None:
        """Record outcomes."""

    def lost(self, live: Live, claim: Claim, code: str, reason: str) -> None:
        """Record a lost attempt."""

    def finish(self, live: Live, goal: Finish) -> None:
        """Record the end. Raises CacheMiss."""

    def keep(self, live: Live, name: str, outcome: Outcome, *, claim_bound: bool) -> None:
        """Keep an output that was made again."""

    def done_with(self, live: Live, act: Activation) -> None:
        """Nothing of this activation is under way any longer."""

    def fail(self, live: Live, problem: dict[str, Any]) -> None:
        """End an execution that cannot go on."""

    def advance(self, live: Live) -> None:
        """Decide again."""
