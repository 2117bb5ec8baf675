"""What loops need of others: who writes down what came of an item, and who sends claims.

Implemented by the executor and the dispatcher; used by `edge.runtime.loops.frames` alone. No behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from edge.core.event_body import Body
from edge.core.scheduler import FailStep, RunLoop
from edge.core.values import BlockRef
from edge.runtime.running.live import Activation, Live
from edge.worker.claims import Items, Outcome, Progress


class LoopRecord(Protocol):
    """Who writes down what came of a loop (`edge.runtime.executions.executor.Executor`)."""

    def append(self, live: Live, body: Body, step: str | None = None, **envelope: Any) -> int:
        """Append an event of an execution; its sequence number."""

    def record_tasks(
        self,
        live: Live,
        index: int,
        outcome: Outcome,
        act: Activation,
        visit: int,
        attempt: int,
        iteration: tuple[int, ...],
    ) -> bool:
        """Append what a pipeline recorded; False where that is lost, and so is the attempt at this item."""

    def keep_item(self, live: Live, step: str, ref: BlockRef, *, claim_bound: bool) -> None:
        """Keep the block that an item gave: it is truth. Raises CacheMiss."""

    def fail_step(self, live: Live, command: FailStep) -> None:
        """Record that the step failed."""

    def loop_done(self, live: Live, index: int, visit: int, value: bytes) -> None:
        """Record that the step is done."""


class Out(Protocol):
    """Who sends a loop's claims (`edge.runtime.dispatch.dispatcher.Dispatcher`)."""

    after_ms: Callable[[int, Callable[[], None]], object]

    def submit_items(
        self, live: Live, act: Activation, goal: RunLoop, items: Items, progress: Progress | None, count: int
    ) -> int | None:
        """Send a claim over `count` items; its number, None where the execution was given up."""

    def missed(self, live: Live, act: Activation) -> None:
        """Blocks were gone: see to them, then `pursue` again."""

    def on(self, live: Live, act: Activation) -> None:
        """The activation is over: decide again."""
