"""One suite for every Session implementation on every broker: what `gateway.mqtt.session` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge.core.errors import Misconfigured, Unavailable
from gateway.mqtt import IMPLEMENTATIONS, ONCE, Message, Will
from tests.process.mqtt_peers import PATIENCE_S, Client, Relay, patiently


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["mosquitto", "embedded"])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    if request.param == "mosquitto":
        yield request.getfixturevalue("mosquitto").port
        return
    from gateway.embedded_broker import EmbeddedBroker

    broker = EmbeddedBroker()
    chosen = await broker.start(port=0)
    try:
        yield chosen
    finally:
        await broker.stop()


@pytest.fixture
async def relay(port: int) -> AsyncIterator[Relay]:
    made = Relay(port)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def test_properties_make_the_round_trip(implementation: str, port: int) -> None:
    asker, answerer = Client(implementation, port), Client(implementation, port)
    assert await asker.session.connect() is False
    await answerer.session.connect()
    await answerer.session.subscribe([("ask/+", 1)])
    properties = (("request-id", "r-1"), ("traceparent", "00-ä-☃"), ("request-id", "again"))
    code = await patiently(
        asker.session.publish(
            "ask/thing",
            b"\x00\xff payload",
            content_type="application/cbor",
            response_topic="answer/1",
            correlation=b"\x00\x01\xfe",
            user_properties=properties,
            message_expiry_s=60,
        )
    )
    assert code == 0
    message = await answerer.next_acknowledged()
    assert (message.topic, message.payload, message.qos) == ("ask/thing", b"\x00\xff payload", 1)
    assert (message.response_topic, message.correlation) == ("answer/1", b"\x00\x01\xfe")
    assert message.content_type == "application/cbor"
    assert message.user_properties == properties
    assert message.retain is False
    assert message.duplicate is False
    await asker.session.close()
    await answerer.session.close()


async def test_absent_properties_are_none(implementation: str, port: int) -> None:
    client = Client(implementation, port)
    await client.session.connect()
    await client.session.subscribe([("t", 1)])
    assert await patiently(client.session.publish("t", b"", qos=0)) == 0
    message = await client.next()
    assert message.payload == b""
    assert message.qos == 0
    assert (message.response_topic, message.correlation, message.content_type) == (None, None, None)
    assert message.user_properties == ()
    client.session.acknowledge(message)  # QoS 0: nothing to acknowledge, and no harm
    await client.session.close()


async def test_qos_is_the_lower_of_both_sides(implementation: str, port: int) -> None:
    client = Client(implementation, port)
    await client.session.connect()
    await client.session.subscribe([("low/#", 0), ("high/#", 1)])
    assert await patiently(client.session.publish("low/a", b"1")) == 0
    assert (await client.next()).qos == 0
    assert await patiently(client.session.publish("high/a", b"2", qos=0)) == 0
    assert (await client.next()).qos == 0
    assert await patiently(client.session.publish("high/a", b"3")) == 0
    assert (await client.next()).qos == 1
    await client.session.close()


async def test_never_more_than_the_receive_maximum_is_handed_over(implementation: str, port: int) -> None:
    client = Client(implementation, port, receive_maximum=10)
    await client.session.connect()
    await client.session.subscribe([("many", 1)])
    for future in [client.session.publish("many", b"%d" % number) for number in range(500)]:
        assert await patiently(future) == 0
    held: list[Message] = []
    for number in range(500):
        while len(held) < min(10, 500 - number):
            held.append(await client.next())
        assert client.received.empty()
        assert held[0].payload == b"%d" % number
        client.session.acknowledge(held.pop(0))
    await client.session.close()


async def test_many_publishes_keep_their_order(implementation: str, port: int) -> None:
    # mosquitto 2.0.11 overruns our Receive Maximum here; that must cost neither messages nor the connection.
    client = Client(implementation, port, receive_maximum=50)
    await client.session.connect()
    await client.session.subscribe([("many", 1)])
    futures = [client.session.publish("many", b"%d" % number) for number in range(1_000)]
    got = [(await client.next_acknowledged()).payload for _ in range(1_000)]
    assert got == [b"%d" % number for number in range(1_000)]
    assert await patiently(asyncio.gather(*futures)) == [0] * 1_000
    await client.session.close()


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_large_payload_arrives_whole(implementation: str, port: int, qos: int) -> None:
    client = Client(implementation, port)
    await client.session.connect()
    await client.session.subscribe([("large", 1)])
    payload = bytes(range(256)) * 4_096
    properties = tuple((f"name-{number}", "v" * 100) for number in range(8))
    assert await patiently(client.session.publish("large", payload, qos=qos, user_properties=properties)) == 0
    message = await client.next_acknowledged()
    assert message.payload == payload
    assert message.user_properties == properties
    await client.session.close()


async def test_unacknowledged_messages_come_again(implementation: str, port: int, relay: Relay) -> None:
    gateway = Client(implementation, relay.port, "gateway", session_expiry_s=300)
    sender = Client(implementation, port)
    await sender.session.connect()
    assert await gateway.session.connect() is False
    await gateway.session.subscribe([("work", 1)])
    for number in range(3):
        assert await patiently(sender.session.publish("work", b"%d" % number)) == 0
    first = await gateway.next_acknowledged()
    second = await gateway.next()
    third = await gateway.next()
    # The PUBACK of the first must have reached the broker; it is in order before the answer to this.
    await gateway.session.subscribe([("other", 1)])
    relay.cut()
    await patiently(gateway.lost.get())

    assert await gateway.session.connect() is True
    again = [await gateway.next(), await gateway.next()]
    assert [message.payload for message in again] == [second.payload, third.payload]
    assert all(message.duplicate for message in again)
    for message in (first, second, third):  # of a connection that is gone: must acknowledge nothing
        gateway.session.acknowledge(message)
    await gateway.session.subscribe([("other", 1)])
    relay.cut()
    await patiently(gateway.lost.get())

    assert await gateway.session.connect() is True
    again = [await gateway.next(), await gateway.next()]
    assert [message.payload for message in again] == [second.payload, third.payload]
    for message in again:
        gateway.session.acknowledge(message)
    assert await patiently(sender.session.publish("work", b"next")) == 0
    assert (await gateway.next()).payload == b"next"
    assert gateway.received.empty()
    await gateway.session.close()
    await sender.session.close()


async def test_messages_sent_while_away_are_kept(implementation: str, port: int, relay: Relay) -> None:
    gateway = Client(implementation, relay.port, "gateway", session_expiry_s=300)
    sender = Client(implementation, port)
    await gateway.session.connect()
    await gateway.session.subscribe([("work", 1)])
    relay.cut()
    await patiently(gateway.lost.get())
    await sender.session.connect()
    for number in range(100):
        assert await patiently(sender.session.publish("work", b"%d" % number)) in (0, 0x10)
    assert await gateway.session.connect() is True
    got = [(await gateway.next_acknowledged()).payload for _ in range(100)]
    assert got == [b"%d" % number for number in range(100)]
    await gateway.session.close()
    await sender.session.close()


async def test_clean_start_forgets(implementation: str, port: int) -> None:
    first = Client(implementation, port, "same", session_expiry_s=300)
    await first.session.connect()
    await first.session.subscribe([("x", 1)])
    await first.session.close()
    second = Client(implementation, port, "same", session_expiry_s=300, clean_start=True)
    assert await second.session.connect() is False
    await second.session.subscribe([("y", 1)])
    assert await patiently(second.session.publish("x", b"nobody")) in (0, 0x10)
    assert await patiently(second.session.publish("y", b"me")) == 0
    assert (await second.next()).payload == b"me"
    await second.session.close()


async def test_loss_fails_what_waits(implementation: str, relay: Relay) -> None:
    client = Client(implementation, relay.port)
    await client.session.connect()
    relay.hold()
    pending = [client.session.publish("t", b"x") for _ in range(10)]
    client.session.publish("t", b"ignored")  # nobody looks at this one; that must not be an error
    subscribing = asyncio.ensure_future(client.session.subscribe([("t", 1)]))
    await asyncio.wait_for(asyncio.shield(asyncio.sleep(0)), PATIENCE_S)
    relay.cut()
    assert await patiently(client.lost.get())
    for future in pending:
        with pytest.raises(Unavailable):
            await patiently(future)
    with pytest.raises(Unavailable):
        await patiently(subscribing)
    with pytest.raises(Unavailable):
        await patiently(client.session.publish("t", b"x"))
    with pytest.raises(Unavailable):
        await patiently(client.session.subscribe([("t", 1)]))
    assert client.lost.empty()
    await client.session.connect()
    assert await patiently(client.session.publish("t", b"x")) in (0, 0x10)
    await client.session.close()
    assert client.lost.empty()


async def test_the_will_is_published_when_the_cable_is_cut(
    implementation: str, port: int, relay: Relay
) -> None:
    watcher = Client(implementation, port)
    await watcher.session.connect()
    await watcher.session.subscribe([("status", 1)])
    doomed = Client(implementation, relay.port, will=Will("status", b"offline", qos=1, retain=True))
    await doomed.session.connect()
    relay.cut()
    message = await watcher.next_acknowledged()
    assert (message.topic, message.payload, message.qos) == ("status", b"offline", 1)
    late = Client(implementation, port)
    await late.session.connect()
    await late.session.subscribe([("status", 1)])
    kept = await late.next_acknowledged()
    assert (kept.payload, kept.retain) == (b"offline", True)
    assert await patiently(late.session.publish("status", b"", retain=True)) == 0
    await late.session.close()
    await watcher.session.close()


async def test_close_discards_the_will(implementation: str, port: int) -> None:
    watcher = Client(implementation, port)
    await watcher.session.connect()
    await watcher.session.subscribe([("status", 1)])
    polite = Client(implementation, port, will=Will("status", b"offline"))
    await polite.session.connect()
    assert await patiently(polite.session.publish("status", b"bye")) == 0
    await polite.session.close()
    assert (await watcher.next_acknowledged()).payload == b"bye"
    assert await patiently(watcher.session.publish("status", b"after")) == 0
    assert (await watcher.next_acknowledged()).payload == b"after"
    await watcher.session.close()


async def test_retained(implementation: str, port: int) -> None:
    client = Client(implementation, port)
    await client.session.connect()
    properties = (("k", "v"),)
    code = await patiently(
        client.session.publish(
            "kept/a", b"1", retain=True, content_type="text/plain", user_properties=properties
        )
    )
    assert code in (0, 0x10)
    await client.session.subscribe([("kept/#", 1)])
    message = await client.next_acknowledged()
    assert (message.payload, message.retain) == (b"1", True)
    assert (message.content_type, message.user_properties) == ("text/plain", properties)
    assert await patiently(client.session.publish("kept/a", b"2", retain=True)) == 0
    assert (await client.next_acknowledged()).retain is False  # not kept for us: published while we listened
    assert await patiently(client.session.publish("kept/a", b"", retain=True)) == 0
    assert (await client.next_acknowledged()).payload == b""
    await client.session.subscribe([("kept/#", 1)])
    assert await patiently(client.session.publish("kept/b", b"mark")) == 0
    assert (await client.next_acknowledged()).payload == b"mark"
    await client.session.close()


async def test_given_up_filters_and_what_was_kept(implementation: str, port: int) -> None:
    """ONCE brings what was kept to a new subscription only; after UNSUBSCRIBE nothing comes any more."""
    client = Client(implementation, port)
    await client.session.connect()
    assert await patiently(client.session.publish("once/a", b"1", retain=True)) in (0, 0x10)
    await client.session.subscribe([("once/#", 1)], retained=ONCE)
    message = await client.next_acknowledged()
    assert (message.payload, message.packet_id > 0) == (b"1", True)
    await client.session.subscribe([("once/#", 1), ("mark", 1)], retained=ONCE)
    assert await patiently(client.session.publish("mark", b"m")) == 0
    assert (await client.next_acknowledged()).payload == b"m"
    await client.session.unsubscribe(["once/#", "never/asked"])
    assert await patiently(client.session.publish("once/a", b"", retain=True)) in (0, 0x10)
    assert await patiently(client.session.publish("mark", b"n")) == 0
    assert (await client.next_acknowledged()).payload == b"n"
    await client.session.close()


@pytest.mark.parametrize(
    ("topic", "extra", "code"),
    [
        ("a/#", {}, 0x90),
        ("", {}, 0x90),
        ("a\0b", {}, 0x90),
        ("x" * 70_000, {}, 0x90),
        ("ok", {"response_topic": "answers/#"}, 0x90),
        ("ok", {"response_topic": "+"}, 0x90),
        ("a\x01b", {}, 0x90),  # mosquitto ends the connection for these too
        ("ä\x85", {}, 0x90),
        ("a\uffff", {}, 0x90),
        ("ok", {"response_topic": "a\nb"}, 0x90),
        ("ok", {"user_properties": [("k", "a\x7f")]}, 0x83),
        ("ok", {"user_properties": [("k", "\ud800")]}, 0x83),
        ("ok", {"user_properties": [("k", "a\0b")]}, 0x83),
        ("ok", {"content_type": "x" * 70_000}, 0x83),
        ("ok", {"correlation": b"x" * 70_000}, 0x83),
    ],
)
async def test_what_no_broker_takes_does_not_end_the_connection(
    implementation: str, port: int, topic: str, extra: dict[str, Any], code: int
) -> None:
    client = Client(implementation, port)
    await client.session.connect()
    for qos in (0, 1):
        assert await patiently(client.session.publish(topic, b"x", qos=qos, **extra)) == code
    await client.session.subscribe([("still", 1)])
    assert await patiently(client.session.publish("still", b"here")) == 0
    assert (await client.next_acknowledged()).payload == b"here"
    assert client.lost.empty()
    await client.session.close()


async def test_a_byte_order_mark_is_no_poison(implementation: str, port: int) -> None:
    # paho's own parser takes U+FEFF for malformed; the message would come again for ever.
    client = Client(implementation, port)
    await client.session.connect()
    await client.session.subscribe([("t", 1)])
    assert await patiently(client.session.publish("t", b"x", user_properties=[("k", "\ufeff")])) == 0
    assert (await client.next_acknowledged()).user_properties == (("k", "\ufeff"),)
    await client.session.close()


async def test_the_same_client_id_takes_over(implementation: str, port: int) -> None:
    first, second = Client(implementation, port, "twin"), Client(implementation, port, "twin")
    await first.session.connect()
    await second.session.connect()
    assert await patiently(first.lost.get())  # mosquitto 2.0.11 closes without giving the reason
    assert await patiently(second.session.publish("t", b"x")) in (0, 0x10)
    await second.session.close()


async def test_an_invalid_filter_is_refused_before_it_is_sent(implementation: str, port: int) -> None:
    client = Client(implementation, port)
    await client.session.connect()
    for pattern in ("a/#/b", "a+", ""):
        with pytest.raises(Misconfigured):
            await patiently(client.session.subscribe([(pattern, 1)]))
    assert await patiently(client.session.publish("t", b"x")) in (0, 0x10)
    await client.session.close()
