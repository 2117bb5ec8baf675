"""What a loop runs over: evaluated and recorded once, taken up from the log after a restart.

Called by `edge.runtime.loops.frames`. A table is never opened here, only its rows are counted out; one that nobody
has opened yet (it came from outside) is handed back for a worker to open.
"""

from __future__ import annotations

import hashlib
from typing import Any

from edge.core.codec import check_plain, decode, encode
from edge.core.errors import EvaluationFailed, PayloadInvalid
from edge.core.events import LoopStarted
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.loop_state import LoopState
from edge.core.loops import Rows, as_items, as_rows, first_failure, missing
from edge.core.scheduler import RunLoop
from edge.core.values import TableRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.loops.ports import LoopRecord
from edge.runtime.running.live import Live, LoopRun
from playbooks.evaluate import evaluate
from playbooks.shape import Step


def begin(live: Live, goal: RunLoop, log: LoopRecord, gate: CommitGate) -> LoopRun | TableRef:
    """Take up a loop where the log left it, or evaluate and record what it runs over.

    The table itself where nobody has opened it yet: a worker does, and then the loop begins. Raises CacheMiss,
    EvaluationFailed.
    """
    step = live.blueprint.steps[goal.step]
    known = loop_state(live, goal)
    items: list[Any] | Rows
    if known is None:
        assert step.loop is not None
        value = evaluate(step.loop.items, live.step_scope(goal.step, goal.args))
        if step.loop.cursor and type(value) is TableRef and value.outside:
            return value
        items = (
            as_rows(value, step.loop.frames, step.name) if step.loop.cursor else as_items(value, step.name)
        )
        _record(live, goal, step, items, log, gate)
        known = loop_state(live, goal)
        assert known is not None
    else:
        started = known.started
        data = started.items if started.items is not None else gate.blob(started.digest or b"")
        kept = decode(data)
        items = Rows(**kept) if type(kept) is dict else kept
    run = LoopRun(items, known.started.total, missing(known))
    run.result_bytes = sum(len(part.results) for part in known.parts)
    for part in known.parts:
        run.written |= part.ctx or {}
    if not step.best_effort:
        run.problem = first_failure(known)
    return run


def loop_state(live: Live, goal: RunLoop) -> LoopState | None:
    """What the log says of this visit's loop; None where it has not begun."""
    known = live.state.steps.get(live.blueprint.steps[goal.step].name)
    return known.loop if known is not None and known.visit == goal.visit else None


def _record(
    live: Live, goal: RunLoop, step: Step, items: list[Any] | Rows, log: LoopRecord, gate: CommitGate
) -> None:
    total = items.total if isinstance(items, Rows) else len(items)
    data = encode(items.parts()) if isinstance(items, Rows) else _plain_items(items, step.name)
    digest = None
    if len(data) > INLINE_BYTES_MAX:
        digest = hashlib.sha256(data).digest()
        gate.store_blob(digest, data)
    body = LoopStarted(total, None if digest else data, digest)
    log.append(live, body, step.name, held_back=True, visit=goal.visit)


def _plain_items(items: list[Any], step: str) -> bytes:
    """The items as the log keeps them. Raises EvaluationFailed."""
    try:
        return encode(check_plain(items))
    except PayloadInvalid as error:
        raise EvaluationFailed(
            f"The loop of step {step} runs over what cannot be kept: {error.message}",
            mend=error.mend,
            code="loop_invalid",
        ) from error
