"""Who may ask for what: a message in, an admission or a refusal out. Pure; never looks into a payload.

Called by the gateway daemon for each message. The admission table comes from the runtime; without one nothing is
admitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.errors import RequestRefused
from edge.core.limits import (
    CALLBACK_BYTES_MAX,
    CORRELATION_BYTES_MAX,
    KIB,
    MIB,
    PAYLOAD_BYTES_MAX,
    REQUEST_ID_BYTES_MAX,
)
from edge.core.records import record
from gateway import topics
from gateway.mqtt import Message

#: MQTT 5 reason codes (§2.4) of refusals, sent as user property `reason-code`.
REASON_CODES: Final = {
    "topic_invalid": 0x90,
    "playbook_unknown": 0x90,
    "response_topic_refused": 0x87,
    "payload_too_large": 0x95,
    "payload_invalid": 0x99,
    "content_type_unknown": 0x99,
    "callback_unknown": 0x87,
    "queue_full": 0x97,
    "storage_full": 0x97,
    "cache_full": 0x97,
}
_OTHER: Final = 0x83


@record
class ReplyTo:
    """Where the answers to one message go, and what goes back with them."""

    topic: str
    correlation: bytes | None
    principal: str
    request_id: str | None
    cbor: bool


@record
class Admitted:
    """A request as the runtime gets it, and how to answer it."""

    playbook: str
    form: str
    content_type: str | None
    receipt: bool
    deadline_ms: int | None
    traceparent: str | None
    payload: bytes
    reply_to: ReplyTo

    def submission(self, token: int) -> list[Any]:
        """The frame for the runtime (`edge.runtime.api.socket`)."""
        to = self.reply_to
        return [
            "submit",
            token,
            self.playbook,
            to.principal,
            to.request_id,
            self.form,
            to.topic,
            to.correlation,
            self.content_type,
            self.receipt,
            self.deadline_ms,
            self.traceparent,
            self.payload,
        ]


@record
class Called:
    """A callback as the runtime gets it. `reply_to` is where a refusal goes, None where nobody asked to be told."""

    callback_token: str
    content_type: str | None
    payload: bytes
    reply_to: ReplyTo | None

    def submission(self, token: int) -> list[Any]:
        """The frame for the runtime (`edge.runtime.api.socket`)."""
        return ["callback", token, self.callback_token, self.content_type, self.payload]


@record
class Refused:
    """A message that is no request here: why, and where to say so (None: nowhere)."""

    error: RequestRefused
    reply_to: ReplyTo | None
    playbook: str = ""
    callback: bool = False


def reason_code(problem_code: str) -> int:
    """The MQTT reason code that goes with a problem."""
    return REASON_CODES.get(problem_code, _OTHER)


def admit(box: str, message: Message, table: Mapping[str, Any]) -> Admitted | Called | Refused:
    """Admit or refuse one message."""
    properties = dict(message.user_properties)
    callback_token = topics.callback_token(box, message.topic)
    if callback_token is not None:
        return _admit_callback(callback_token, message, properties)
    try:
        topic = topics.parse(box, message.topic)
    except RequestRefused as error:
        return Refused(error, _reply_to_nobody_known(message, properties))
    request_id = topic.request_id or properties.get("request-id")
    content_type = message.content_type or properties.get("content-type")
    fixed = topics.response_topic(box, topic.principal, _as_level(request_id))
    reply_to = ReplyTo(
        message.response_topic or fixed,
        message.correlation,
        topic.principal,
        request_id,
        _is_cbor(content_type),
    )
    try:
        if not topics.may_answer_to(box, topic.principal, reply_to.topic):
            reply_to = ReplyTo(fixed, message.correlation, topic.principal, request_id, reply_to.cbor)
            raise RequestRefused(
                f"Answers may not be sent to {message.response_topic!r}.",
                mend=f"Use a response topic outside edge/ and $, or below {fixed.rpartition('/')[0]}/.",
                code="response_topic_refused",
            )
        _check_sizes(message, request_id)
        if topic.playbook not in table:
            raise RequestRefused(
                f"There is no playbook {topic.playbook!r} on this box.",
                mend="`edge playbook list` shows what there is; `edge playbook register FILE` adds one.",
                code="playbook_unknown",
            )
        deadline_ms = _deadline_ms(properties.get("deadline"))
        receipt = _receipt(properties.get("receipt"))
    except RequestRefused as error:
        return Refused(error, reply_to, topic.playbook)
    return Admitted(
        topic.playbook,
        topic.form,
        content_type,
        receipt,
        deadline_ms,
        properties.get("traceparent"),
        message.payload,
        reply_to,
    )


def _admit_callback(token: str, message: Message, properties: Mapping[str, str]) -> Called | Refused:
    """A callback: whoever has the token may use it, so there is no principal; only the runtime can tell a token."""
    reply_to = _reply_to_nobody_known(message, properties)
    try:
        _check_sizes(message, properties.get("request-id"))
        if len(message.payload) > CALLBACK_BYTES_MAX:
            raise RequestRefused(
                f"A callback brings at most {CALLBACK_BYTES_MAX // KIB} KB.",
                mend="Send less, or send the data in a request of its own.",
                code="payload_too_large",
            )
    except RequestRefused as error:
        return Refused(error, reply_to, callback=True)
    return Called(token, message.content_type or properties.get("content-type"), message.payload, reply_to)


def _reply_to_nobody_known(message: Message, properties: Mapping[str, str]) -> ReplyTo | None:
    """Where no principal is known, answers go only outside of edge/."""
    topic = message.response_topic
    if topic is None or topic.startswith("edge/") or not topics.may_answer_to("", "", topic):
        return None
    return ReplyTo(
        topic, message.correlation, "", properties.get("request-id"), _is_cbor(message.content_type)
    )


def _as_level(request_id: str | None) -> str | None:
    """A request id as a topic level; one that cannot be a level is answered as if there were none."""
    if request_id is None or any(sign in request_id for sign in "/+#\x00"):
        return None
    return request_id


def _is_cbor(content_type: str | None) -> bool:
    return content_type is not None and content_type.split(";")[0].strip().lower() == "application/cbor"


def _check_sizes(message: Message, request_id: str | None) -> None:
    if len(message.payload) > PAYLOAD_BYTES_MAX:
        raise RequestRefused(
            f"The payload has {len(message.payload) / MIB:.1f} MB; {PAYLOAD_BYTES_MAX // MIB} MB are allowed.",
            mend="Send it in several requests.",
            code="payload_too_large",
        )
    if request_id is not None and not 0 < len(request_id.encode()) <= REQUEST_ID_BYTES_MAX:
        raise RequestRefused(
            f"The request id must have 1 to {REQUEST_ID_BYTES_MAX} bytes.",
            mend="Use a UUID.",
            code="request_id_invalid",
        )
    if message.correlation is not None and len(message.correlation) > CORRELATION_BYTES_MAX:
        raise RequestRefused(
            f"The correlation data has {len(message.correlation)} bytes; {CORRELATION_BYTES_MAX} are allowed.",
            mend="Keep what you need yourself and send its key.",
            code="correlation_too_large",
        )
    extra = sum(len(name) + len(value) for name, value in message.user_properties)
    if extra > 4 * KIB:
        raise RequestRefused(
            f"The user properties have {extra} bytes; {4 * KIB} are allowed.",
            mend="Put data into the payload.",
            code="properties_too_large",
        )


def _receipt(text: str | None) -> bool:
    if text not in (None, "none"):
        raise RequestRefused(
            f"The user property receipt cannot be {text[:40]!r}.",
            mend="Send receipt=none for the result alone, or leave it out.",
            code="receipt_invalid",
        )
    return text is None


def _deadline_ms(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 0 < int(text) < 2**53:
        raise RequestRefused(
            f"The deadline {text[:40]!r} is not a number of milliseconds from now.",
            mend="Send user property deadline=5000 for five seconds.",
            code="deadline_invalid",
        )
    return int(text)
