"""Why an execution is to end, as the events say that ask for it.

Pure; called by `edge.core.state`. A failure of a step is not among them: that speaks for itself.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.carried import logical
from edge.core.event_body import Body
from edge.core.events import Event, ExecutionCancelled, ExecutionDeadline, ExecutionFinished

#: Code of the problem that ends an execution when events of it may be lost.
HISTORY_LOST: Final = "history_lost"


def problem_of(body: Body) -> dict[str, Any]:
    """The problem that ends it."""
    if isinstance(body, ExecutionDeadline):
        return {
            "code": "deadline_exceeded",
            "message": f"The request's deadline of {body.deadline_ms} ms passed before the execution ended.",
            "mend": "Give it more time, or let the playbook do less.",
        }
    assert isinstance(body, ExecutionCancelled), body
    why = f": {body.reason}" if body.reason else ""
    return {"code": "cancelled", "message": f"{body.by} cancelled the execution{why}."}


def what_counts(history: list[Event]) -> list[Event]:
    """The events that are folded: those that were carried in their old places.

    Of an execution that ended because events of it may be lost (`edge log salvage`), its request and that end.
    """
    history = logical(history)
    body = history[-1].body if history else None
    if isinstance(body, ExecutionFinished) and (body.problem or {}).get("code") == HISTORY_LOST:
        return [history[0], history[-1]]
    return history
