"""Answers: what a finished execution says to its caller, and which answers are still owed.

Owned by the engine. An answer is owed from the moment its `finished` event is durable until the broker has
acknowledged it; after a restart all owed ones are sent again. What was delivered is noted by a watermark event,
seldom, so that it costs nothing per answer.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.core.codec import ARROW, CBOR, JSON, decode, encode
from edge.core.errors import LogDamaged, RequestRefused
from edge.core.events import ResponsesDelivered
from edge.core.limits import PAYLOAD_BYTES_MAX
from edge.core.records import record
from edge.core.state import COMPLETED, Execution
from edge.core.values import BlockRef, TableRef, ValueRef
from edge.store.blobs import BlobStore

logger = logging.getLogger(__name__)

#: More exceptions than this under a watermark, and it is set below the oldest of them instead.
_EXCEPTIONS_MAX = 256


@record
class Answer:
    """One result on its way out; the fields of the request it answers come back with it."""

    execution: int
    execution_id: str
    form: str
    principal: str
    request_id: str | None
    response_topic: str | None
    correlation: bytes | None
    status: str
    content_type: str
    payload: bytes


def build_answer(state: Execution, execution_id: str, blobs: BlobStore) -> Answer:
    """The answer of a finished execution, from its folded state alone. Raises LogDamaged where it has no end.

    Where the log lost what it gave, the answer says so: whoever waits for it is to know.
    """
    request = state.request
    asked = (request.content_type or JSON).split(";")[0].strip().lower()
    content_type, write = (CBOR, encode) if asked == CBOR else (JSON, _json)
    document: dict[str, Any] = {"execution_id": execution_id, "status": state.status}
    payload = b""
    try:
        given = output_of(state, blobs.get)
    except LogDamaged as error:
        if state.finished is None:
            raise
        document["error"] = error.problem()
    else:
        if given.table is not None:
            content_type, payload = ARROW, given.data
        elif state.status == COMPLETED:
            document["result"] = _told(decode(given.data)) if given.data else None
        else:
            document["error"] = state.problem
    if content_type != ARROW:
        payload = write(document)
        if len(payload) > PAYLOAD_BYTES_MAX:
            document.pop("result", None)
            payload = write({**document, "error": _too_large(len(payload))})
    return Answer(
        state.seq,
        execution_id,
        request.form,
        request.principal,
        request.request_id,
        request.response_topic,
        request.correlation,
        state.status,
        content_type,
        payload,
    )


@record
class Given:
    """What a finished execution gives: `data` is CBOR bytes, or an Arrow stream where `table` says what is in it."""

    data: bytes
    table: TableRef | None = None


def output_of(state: Execution, blob: Callable[[bytes], bytes]) -> Given:
    """The output of a finished execution, from its folded state; `blob` gives large values. Raises LogDamaged."""
    finished = state.finished
    if finished is None:
        raise LogDamaged(f"Execution {state.seq} has no end to answer with.")
    if finished.result_step is None:
        return Given(b"")
    outcome = state.steps[finished.result_step].outcome
    if outcome is None:
        raise LogDamaged(f"Execution {state.seq} answers with a step that has no output.")
    table = outcome.table if type(outcome.table) is TableRef else None
    if finished.result is not None:
        return Given(finished.result, table)
    if finished.result_digest is not None:
        return Given(blob(finished.result_digest), table)
    if outcome.value is not None:
        return Given(outcome.value)
    if outcome.table is None:
        raise LogDamaged(f"Execution {state.seq} does not hold its answer.")
    return Given(outcome.table_bytes or blob(outcome.table.digest), table)


def _told(result: Any) -> Any:
    """A result as a document has it: blocks that a loop collected are told, not sent."""
    if type(result) is not list:
        return result
    return [_block_told(each) if type(each) in (TableRef, ValueRef) else each for each in result]


def _block_told(ref: BlockRef) -> dict[str, Any]:
    if isinstance(ref, TableRef):
        return {"table": {"rows": ref.rows, "columns": list(ref.columns or ())}}
    return {"value": {"size_bytes": ref.size_bytes, "preview": ref.preview}}


def _too_large(size_bytes: int) -> dict[str, Any]:
    return {
        "code": "answer_too_large",
        "message": f"The result takes {size_bytes} bytes as an answer; {PAYLOAD_BYTES_MAX} are allowed.",
        "mend": "Let the playbook return a table, or less; the log holds the result.",
    }


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, default=_plain).encode()


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} is not a value")


class Owed:
    """Executions whose answer the broker has not acknowledged yet, and the watermark under them."""

    def __init__(self, through: int) -> None:
        self._finished: dict[int, int] = {}
        self._highest = through
        self._noted: tuple[int, list[int]] = (through, [])
        self._changed = False

    def add(self, execution: int, finished_seq: int) -> None:
        """An execution ended; its answer is owed."""
        self._finished[execution] = finished_seq
        self._highest = max(self._highest, finished_seq)
        self._changed = True

    def settle(self, execution: int) -> None:
        """The broker has this answer."""
        if self._finished.pop(execution, None) is not None:
            self._changed = True

    def __iter__(self) -> Any:
        return iter(list(self._finished))

    def __len__(self) -> int:
        return len(self._finished)

    @property
    def changed(self) -> bool:
        """Whether anything was delivered, or became due, since the last note."""
        return self._changed

    def watermark(self) -> ResponsesDelivered | None:
        """The event that notes where things stand, or None where nothing changed since the last."""
        if not self._changed:
            return None
        self._changed = False
        before = self._noted
        noted = self.standing()
        return noted if self._noted != before else None

    def standing(self) -> ResponsesDelivered:
        """The event that notes where things stand."""
        through = self._highest
        if len(self._finished) > _EXCEPTIONS_MAX:
            through = min(self._finished.values()) - 1
            owed: list[int] = []
        else:
            owed = sorted(self._finished)
        self._noted = (through, owed)
        return ResponsesDelivered(through, owed or None)


@contextmanager
def unless_lost(execution: int) -> Iterator[None]:
    """An answer whose request is lost, and named as lost, can be told to nobody: no reason not to start."""
    try:
        yield
    except (LogDamaged, RequestRefused) as error:
        logger.error("the answer of execution %d is lost: %s", execution, error)
