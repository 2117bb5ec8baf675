"""The events of retention: codes 40 to 44 of the closed set in `edge.core.events`.

The runtime appends these (`edge.runtime.retention`); everybody who reads a log meets them. What is pruned is the
log's beginning, and what is still needed of it is written again first. Nothing here may look at a clock, a file or a
socket.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from edge.core.event_body import Body
from edge.core.records import record


@record
class Carried(Body):
    """An event that is still needed, written again before its place in the log is pruned: event `seq`, as it was.

    `envelope` and `body` are its bytes, `context` those of its group's context, so its clocks stay what they were.
    `open` says that its execution had not ended when this was written. The execution is that of the event.
    """

    CODE: ClassVar[int] = 40
    TYPE: ClassVar[str] = "carried"
    seq: int
    context: bytes
    envelope: bytes
    body: bytes
    open: bool = False


@record
class ExecutionCarried(Body):
    """What is kept of an execution that ended, before its events are pruned.

    `parts` are `[seq, envelope, body]` of its request (without the payload), of the outcome that answers it, where
    one does, and of its end; `context` that of the end. `mark` is what a repeated request must share with
    it, empty where its request id is not remembered any longer. `age_s` counts the
    seconds of box-on time between its end and this event.
    """

    CODE: ClassVar[int] = 41
    TYPE: ClassVar[str] = "execution.carried"
    parts: list[Any]
    context: bytes
    mark: bytes = b""
    age_s: int = 0


@record
class LogPruned(Body):
    """The log begins after event `through` from now on; the chain's link there is `link`.

    `cause` says why it might go: "age", "receipt", or by policy "oldest" or "thin". `events` and `size_bytes` are
    what went, `carried` how many of the events before this one repeat what is still needed of it.
    """

    CODE: ClassVar[int] = 42
    TYPE: ClassVar[str] = "log.pruned"
    through: int
    link: bytes
    cause: str
    events: int
    size_bytes: int
    carried: int = 0


@record
class StorageRefusing(Body):
    """New requests are refused as `storage_full` from now on; what was accepted goes on.

    `reason` is "drive" (less than the reserve is free) or why the log may not shrink though it fills its budget:
    "unsynced", "held" or "needed".
    """

    CODE: ClassVar[int] = 43
    TYPE: ClassVar[str] = "storage.refusing"
    reason: str
    free_bytes: int
    log_bytes: int = 0


@record
class StorageServing(Body):
    """There is room again: requests are taken."""

    CODE: ClassVar[int] = 44
    TYPE: ClassVar[str] = "storage.serving"
    free_bytes: int
    log_bytes: int = 0


RETENTION_BODIES: Final[tuple[type[Body], ...]] = (
    Carried,
    ExecutionCarried,
    LogPruned,
    StorageRefusing,
    StorageServing,
)
