"""One execution as `edge show` has it: plain values, from its events and the state they fold to.

Called by the runtime's operations while it runs, and by the command line where it does not. Pure. It never evaluates
anything and opens no block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.core.codec import encode
from edge.core.events import Event, ExecutionRequested, StepWaiting
from edge.core.loop_state import Waiting
from edge.core.loops import collected
from edge.core.state import RUNNING, Execution, StepState
from edge.core.values import ValueRef

LeftMs = Callable[[Waiting], "int | None"]
"""How long a wait may last from now; only who has the clocks of a running box can say."""


def described(
    execution_id: str, state: Execution, events: list[Event], left_ms: LeftMs = lambda waiting: None
) -> dict[str, Any]:
    """One execution for people and programs: status, request, steps in the order they settled, waits, events.

    `waits` are `{step, item, task, kind, callback, left_ms}` each; `left_ms` says how long at most from now, None
    where no clock can say.
    """
    request = state.request
    return {
        "execution_id": execution_id,
        "status": state.status,
        "principal": request.principal,
        "request_id": request.request_id,
        "batch": request.batch,
        "digest": request.digest,
        "problem": state.problem,
        "steps": {
            name: {
                "status": _status(step),
                "visit": step.visit,
                "attempts": step.attempts,
                "arc": step.outcome.arc if step.outcome else None,
                "duration_us": step.outcome.duration_us if step.outcome else None,
                "output": _output(step) if step.outcome else None,
                "problem": step.problem,
            }
            for name, step in state.steps.items()
        },
        "parent": None if request.parent is None else _parent(request),
        "children": [
            detail["child"]
            for event in events
            if isinstance(event.body, StepWaiting) and "child" in (detail := event.body.detail or {})
        ],
        "result_step": state.finished.result_step if state.finished else None,
        "waits": _waits(state, left_ms),
        "events": [event.seq for event in events],
    }


def _parent(request: ExecutionRequested) -> dict[str, Any]:
    """The invocation a child stands for."""
    return {"execution": request.parent, "step": request.parent_step, "item": request.parent_item}


def _output(step: StepState) -> dict[str, Any]:
    outcome: Any = step.outcome
    if step.loop is not None:
        results = collected(step.loop)
        return {"kind": "value", "value": encode(results)}
    table = outcome.table
    if type(table) is ValueRef:
        parts = {"preview": table.preview, "selected": table.selected or {}}
        return {"kind": "large", "size_bytes": table.size_bytes, **parts}
    if table is not None:
        columns = list(table.columns or ())
        return {"kind": "table", "rows": table.rows, "columns": columns, "size_bytes": table.size_bytes}
    if outcome.value is not None:
        return {"kind": "value", "value": outcome.value}
    return {"kind": "digest", "digest": outcome.digest}


def _status(step: StepState) -> str:
    """A step that waits for the outside is not to begin any more, and not to be worked on: it waits."""
    rests = step.waiting is not None or (step.loop is not None and bool(step.loop.waiting))
    return "waiting" if rests and step.status not in ("done", "failed") else step.status


def _waits(state: Execution, left_ms: LeftMs) -> list[dict[str, Any]]:
    """What a running execution waits for."""
    found: list[tuple[str, int | None, Waiting]] = []
    for name, step in state.steps.items():
        if step.waiting is not None:
            found.append((name, None, step.waiting))
        elif step.loop is not None:
            found += [(name, item, waiting) for item, waiting in step.loop.waiting.items()]
    return [
        {
            "step": name,
            "item": item,
            "task": waiting.body.task,
            "kind": waiting.body.kind,
            "callback": "round" in (waiting.body.detail or {}),
            "left_ms": left_ms(waiting),
        }
        for name, item, waiting in found
        if state.status == RUNNING
    ]
