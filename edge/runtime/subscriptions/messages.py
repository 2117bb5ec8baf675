"""From messages to what an execution takes: one message's input, or a batch's table as workers get it.

Called by `edge.runtime.subscriptions.batches` and `edge.runtime.subscriptions.reception`. NoETL's envelope for a
single message; for a batch only bytes are handed on, and a worker makes the table. Never raises over what a message
holds: what cannot be decoded is handed on as it is.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

from edge.core.codec import decode_cbor_payload, decode_json_payload, encode
from edge.core.errors import PayloadInvalid
from edge.core.events import Event
from edge.core.limits import LANE_BYTES_MAX
from edge.core.records import record
from edge.core.subscription_events import MessageReceived
from edge.runtime.requests.admit import ARROW, CBOR, JSON, VALUE_PAYLOAD_BYTES_MAX
from playbooks.subscription import MESSAGE_ID, OrderingKey, Subscription

#: How an execution of a subscription came: nobody is answered.
FORM: Final = "subscription"
_NS_PER_MS: Final = 1_000_000


@record
class Arrived:
    """A message as the gateway hands it on; `again` says that it may have come before, as the same `packet`.

    `packet` is the broker's id of it, 0 at QoS 0.
    """

    topic: str
    payload: bytes
    content_type: str | None
    headers: dict[str, str]
    packet: int
    retain: bool
    again: bool


def content_kind(content_type: str | None) -> str:
    """The content type without its parameters; JSON where nothing is said, as in NoETL."""
    return (content_type or JSON).split(";")[0].strip().lower()


def decoded(content_type: str | None, payload: bytes) -> Any:
    """What a payload says: a value of JSON or CBOR, else a text, else the bytes."""
    kind = content_kind(content_type)
    if len(payload) <= VALUE_PAYLOAD_BYTES_MAX and kind in (JSON, CBOR):
        try:
            return decode_cbor_payload(payload) if kind == CBOR else decode_json_payload(payload)
        except PayloadInvalid:
            pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload


def directed(subscription: Subscription, headers: dict[str, str]) -> dict[str, str]:
    """What the directives decide for a message, by what they control; the last one that applies wins, as in NoETL."""
    made: dict[str, str] = {}
    for directive in subscription.directives:
        value = headers.get(directive.header)
        if value is not None and (directive.allowed is None or value in directive.allowed):
            made[directive.controls] = value
    if subscription.dedup_window_s and MESSAGE_ID in headers:
        made.setdefault("idempotency_key", headers[MESSAGE_ID])
    return made


def lane_of(
    key: OrderingKey | None, topic: str, headers: dict[str, str], content_type: str | None, payload: bytes
) -> str | None:
    """The lane a message waits in; None where it has no key, as all of those share one."""
    if key is None:
        return None
    found: Any = topic
    if key.kind == "level":
        levels = topic.split("/")
        found = levels[key.level] if key.level < len(levels) else None
    elif key.kind == "header":
        found = headers.get(key.path[0])
    elif key.kind == "payload":
        found = decoded(content_type, payload)
        for name in key.path:
            found = found.get(name) if isinstance(found, dict) else None
    if found is None or isinstance(found, (dict, list, bytes)):
        return None
    text = found if isinstance(found, str) else str(found)
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= LANE_BYTES_MAX else hashlib.blake2b(raw, digest_size=16).hexdigest()


def single_input(subscription: Subscription, event: Event, payload: bytes) -> dict[str, Any]:
    """The input of an execution for one message: NoETL's envelope, and the chosen part of it merged to the top."""
    body = event.body
    assert isinstance(body, MessageReceived)
    if body.tick is not None:
        return _tick_input(subscription, body)
    headers = body.headers or {}
    data = None if content_kind(body.content_type) == ARROW else decoded(body.content_type, payload)
    given: dict[str, Any] = {
        "message": {
            "id": body.key or str(event.seq),
            "data": data,
            "headers": headers,
            "attributes": headers,
            "metadata": {
                "topic": body.topic,
                "seq": event.seq,
                "received_ns": body.received_ns,
                "content_type": body.content_type,
                "retained": body.retain,
            },
        },
        "subscription": subscription.path,
        "source": subscription.source,
    }
    primary: Any = data
    if subscription.payload_from == "message.attributes":
        primary = headers
    elif subscription.payload_from == "message.body":
        primary = payload.decode("utf-8", "replace")
    if isinstance(primary, dict):
        given = {**{str(name): value for name, value in primary.items()}, **given}
    elif primary is not None:
        given["body"] = primary
    if body.key is not None:
        given["idempotency_key"] = body.key
    return given


def _tick_input(subscription: Subscription, body: MessageReceived) -> dict[str, Any]:
    assert body.tick is not None
    number, wall_ns = body.tick[0], body.tick[1]
    moment = datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return {
        "n": number,
        "scheduled": moment.replace("+00:00", "Z"),
        "scheduled_ms": wall_ns // _NS_PER_MS,
        "subscription": subscription.path,
        "source": subscription.source,
    }


def batch_bytes(subscription: Subscription, messages: list[tuple[Event, bytes]]) -> bytes:
    """A batch as a worker makes its table of it (`edge.worker.batch_table`)."""
    columns = None if subscription.columns is None else [list(column) for column in subscription.columns]
    rows = []
    for event, payload in messages:
        body = event.body
        assert isinstance(body, MessageReceived)
        rows.append([event.seq, body.topic, body.received_ns, body.content_type, payload])
    return encode([columns, rows])
