"""What the histories of the golden logs are written in: an event's body beside its envelope, and parts of several.

What stands here is in recorded bytes, so it is never changed.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from edge.core.codec import encode
from edge.core.event_body import Body

BLUEPRINT: Final = encode({"version": 1, "note": "only its digest matters here"})
DIGEST: Final = hashlib.sha256(BLUEPRINT).digest()
PROBLEM: Final = {
    "code": "tool_failed",
    "message": "Step bad ended with ValueError: näh.",
    "mend": "Mend it.",
}

Entry = tuple[Body, dict[str, Any]]


def of(execution: int, body: Body, step: str | None = None, **envelope: Any) -> Entry:
    """An event of an execution: the place of its request in the log."""
    return body, {"execution": execution, "step": step, **envelope}


def of_box(body: Body, **envelope: Any) -> Entry:
    """An event of no execution."""
    return body, envelope
