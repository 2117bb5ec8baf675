"""What a pipeline saw when it began, found in the log: it goes by that to its end, however often it is claimed again.

Pure; called by the runtime where memory no longer has it, and by whoever explains a log. The first event that a visit
to a step (or an item of its loop) records names as its cause the event after which it began, where that is not simply
the one before it; so the state of then is a fold of what came up to there, and no state has to be kept for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge.core.events import Event, StepStarted, StepWaiting, TaskDone
from edge.core.loop_state import LoopState
from edge.core.scheduler import ready_since
from edge.core.state import Execution, StepState, fold

#: What a pipeline leaves in the log before its outcome.
_RECORDS: Final = (StepStarted, TaskDone, StepWaiting)


def has_recorded(step: StepState | None, visit: int, item: int | None = None) -> bool:
    """Whether a visit to a step, or one item of its loop, has recorded anything that it must go on from."""
    if step is None or step.visit != visit:
        return False
    if item is None:
        return bool(step.tasks) or step.waiting is not None or step.intended is not None
    loop = step.loop
    return loop is not None and (item in loop.tasks or item in loop.waiting or item in loop.intended)


def state_seen(events: Sequence[Event], step: str, visit: int, item: int | None = None) -> Execution | None:
    """The state that a visit to a step, or one item of its loop, began with; None where it has recorded nothing.

    `events` are those of its execution, oldest first.
    """
    iteration = () if item is None else (item,)
    for event in events:
        if (
            event.step == step
            and event.visit == visit
            and event.iteration == iteration
            and isinstance(event.body, _RECORDS)
        ):
            seq = event.seq - 1 if event.cause is None else event.cause
            return fold(each for each in events if each.seq <= seq)
    return None


def nothing_else_settled(state: Execution, step: str) -> bool:
    """Whether no other step got an outcome since this one could begin: then `ctx` and outputs are those it saw.

    False also where that cannot be told from the state alone: where a step was visited twice.
    """
    settled = [each for each in state.steps.values() if each.status in ("done", "failed")]
    if state.visits != len(settled):
        return False
    loops = [each for name, each in state.steps.items() if each.loop is not None and name != step]
    mine = state.steps[step].loop
    if mine is not None and any(part.ctx for part in mine.parts):
        return False
    return max((each.seq for each in (*settled, *loops)), default=0) <= ready_since(state, step)


def with_items_before(ctx: dict[str, Any], loop: LoopState, item: int) -> dict[str, Any]:
    """`ctx` as an item of a sequential loop sees it: with what the items before it wrote."""
    for part in loop.parts:
        if part.ctx and part.first < item:
            ctx = {**ctx, **part.ctx}
    return ctx
