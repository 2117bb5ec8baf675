"""The embedded broker against a client that may break every rule: MQTT 5 as we promise it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import mqtt5
import pytest
from mqtt5 import DisconnectReasonCode as Goodbye
from mqtt5 import PubAckReasonCode, RetainHandling, SubAckReasonCode, TopicFilter, UnsubAckReasonCode

from edge.core.errors import Misconfigured, Unavailable
from gateway.embedded_broker import EmbeddedBroker
from gateway.embedded_broker.connection import PACKET_BYTES_MAX
from tests.process.mqtt_peers import Raw

QOS_0, QOS_1, QOS_2 = mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE, mqtt5.QoS.EXACTLY_ONCE


@pytest.fixture(autouse=True)
async def _close_all() -> AsyncIterator[None]:
    yield
    await Raw.close_all()


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    made = EmbeddedBroker(queued_max=5)
    made.port = await made.start()  # type: ignore[attr-defined]
    yield made
    await made.stop()


@pytest.fixture
def port(broker: EmbeddedBroker) -> int:
    return int(broker.port)  # type: ignore[attr-defined]


async def connected(port: int, client_id: str = "", **options: Any) -> Raw:
    raw = Raw(port)
    answer = await raw.connect(client_id, **options)
    assert answer.reason_code == mqtt5.ConnAckReasonCode.SUCCESS, answer
    return raw


async def test_connack_says_what_is_offered(port: int) -> None:
    raw = Raw(port)
    answer = await raw.connect("")
    assert answer.assigned_client_id.startswith("auto-")
    assert answer.max_qos == QOS_1
    assert answer.topic_alias_max == 0
    assert answer.shared_subscription_available is False
    assert answer.max_packet_size == PACKET_BYTES_MAX
    assert (await Raw(port).connect("named")).assigned_client_id is None


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (mqtt5.PublishPacket("t", b"", qos=QOS_2, packet_id=1), Goodbye.QOS_NOT_SUPPORTED),
        (mqtt5.PublishPacket("t", b"", topic_alias=1), Goodbye.TOPIC_ALIAS_INVALID),
        (b"\x30\x04\x00\x01#\x00", Goodbye.TOPIC_NAME_INVALID),
        (b"\x30\x04\x00\x01\x00\x00", Goodbye.TOPIC_NAME_INVALID),
        (b"\x30\x08\x00\x01t\x04\x08\x00\x01#", Goodbye.PROTOCOL_ERROR),  # response topic #
        (b"\x32\x06\x00\x01t\x00\x00\x00", Goodbye.PROTOCOL_ERROR),  # packet id 0
        (mqtt5.PublishPacket("t", b"", subscription_ids=[1]), Goodbye.PROTOCOL_ERROR),
        (b"\x82\x03\x00\x01\x00", Goodbye.PROTOCOL_ERROR),
        (b"\xa2\x03\x00\x01\x00", Goodbye.PROTOCOL_ERROR),
        (mqtt5.ConnectPacket("again"), Goodbye.PROTOCOL_ERROR),
        (mqtt5.ConnAckPacket(), Goodbye.PROTOCOL_ERROR),
        (mqtt5.PubRecPacket(1), Goodbye.PROTOCOL_ERROR),
        (mqtt5.AuthPacket(), Goodbye.PROTOCOL_ERROR),
        (mqtt5.DisconnectPacket(session_expiry_interval=5), Goodbye.PROTOCOL_ERROR),
        (b"\x00\x00", Goodbye.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\xff\x01", Goodbye.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\x7f", Goodbye.PACKET_TOO_LARGE),
    ],
)
async def test_a_violation_ends_that_client_only(port: int, packet: Any, code: Any) -> None:
    neighbour = await connected(port, "neighbour")
    await neighbour.subscribe(TopicFilter("will"))
    raw = await connected(port, "bad", will=mqtt5.Will("will", payload=b"died"))
    raw.send(packet)
    await raw.expect_goodbye(code)
    await neighbour.expect(b"died")
    await neighbour.expect_nothing()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the codec's panic
async def test_bad_utf8_ends_that_client_only(port: int) -> None:
    neighbour, raw = await connected(port, "neighbour"), await connected(port, "bad")
    raw.send(b"\x30\x04\x00\x01\xff\x00")
    await raw.expect_goodbye(Goodbye.MALFORMED_PACKET)
    await neighbour.expect_nothing()


async def test_nothing_before_connect(port: int) -> None:
    for first in (mqtt5.PingReqPacket().write(), b"GET / HTTP/1.1\r\n\r\n"):
        raw = await Raw(port).open()
        raw.send(first)
        assert await raw.read() is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"will": mqtt5.Will("w", qos=QOS_2)}, mqtt5.ConnAckReasonCode.QUALITY_NOT_SUPPORTED),
        ({"authentication_method": "x"}, mqtt5.ConnAckReasonCode.BAD_AUTHENTICATION_METHOD),
    ],
)
async def test_connects_that_are_refused(port: int, options: dict[str, Any], code: Any) -> None:
    raw = Raw(port)
    assert (await raw.connect("c", **options)).reason_code == code
    assert await raw.read() is None


async def test_takeover(port: int) -> None:
    first = await connected(port, "same", session_expiry_interval=60)
    await first.subscribe(TopicFilter("t"))
    second = Raw(port)
    answer = await second.connect("same", session_expiry_interval=60)
    assert answer.session_present is True
    await first.expect_goodbye(Goodbye.SESSION_TAKEN_OVER)
    assert await second.publish("nobody", b"") == PubAckReasonCode.NO_MATCHING_SUBSCRIBERS


async def test_session_expiry(port: int) -> None:
    first = await connected(port, "short")
    await first.subscribe(TopicFilter("t"))
    await first.leave()
    assert (await Raw(port).connect("short")).session_present is False
    long = await connected(port, "long", session_expiry_interval=60)
    await long.leave()
    long = Raw(port)
    assert (await long.connect("long", session_expiry_interval=60)).session_present is True
    await long.leave(session_expiry_interval=0)
    assert (await Raw(port).connect("long")).session_present is False


async def test_a_full_queue_is_refused_and_nothing_is_lost(broker: EmbeddedBroker, port: int) -> None:
    away = await connected(port, "away", session_expiry_interval=60)
    await away.subscribe(TopicFilter("t"))
    here = await connected(port, "here")
    await here.subscribe(TopicFilter("t"))
    await away.leave()
    sender = await connected(port, "sender")
    for number in range(5):
        assert await sender.publish("t", b"%d" % number) == PubAckReasonCode.SUCCESS
        await here.expect(b"%d" % number)
    for _ in range(2):
        assert await sender.publish("t", b"too much", retain=True) == PubAckReasonCode.QUOTA_EXCEEDED
    await here.expect_nothing()  # refused for one is refused for all: the sender sends it again
    assert len(broker.retained) == 0
    assert broker.counters.refused_full == 2
    back = await connected(port, "away", session_expiry_interval=60)
    for number in range(5):
        await back.expect(b"%d" % number)
    await back.expect_nothing()
    assert await sender.publish("t", b"too much") == PubAckReasonCode.SUCCESS
    await back.expect(b"too much")


async def test_the_clients_receive_maximum(port: int) -> None:
    slow = await connected(port, "slow", receive_max=2)
    await slow.subscribe(TopicFilter("t"))
    sender = await connected(port, "sender")
    for number in range(4):
        await sender.publish("t", b"%d" % number)
    first, second = await slow.read(), await slow.read()
    assert (first.payload, second.payload) == (b"0", b"1")
    await slow.expect_nothing()
    slow.send(mqtt5.PubAckPacket(second.packet_id))
    await slow.expect(b"2")
    await slow.expect(b"3")


async def test_unacknowledged_messages_keep_their_packet_id(port: int) -> None:
    first = await connected(port, "c", session_expiry_interval=60)
    await first.subscribe(TopicFilter("t"))
    sender = await connected(port, "sender")
    await sender.publish("t", b"1")
    before = await first.read()
    first.cut()
    again = await connected(port, "c", session_expiry_interval=60)
    packet = await again.expect(b"1")
    assert packet.packet_id == before.packet_id
    assert (before.duplicate, packet.duplicate) == (False, True)


async def test_subscription_options(port: int) -> None:
    raw = await connected(port, "c")
    await raw.subscribe(TopicFilter("own/#", no_local=True), identifier=7)
    await raw.subscribe(TopicFilter("+/a", retain_as_published=True), identifier=9)
    assert await raw.publish("own/b", b"") == PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
    other = await connected(port, "other")
    assert await other.publish("own/a", b"both", retain=True) == PubAckReasonCode.SUCCESS
    packet = await raw.expect(b"both")
    assert sorted(packet.subscription_ids) == [7, 9]
    assert packet.retain is True
    assert await other.publish("own/b", b"one", retain=True) == PubAckReasonCode.SUCCESS
    packet = await raw.expect(b"one")
    assert packet.subscription_ids == [7]
    assert packet.retain is True  # the codec's filters ask for retain as published
    await raw.subscribe(
        TopicFilter("own/#", retain_as_published=False, retain_handling=RetainHandling.SEND_NEVER)
    )
    assert await other.publish("own/b", b"plain", retain=True) == PubAckReasonCode.SUCCESS
    packet = await raw.expect(b"plain")
    assert (packet.retain, packet.subscription_ids) == (False, [])


async def test_retain_handling(port: int) -> None:
    raw = await connected(port, "c")
    await raw.publish("kept", b"x", retain=True)
    once = TopicFilter("kept", retain_handling=RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS)
    never = TopicFilter("ke+/#".replace("+", "pt"), retain_handling=RetainHandling.SEND_NEVER)
    await raw.subscribe(never)
    await raw.expect_nothing()
    await raw.subscribe(once)
    assert (await raw.expect(b"x")).retain is True
    await raw.subscribe(once)
    await raw.expect_nothing()
    await raw.subscribe(TopicFilter("kept"))
    await raw.expect(b"x")
    await raw.subscribe(TopicFilter("#"))
    await raw.expect(b"x")


async def test_subscriptions_that_are_refused(port: int) -> None:
    raw = await connected(port, "c")
    codes = await raw.subscribe(
        TopicFilter("fine", max_qos=QOS_2), TopicFilter("zero", max_qos=QOS_0), TopicFilter("$share/group/t")
    )
    assert codes == [
        SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
        SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
        SubAckReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ]
    raw.send(b"\x82\x08\x00\x09\x00\x00\x02a#\x01")
    answer = await raw.read()
    assert answer.reason_codes == [SubAckReasonCode.TOPIC_FILTER_INVALID]
    raw.send(mqtt5.UnsubscribePacket(3, ["fine", "fine", "never"]))
    answer = await raw.read()
    assert answer.reason_codes == [
        UnsubAckReasonCode.SUCCESS,
        UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED,
        UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED,
    ]
    assert await raw.publish("fine", b"") == PubAckReasonCode.NO_MATCHING_SUBSCRIBERS


async def test_message_expiry(port: int) -> None:
    away = await connected(port, "away", session_expiry_interval=60)
    await away.subscribe(TopicFilter("t"))
    await away.leave()
    sender = await connected(port, "sender")
    await sender.publish("t", b"gone", message_expiry_interval=0)
    await sender.publish("t", b"left", message_expiry_interval=1_000)
    back = await connected(port, "away", session_expiry_interval=60)
    packet = await back.expect(b"left")
    assert packet.message_expiry_interval is not None
    assert 900 < packet.message_expiry_interval <= 1_000


async def test_a_delayed_will(port: int) -> None:
    watcher = await connected(port, "watcher")
    await watcher.subscribe(TopicFilter("will"))
    will = mqtt5.Will("will", payload=b"late", qos=QOS_1, will_delay_interval=3_600)
    options = {"session_expiry_interval": 3_600, "will": will}
    doomed = await connected(port, "doomed", **options)
    doomed.cut()
    back = await connected(port, "doomed", **options)  # in time: the will is not published
    await watcher.expect_nothing()
    back.cut()
    await connected(port, "doomed", clean_start=True)  # ends the session, so the will is due
    await watcher.expect(b"late")


async def test_disconnect_with_will(port: int) -> None:
    watcher = await connected(port, "watcher")
    await watcher.subscribe(TopicFilter("will"))
    leaving = await connected(port, "a", will=mqtt5.Will("will", payload=b"a", content_type="text/plain"))
    await leaving.leave(reason_code=Goodbye.DISCONNECT_WITH_WILL_MESSAGE)
    assert (await watcher.expect(b"a")).content_type == "text/plain"
    polite = await connected(port, "b", will=mqtt5.Will("will", payload=b"b"))
    await polite.leave()
    await watcher.expect_nothing()


async def test_silence_ends_the_connection(port: int) -> None:
    raw = await connected(port, "c", keep_alive=1)
    await raw.expect_goodbye(Goodbye.KEEP_ALIVE_TIMEOUT)


async def test_a_client_with_a_small_packet_maximum(broker: EmbeddedBroker, port: int) -> None:
    small = await connected(port, "small", max_packet_size=100)
    await small.subscribe(TopicFilter("t"))
    sender = await connected(port, "sender")
    assert await sender.publish("t", b"x" * 200) == PubAckReasonCode.SUCCESS
    assert await sender.publish("t", b"fits") == PubAckReasonCode.SUCCESS
    await small.expect(b"fits")
    assert broker.counters.dropped_large == 1


async def test_a_slow_reader_loses_qos_0_and_keeps_qos_1(broker: EmbeddedBroker, port: int) -> None:
    slow = await connected(port, "slow")
    await slow.subscribe(TopicFilter("t"))
    slow.reader._limit = 1  # type: ignore[attr-defined]  # the transport stops reading after one chunk
    sender = await connected(port, "sender")
    payload = b"x" * 500_000
    for _ in range(200):
        if broker.counters.dropped_slow:
            break
        sender.send(mqtt5.PublishPacket("t", payload))
        await sender.expect_nothing()
    assert broker.counters.dropped_slow, "100 MB were buffered for a client that reads nothing"
    for number in range(5):
        assert await sender.publish("t", b"%d" % number) == PubAckReasonCode.SUCCESS
    assert await sender.publish("t", b"5") == PubAckReasonCode.QUOTA_EXCEEDED
    slow.reader._limit = 65_536  # type: ignore[attr-defined]
    got: list[bytes] = []
    while len(got) < 5:
        packet = await slow.read()
        if packet.packet_id:
            got.append(packet.payload)
            slow.send(mqtt5.PubAckPacket(packet.packet_id))
    assert got == [b"0", b"1", b"2", b"3", b"4"]


async def test_stopping_says_so() -> None:
    broker = EmbeddedBroker()
    raw = await connected(await broker.start(), "c")
    await broker.stop()
    await raw.expect_goodbye(Goodbye.SERVER_SHUTTING_DOWN)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "broker.example"])
async def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(Misconfigured, match="no access control"):
        await EmbeddedBroker().start(host=host)


async def test_a_port_that_is_taken(port: int) -> None:
    with pytest.raises(Unavailable, match=str(port)):
        await EmbeddedBroker().start(port=port)
