"""PUBLISH to and from bytes where paho's own way costs too much or trusts too much. Pure.

Called by `paho_session` only; checked against the `mqtt5` codec by tests. Must never raise anything but
ValueError for bytes that are not a PUBLISH.

paho reads properties through a class that copies the rest of the packet, payload included, twice per
property (a 1 MiB request with eight properties moves 16 MiB), and takes a U+FEFF in a user property, which
MQTT 5 §1.5.4 allows, for a malformed packet: the connection ends, the broker delivers the message again,
for ever.
"""

from __future__ import annotations

import struct

from edge.core.records import record

_EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION, _USER = 0x02, 0x03, 0x08, 0x09, 0x26
_FORMAT, _SUBSCRIPTION, _ALIAS = 0x01, 0x0B, 0x23


@record
class PackedProperties:
    """PUBLISH properties as bytes, in the shape paho asks for."""

    packed: bytes

    def pack(self) -> bytes:
        """What paho writes into the packet."""
        return self.packed


@record
class Received:
    """A PUBLISH as received; `packet_id` is 0 for QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    packet_id: int
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None
    user_properties: tuple[tuple[str, str], ...]


def pack_properties(
    content_type: str | None,
    response_topic: str | None,
    correlation: bytes | None,
    user_properties: tuple[tuple[str, str], ...],
    message_expiry_s: int | None,
) -> bytes:
    """The properties with their length in front (MQTT 5 §2.2.2); raises ValueError or struct.error."""
    out = bytearray()
    if message_expiry_s is not None:
        out += struct.pack("!BI", _EXPIRY, message_expiry_s)
    if content_type is not None:
        out += _prefixed(_CONTENT_TYPE, content_type.encode())
    if response_topic is not None:
        out += _prefixed(_RESPONSE_TOPIC, response_topic.encode())
    if correlation is not None:
        out += _prefixed(_CORRELATION, correlation)
    for key, value in user_properties:
        raw = value.encode()
        out += _prefixed(_USER, key.encode()) + struct.pack("!H", len(raw)) + raw
    return _varint(len(out)) + bytes(out)


def _prefixed(identifier: int, raw: bytes) -> bytes:
    if len(raw) > 0xFFFF:
        raise ValueError("a property is longer than 65,535 bytes")
    return struct.pack("!BH", identifier, len(raw)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpack_publish(first: int, body: bytes | bytearray) -> Received:
    """Read a PUBLISH from its first byte and what stands behind the remaining length (MQTT 5 §3.3)."""
    view = memoryview(body)
    qos = first >> 1 & 3
    try:
        topic, at = _text(view, 0)
        packet_id = 0
        if qos:
            (packet_id,) = struct.unpack_from("!H", view, at)
            at += 2
        length, at = _read_varint(view, at)
        end = at + length
        if end > len(view):
            raise ValueError("the properties are longer than the packet")
        values, users = _properties(view[:end], at)
    except (struct.error, IndexError) as error:
        raise ValueError("the packet ends too early") from error
    if qos == 3 or (qos and not packet_id) or not topic:
        raise ValueError("QoS 3, packet id 0 or an empty topic")
    content_type, response_topic = values.get(_CONTENT_TYPE), values.get(_RESPONSE_TOPIC)
    correlation = values.get(_CORRELATION)
    return Received(
        topic,
        bytes(view[end:]),
        qos,
        bool(first & 1),
        bool(first & 8),
        packet_id,
        None if content_type is None else str(content_type, "utf-8"),
        None if response_topic is None else str(response_topic, "utf-8"),
        correlation,
        tuple(users),
    )


def _properties(view: memoryview, at: int) -> tuple[dict[int, bytes], list[tuple[str, str]]]:
    values: dict[int, bytes] = {}
    users: list[tuple[str, str]] = []
    while at < len(view):
        identifier = view[at]
        at += 1
        if identifier == _USER:
            key, at = _text(view, at)
            value, at = _text(view, at)
            users.append((key, value))
        elif identifier in (_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION):
            if identifier in values:
                raise ValueError("a property stands twice")
            values[identifier], at = _binary(view, at)
        elif identifier == _SUBSCRIPTION:
            _, at = _read_varint(view, at)
        elif identifier in (_FORMAT, _EXPIRY):
            at += 1 if identifier == _FORMAT else 4
        elif identifier == _ALIAS:  # we announced no topic aliases, §3.1.2.11.5
            raise ValueError("a topic alias that was not allowed")
        else:
            raise ValueError(f"property 0x{identifier:02X} does not belong to PUBLISH")
    if at != len(view):
        raise ValueError("a property is longer than the properties")
    return values, users


def _binary(view: memoryview, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("!H", view, at)
    at += 2
    if at + length > len(view):
        raise ValueError("a string is longer than what holds it")
    return bytes(view[at : at + length]), at + length


def _text(view: memoryview, at: int) -> tuple[str, int]:
    raw, at = _binary(view, at)
    return raw.decode(), at


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14, 21):
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a variable byte integer is longer than four bytes")
