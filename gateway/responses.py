"""What goes back to callers: receipts, refusals and results, and which results the broker has.

Owned by the gateway daemon. A result is passed through as the runtime made it; receipts and problem documents
are made here, in CBOR for those who sent CBOR, else JSON. A result stays here until the broker has
acknowledged it, and is published again on the next connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from edge.core.codec import encode
from edge.core.errors import EdgeError
from edge.core.records import record
from gateway.admission import ReplyTo, reason_code
from gateway.complaints import Complaints
from gateway.mqtt import REFUSED, Session
from gateway.topics import response_topic

_JSON: Final = "application/json"
_CBOR: Final = "application/cbor"
#: Tells a caller without a request id what it may expect.
_NO_ID_NOTE: Final = "without a request id a repeated message is a new request (at least once)"


@record
class Result:
    """One finished execution's answer, ready to publish."""

    execution: int
    execution_id: str
    request_id: str | None
    topic: str
    correlation: bytes | None
    status: str
    content_type: str
    payload: bytes


def result_from(box: str, fields: list[Any]) -> Result:
    """A result from the runtime's `answer` message (fields of `edge.runtime.requests.answers.Answer`)."""
    execution, execution_id, _, principal, request_id, topic, correlation, status, kind, payload = fields
    return Result(
        execution,
        execution_id,
        request_id,
        topic or response_topic(box, principal, request_id),
        correlation,
        status,
        kind,
        payload,
    )


class Responses:
    """Publishes towards callers over one session."""

    def __init__(
        self, session: Session, complaints: Complaints, *, on_delivered: Callable[[int], None]
    ) -> None:
        self._session, self._complaints = session, complaints
        self._on_delivered = on_delivered
        #: Results that the broker has not acknowledged.
        self._unacknowledged: dict[int, Result] = {}
        self._in_flight: set[int] = set()

    def receipt(
        self, to: ReplyTo, execution_id: str, seq: int, link: bytes | None, *, duplicate: bool
    ) -> None:
        """Say `accepted`: the request is in the log, durable."""
        accepted: dict[str, Any] = {"seq": seq}
        if link is not None:
            accepted["link"] = link.hex()
        document: dict[str, Any] = {"status": "accepted", "execution_id": execution_id, "accepted": accepted}
        if to.request_id is None:
            document["note"] = _NO_ID_NOTE
        else:
            document["request_id"] = to.request_id
        if duplicate:
            document["duplicate"] = True
        self._document(to, document, (("kind", "receipt"), ("execution-id", execution_id)))

    def refusal(self, to: ReplyTo, problem: dict[str, Any]) -> asyncio.Future[int]:
        """Say why a request was refused."""
        code = f"{reason_code(str(problem.get('code'))):d}"
        document: dict[str, Any] = {"status": "refused", "error": problem}
        if to.request_id is not None:
            document["request_id"] = to.request_id
        return self._document(to, document, (("kind", "refusal"), ("reason-code", code)))

    def _document(
        self, to: ReplyTo, document: dict[str, Any], properties: tuple[tuple[str, str], ...]
    ) -> asyncio.Future[int]:
        payload = encode(document) if to.cbor else json.dumps(document, separators=(",", ":")).encode()
        if to.request_id is not None:
            properties += (("request-id", to.request_id),)
        return self._session.publish(
            to.topic,
            payload,
            content_type=_CBOR if to.cbor else _JSON,
            correlation=to.correlation,
            user_properties=properties,
        )

    def result(self, result: Result) -> None:
        """Publish a result now, or on the next connection; once while it is under way."""
        self._unacknowledged[result.execution] = result
        if result.execution not in self._in_flight:
            self._publish(result)

    def again(self) -> None:
        """The broker is back: publish what it has not acknowledged."""
        for result in list(self._unacknowledged.values()):
            if result.execution not in self._in_flight:
                self._publish(result)

    def _publish(self, result: Result) -> None:
        properties = [("kind", "result"), ("status", result.status), ("execution-id", result.execution_id)]
        if result.request_id is not None:
            properties.append(("request-id", result.request_id))
        future = self._session.publish(
            result.topic,
            result.payload,
            content_type=result.content_type,
            correlation=result.correlation,
            user_properties=properties,
        )
        self._in_flight.add(result.execution)
        future.add_done_callback(lambda done: self._published(result, done))

    def _published(self, result: Result, done: asyncio.Future[int]) -> None:
        self._in_flight.discard(result.execution)
        if done.cancelled() or isinstance(done.exception(), EdgeError):
            return
        code = done.result()
        if code >= REFUSED:
            # The broker will never take it there: saying so once is all that is left to do.
            self._complaints.say(
                "results the broker refused",
                logging.ERROR,
                "the broker refused (0x%02x) the result of %s",
                code,
                result.execution_id,
            )
        if self._unacknowledged.get(result.execution) is result:
            del self._unacknowledged[result.execution]
        self._on_delivered(result.execution)

    def __len__(self) -> int:
        return len(self._unacknowledged)
