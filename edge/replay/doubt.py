"""Which executions a loss leaves in doubt: part of what they did may be among the lost events.

Called by `edge log salvage`. Reads a mended log once, from files; decides nothing about executions that had ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from edge.core.carried import held_by
from edge.core.endings import HISTORY_LOST
from edge.core.events import CatalogRegistered, Event, ExecutionFinished, ExecutionRequested
from edge.core.retention_events import Carried
from edge.core.state import FAILED


def in_doubt(events: Iterable[Event], last_lost: int) -> list[int]:
    """Executions that are open and whose history, or blueprint, or parent's history, may be incomplete; oldest first.

    `events` are all that a log still holds, in order; `last_lost` is the highest number that is lost.
    """
    registered: set[bytes] = set()
    requests: dict[int, ExecutionRequested] = {}
    for event in events:
        is_open = type(event.body) is not Carried or event.body.open
        for each in held_by(event):
            body = each.body
            if isinstance(body, CatalogRegistered):
                registered.add(body.digest)
            elif isinstance(body, ExecutionRequested) and is_open:
                requests[each.seq] = body
            elif isinstance(body, ExecutionFinished) and each.execution is not None:
                requests.pop(each.execution, None)
    doubtful: set[int] = set()
    for seq, request in sorted(
        requests.items(), key=itemgetter(0)
    ):  # oldest first, so a parent comes before its children
        if seq <= last_lost or request.digest not in registered or request.parent in doubtful:
            doubtful.add(seq)
    return sorted(doubtful)


def ending(lost: str) -> ExecutionFinished:
    """How an execution in doubt ends: what it did is not known, so nothing of it is done again."""
    problem: dict[str, Any] = {
        "code": HISTORY_LOST,
        "message": f"Part of the log is lost ({lost}), and maybe steps of this execution with it.",
        "mend": "Look what it did in the world before you send the request again, under a new request id.",
    }
    return ExecutionFinished(FAILED, problem=problem)
