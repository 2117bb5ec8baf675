"""From messages to what an execution takes: one message's input, or a batch's table as workers get it.

Called where a subscription's executions begin and where they are run again, which must see the same. NoETL's envelope
for a single message; for a batch only bytes are handed on, and a worker makes the table. Pure. Never raises over what
a message holds: what cannot be decoded is handed on as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from edge.core.codec import ARROW, CBOR, JSON, decode_cbor_payload, decode_json_payload, encode
from edge.core.errors import PayloadInvalid
from edge.core.events import Event
from edge.core.limits import VALUE_PAYLOAD_BYTES_MAX
from edge.core.subscription_events import MessageReceived
from playbooks.subscription import Subscription

_NS_PER_MS: Final = 1_000_000


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
