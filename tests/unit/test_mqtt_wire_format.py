"""Framing and our own PUBLISH reader, each held against the mqtt5 codec."""

from __future__ import annotations

import contextlib

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt.framing import Framer, Malformed
from gateway.mqtt.publish_wire import pack_properties, unpack_publish

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TOPICS = TEXT.map(lambda text: text.replace("#", "").replace("+", "")).filter(
    bool
)  # the codec refuses others
PUBLISHES = st.builds(
    lambda topic, payload, qos, retain, content, response, correlation, users, expiry, ids: (
        mqtt5.PublishPacket(
            topic,
            payload,
            qos=[mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE][qos],
            packet_id=7 if qos else None,
            retain=retain,
            content_type=content,
            response_topic=response,
            correlation_data=correlation,
            user_properties=users,
            message_expiry_interval=expiry,
            subscription_ids=ids,
        )
    ),
    TOPICS,
    st.binary(max_size=300),
    st.integers(0, 1),
    st.booleans(),
    st.none() | TEXT,
    st.none() | TOPICS,
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
    st.none() | st.integers(0, 0xFFFF_FFFF),
    st.lists(st.integers(1, 268_435_455), max_size=2),
)


def body_of(data: bytes) -> bytes:
    at = 1
    while data[at] & 0x80:
        at += 1
    return data[at + 1 :]


@given(PUBLISHES)
def test_publish_is_read_as_the_codec_wrote_it(packet: mqtt5.PublishPacket) -> None:
    data = packet.write()
    got = unpack_publish(data[0], body_of(data))
    assert (got.topic, got.payload, got.qos) == (packet.topic, packet.payload, int(packet.qos))
    assert (got.retain, got.duplicate, got.packet_id) == (packet.retain, False, packet.packet_id or 0)
    assert (got.content_type, got.response_topic) == (packet.content_type, packet.response_topic)
    assert (got.correlation, list(got.user_properties)) == (packet.correlation_data, packet.user_properties)


@given(
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(TEXT, TEXT), max_size=30),
    st.none() | st.integers(0, 0xFFFF_FFFF),
)
def test_properties_are_written_as_the_codec_reads_them(
    content: str | None,
    response: str | None,
    correlation: bytes | None,
    users: list[tuple[str, str]],
    expiry_s: int | None,
) -> None:
    packed = pack_properties(content, response, correlation, tuple(users), expiry_s)
    body = b"\x00\x01t" + packed + b"payload"
    size, header = len(body), bytearray(b"\x30")
    while size > 127:
        header.append(size & 127 | 128)
        size >>= 7
    header.append(size)
    packet, _ = mqtt5.read(memoryview(bytes(header) + body))
    assert isinstance(packet, mqtt5.PublishPacket)
    assert (packet.payload, packet.content_type, packet.response_topic) == (b"payload", content, response)
    assert (packet.correlation_data, packet.user_properties) == (correlation, users)
    assert packet.message_expiry_interval == expiry_s


@given(PUBLISHES, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_is_a_value_error_or_read(packet: mqtt5.PublishPacket, damage: list[tuple[int, int]]) -> None:
    data = bytearray(packet.write())
    for place, byte in damage:
        data[place % len(data)] = byte
    with contextlib.suppress(ValueError):
        unpack_publish(data[0], bytes(data[2:]))


@given(st.lists(PUBLISHES, min_size=1, max_size=5), st.data())
def test_packets_survive_any_cutting(packets: list[mqtt5.PublishPacket], data: st.DataObject) -> None:
    stream = b"".join(packet.write() for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    framer, got = Framer(1_000_000), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += framer.feed(stream[start:end])
    assert [packet.write() for packet in got] == [packet.write() for packet in packets]
    assert framer.held_bytes == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x30\xff\xff\xff\xff\x01", 0x81),  # remaining length of five bytes
        (b"\x30\x80\x80\x80\x01", 0x95),  # 2 MiB announced, refused before it arrives
        (b"\x00\x00", 0x81),
        (b"\x30\x04\x00\x01\xff\x00", 0x81),  # not UTF-8: the codec panics
        (b"\x36\x06\x00\x01a\x00\x01\x00", 0x81),  # QoS 3
        (b"\xc1\x00", 0x81),
        (b"\x30\x02\x00\x05", 0x81),  # the topic is longer than the packet
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the codec's panic
def test_malformed(data: bytes, code: int) -> None:
    with pytest.raises(Malformed) as caught:
        Framer(1_000_000).feed(data)
    assert caught.value.code == code
