"""From a submission to a request event, or to a refusal that says why.

Called by the engine for every request, whoever brought it. Looks at the payload only as far as the content type
asks: JSON and CBOR are decoded (strictly), an Arrow stream is passed on unopened for a worker to validate.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge.core.codec import ARROW, CBOR, JSON, decode_cbor_payload, decode_json_payload
from edge.core.errors import EvaluationFailed, PayloadInvalid, RequestRefused
from edge.core.events import ExecutionRequested
from edge.core.limits import (
    INLINE_BYTES_MAX,
    MIB,
    PAYLOAD_BYTES_MAX,
    REFUSALS_BURST,
    REFUSALS_PER_S,
    RESERVE_BYTES,
    VALUE_PAYLOAD_BYTES_MAX,
)
from edge.core.records import record
from playbooks.blueprint import Blueprint
from playbooks.start import start_workload

CONTENT_TYPES: Final = (JSON, CBOR, ARROW)
_FREE_SPACE_CHECK_S: Final = 1.0
STORAGE_FULL: Final = "storage_full"
#: What a decoded payload may be besides a map, as a person would call it.
_KINDS_TOLD: Final = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    bytes: "bytes",
    type(None): "null",
}


@record
class Submission:
    """A request as it reaches the runtime; fields as in `ExecutionRequested`."""

    playbook: str
    principal: str
    request_id: str | None
    form: str
    response_topic: str | None
    correlation: bytes | None
    content_type: str | None
    receipt: bool
    deadline_ms: int | None
    traceparent: str | None
    payload: bytes


def request_event(submission: Submission, blueprint: Blueprint) -> tuple[ExecutionRequested, bytes | None]:
    """The event of a submission, and its payload where that belongs into a blob."""
    payload = submission.payload
    large = len(payload) > INLINE_BYTES_MAX
    event = ExecutionRequested(
        digest=blueprint.digest,
        principal=submission.principal,
        request_id=submission.request_id,
        form=submission.form,
        response_topic=submission.response_topic,
        correlation=submission.correlation,
        content_type=submission.content_type,
        payload=None if large or not payload else payload,
        payload_digest=hashlib.sha256(payload).digest() if large else None,
        receipt=submission.receipt,
        deadline_ms=submission.deadline_ms,
        traceparent=submission.traceparent,
    )
    return event, payload if large else None


def read_input(content_type: str | None, payload: bytes) -> dict[str, Any] | None:
    """The request's input as a map; None for an Arrow stream. Raises PayloadInvalid, RequestRefused."""
    kind = (content_type or JSON).split(";")[0].strip().lower()
    if kind not in CONTENT_TYPES:
        raise RequestRefused(
            f"The content type {kind!r} is not known.",
            mend=f"Send {', '.join(CONTENT_TYPES[:-1])} or {CONTENT_TYPES[-1]}.",
            code="content_type_unknown",
        )
    size_bytes_max = PAYLOAD_BYTES_MAX if kind == ARROW else VALUE_PAYLOAD_BYTES_MAX
    if len(payload) > size_bytes_max:
        raise RequestRefused(
            f"The payload has {len(payload)} bytes; {kind} may have {size_bytes_max}.",
            mend="Send less at once, or a table as an Arrow stream."
            if kind != ARROW
            else "Send fewer rows at once.",
            code="payload_too_large",
        )
    if kind == ARROW:
        if not payload:
            raise PayloadInvalid("The Arrow stream is empty.", mend="Send a stream with a schema at least.")
        return None
    if not payload:
        return {}
    value = decode_cbor_payload(payload) if kind == CBOR else decode_json_payload(payload)
    if not isinstance(value, dict):
        raise PayloadInvalid(
            f"The input is {_KINDS_TOLD[type(value)]}, not a map.", mend='Send an object such as {"name": 1}.'
        )
    return value


def started_workload(blueprint: Blueprint, given: Mapping[str, Any], execution_id: str) -> dict[str, Any]:
    """The workload an execution of the playbook starts with. Raises RequestRefused where a template of it fails."""
    try:
        return start_workload(blueprint, given, execution_id)
    except EvaluationFailed as error:
        raise RequestRefused(error.message, mend=error.mend, code="workload_failed") from error


class FreeSpace:
    """Whether there is room for a request: on the drive, asked at most once a second, and in the log's budget."""

    def __init__(self, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._folder, self._reserve_bytes = folder, reserve_bytes
        self._checked_s = 0.0
        self._free_bytes = 2**63
        #: Why the log may not grow, and the mend; None where it may. Set by retention.
        self.held: tuple[str, str] | None = None
        #: What of the reserve is held by files of ours. Set by retention.
        self.reserved_bytes = 0
        #: Called when a request is refused because the drive is short.
        self.on_short: Callable[[], None] = lambda: None

    def free_bytes(self) -> int:
        """What is free on the drive for us."""
        now_s = time.monotonic()
        if now_s - self._checked_s >= _FREE_SPACE_CHECK_S:
            self._checked_s = now_s
            stat = os.statvfs(self._folder)
            self._free_bytes = stat.f_bavail * stat.f_frsize
        return self._free_bytes

    def is_short(self) -> bool:
        """Whether the drive has less than the reserve left."""
        return self.free_bytes() + self.reserved_bytes < self._reserve_bytes

    def require(self) -> None:
        """Raises RequestRefused with `storage_full` where there is no room."""
        if self.is_short():
            self.on_short()
            raise _full(
                f"The drive has {(self._free_bytes + self.reserved_bytes) // MIB} MB left, below its reserve "
                f"of {self._reserve_bytes // MIB} MB.",
                "Free space on the box; what was accepted is safe.",
            )
        if self.held is not None:
            raise _full(*self.held)


def _full(message: str, mend: str) -> RequestRefused:
    return RequestRefused(message, mend=mend, code=STORAGE_FULL, retry_after_ms=60_000)


class RefusalBudget:
    """Which refusals are recorded one by one, and which only counted: a flood must not wear the drive."""

    def __init__(self, per_s: float = REFUSALS_PER_S, burst: int = REFUSALS_BURST) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens = float(burst)
        self._at_s = 0.0
        #: Refusals by code since the last `take_counted`, that got no event of their own.
        self._counted: dict[str, int] = {}

    def spend(self, code: str, now_s: float) -> bool:
        """True where this refusal may have its own event; otherwise it is counted."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        self._counted[code] = self._counted.get(code, 0) + 1
        return False

    def take_counted(self) -> dict[str, int]:
        """What was only counted so far, and start over."""
        counted, self._counted = self._counted, {}
        return counted
