"""Sessions against a broker that follows a script: refusals, windows and misbehaviour no real broker shows."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import mqtt5
import pytest
import uvloop

from edge.core.errors import Misconfigured, Unavailable
from gateway.embedded_broker import EmbeddedBroker
from gateway.mqtt import IMPLEMENTATIONS, BrokerAddress, Message, Session, Settings, open_session
from gateway.mqtt.session import OUTGOING_MAX
from tests.process.mqtt_peers import PATIENCE_S, Scripted, patiently, playing


class Peer:
    """A session, what it received and why it was lost."""

    def __init__(self, implementation: str, port: int, **settings: Any) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.session: Session = open_session(
            implementation,
            address=BrokerAddress("127.0.0.1", port, username="me", password="secret"),
            settings=Settings(**{"client_id": "scripted", **settings}),
            on_message=self.received.put_nowait,
            on_lost=self.lost.put_nowait,
        )


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def until_closed(server: Scripted) -> None:
    while True:
        await server.read()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (mqtt5.ConnAckReasonCode.NOT_AUTHORIZED, Misconfigured),
        (mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD, Misconfigured),
        (mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION, Misconfigured),
        (mqtt5.ConnAckReasonCode.SERVER_BUSY, Unavailable),
        (mqtt5.ConnAckReasonCode.QUOTA_EXCEEDED, Unavailable),
    ],
)
async def test_refusals_say_whose_fault(implementation: str, code: Any, error: type[Exception]) -> None:
    async def script(server: Scripted) -> None:
        connect = await server.greet(reason_code=code, reason_str="because")
        assert (connect.username, connect.password) == ("me", b"secret")

    async with playing(script) as port:
        peer = Peer(implementation, port)
        for _ in range(2):  # a refused session may try again
            with pytest.raises(error) as caught:
                await patiently(peer.session.connect())
            assert "because" in str(caught.value)
            assert "secret" not in str(caught.value)
        assert peer.lost.empty()
        await peer.session.close()


async def test_the_connect_packet(implementation: str) -> None:
    connects: list[mqtt5.ConnectPacket] = []

    async def script(server: Scripted) -> None:
        connects.append(await server.greet(session_present=True))
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port, session_expiry_s=3_600, receive_maximum=7, keepalive_s=11)
        assert await patiently(peer.session.connect()) is True
        await peer.session.close()
    (connect,) = connects
    assert (connect.client_id, connect.clean_start, connect.keep_alive) == ("scripted", False, 11)
    assert (connect.session_expiry_interval, connect.receive_max) == (3_600, 7)
    assert connect.max_packet_size == Settings("x").packet_bytes_max
    assert connect.will is None


async def test_a_broker_of_the_old_protocol(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.read()
        server.write(b"\x20\x02\x00\x01")
        await until_closed(server)

    async with playing(script) as port:
        with pytest.raises(Misconfigured, match="does not speak MQTT 5"):
            await patiently(Peer(implementation, port).session.connect())


async def test_nobody_there(implementation: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        peer = Peer(implementation, sock.getsockname()[1])
        with pytest.raises(Unavailable):
            await patiently(peer.session.connect())
        await peer.session.close()


async def test_a_broker_that_says_nothing_and_one_that_hangs_up(implementation: str) -> None:
    silent = True

    async def script(server: Scripted) -> None:
        await server.read()
        if silent:
            await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port, connect_timeout_s=0.2)
        with pytest.raises(Unavailable, match="did not answer"):
            await patiently(peer.session.connect())
        silent = False
        with pytest.raises(Unavailable):
            await patiently(peer.session.connect())
        assert peer.lost.empty()


async def test_connect_can_be_cancelled(implementation: str) -> None:
    reached = asyncio.Event()

    async def script(server: Scripted) -> None:
        await server.read()
        reached.set()
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port)
        connecting = asyncio.ensure_future(peer.session.connect())
        await patiently(reached.wait())
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert peer.lost.empty()


async def test_a_refused_subscription(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet()
        subscribe = await server.read()
        assert [(f.pattern, f.retain_as_published) for f in subscribe.topic_filters] == [
            ("mine", False),
            ("yours", False),
        ]
        codes = [
            mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
            mqtt5.SubAckReasonCode.NOT_AUTHORIZED,
        ]
        server.write(mqtt5.SubAckPacket(subscribe.packet_id, codes))
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        with pytest.raises(Misconfigured, match="yours: not authorized"):
            await patiently(peer.session.subscribe([("mine", 1), ("yours", 1)]))
        assert peer.lost.empty()
        await peer.session.close()


async def test_the_brokers_receive_maximum_is_honoured_in_order(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet(receive_max=3)
        waiting = [await server.read() for _ in range(3)]
        barrier = await server.read()  # sent after all 20 publishes, and yet the fourth packet
        assert isinstance(barrier, mqtt5.SubscribePacket)
        server.write(
            mqtt5.SubAckPacket(barrier.packet_id, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE])
        )
        seen = 0
        while waiting:
            publish = waiting.pop(seen % len(waiting))  # in any order: ids are told apart
            code = mqtt5.PubAckReasonCode.QUOTA_EXCEEDED
            if publish.payload != b"7":
                code = mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
            server.write(mqtt5.PubAckPacket(publish.packet_id, reason_code=code))
            seen += 1
            if seen + len(waiting) < 20:
                following = await server.read()
                assert following.payload == b"%d" % (seen + len(waiting))
                assert following.packet_id not in [earlier.packet_id for earlier in waiting]
                waiting.append(following)
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        futures = [peer.session.publish("t", b"%d" % number) for number in range(20)]
        await patiently(peer.session.subscribe([("t", 1)]))
        codes = await patiently(asyncio.gather(*futures))
        assert codes == [0x97 if number == 7 else 0x10 for number in range(20)]
        await peer.session.close()


async def test_cancelled_publishes_are_not_sent_and_do_no_harm(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet(receive_max=1)
        for expected in (b"0", b"2"):
            packet = await server.read()
            assert packet.payload == expected
            server.write(mqtt5.PubAckPacket(packet.packet_id))
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        first, second, third = [peer.session.publish("t", b"%d" % number) for number in range(3)]
        first.cancel()  # already in flight: its acknowledgement finds nobody
        second.cancel()  # still waiting: must not leave
        assert await patiently(third) == 0
        await peer.session.close()


async def test_what_the_broker_cannot_take_is_not_sent(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet(max_packet_size=200, retain_available=False)
        packet = await server.read()
        assert packet.payload == b"fits"
        server.write(mqtt5.PubAckPacket(packet.packet_id))
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        assert await patiently(peer.session.publish("t", b"x" * 200)) == 0x95
        assert await patiently(peer.session.publish("t", b"x" * 200, qos=0)) == 0x95
        assert await patiently(peer.session.publish("t", b"x", retain=True)) == 0x9A
        assert await patiently(peer.session.publish("t", b"fits")) == 0
        await peer.session.close()


async def test_a_broker_without_qos_1(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet(max_qos=mqtt5.QoS.AT_MOST_ONCE)
        await until_closed(server)

    async with playing(script) as port:
        with pytest.raises(Misconfigured, match="QoS"):
            await patiently(Peer(implementation, port).session.connect())


GOODBYE = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write()
OVERSIZE = b"\x30\x80\x80\x04"  # announces 64 KiB and sends none of it


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GOODBYE, "session taken over"),
        (b"\x00\x00", "not MQTT 5"),
        (b"\x30\xff\xff\xff\xff\x01", "the broker sent"),
        (b"\x32\x06\x00\x01a\x00\x00\x00", "not MQTT 5"),  # packet id 0
        (b"\x30\x07\x00\x01a\x03\x23\x00\x05", "not MQTT 5"),  # topic alias
        (b"\x34\x06\x00\x01a\x00\x01\x00", "QoS 2"),
        (b"\x30\x05\x00\x01a\x05\x26", "not MQTT 5"),  # properties beyond the packet
        (OVERSIZE, "packet"),
        (mqtt5.ConnAckPacket().write(), ""),
    ],
)
async def test_a_broker_that_misbehaves_is_lost(implementation: str, data: bytes, said: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet()
        await server.read()  # the publish below
        server.write(data)
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port, packet_bytes_max=10_000)
        await patiently(peer.session.connect())
        pending = peer.session.publish("t", b"x")
        assert said in await patiently(peer.lost.get())
        with pytest.raises(Unavailable):
            await patiently(pending)
        assert peer.lost.empty()
        assert peer.received.empty()
        await peer.session.close()


async def test_pings_are_sent_and_their_absence_is_noticed(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet()
        for _ in range(2):
            assert isinstance(await server.read(), mqtt5.PingReqPacket)
            server.write(mqtt5.PingRespPacket())
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port, keepalive_s=1)
        await patiently(peer.session.connect())
        assert "ping" in await patiently(peer.lost.get())


async def test_too_much_waiting_fails_at_once(implementation: str) -> None:
    async def script(server: Scripted) -> None:
        await server.greet(receive_max=1)
        await until_closed(server)

    async with playing(script) as port:
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        held = [peer.session.publish("t", b"") for _ in range(OUTGOING_MAX)]
        with pytest.raises(Unavailable, match="Too many"):
            await patiently(peer.session.publish("t", b""))
        assert not any(future.done() for future in held)
        await peer.session.close()
        with pytest.raises(Unavailable):
            await patiently(held[0])


async def test_a_broker_that_reads_nothing_bounds_qos_0(implementation: str) -> None:
    done = asyncio.Event()

    async def script(server: Scripted) -> None:
        await server.greet()
        await done.wait()

    async with playing(script) as port:
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        payload, failed = b"x" * 1_000_000, False
        for _ in range(100):
            future = peer.session.publish("t", payload, qos=0)
            await asyncio.wait([future], timeout=PATIENCE_S)
            failed = failed or future.exception() is not None
        assert failed, "100 MB were taken for a broker that reads nothing"
        done.set()
        await patiently(peer.lost.get())


def test_everything_runs_on_uvloop_with_nodelay(implementation: str) -> None:
    async def round_trip() -> None:
        broker = EmbeddedBroker()
        port = await broker.start()
        peer = Peer(implementation, port)
        await patiently(peer.session.connect())
        transport = peer.session._wire._transport  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await patiently(peer.session.subscribe([("t", 1)]))
        payload = b"x" * 1_000_000
        assert await patiently(peer.session.publish("t", payload)) == 0
        message = await patiently(peer.received.get())
        assert message.payload == payload
        peer.session.acknowledge(message)
        await peer.session.close()
        await broker.stop()

    uvloop.run(round_trip())
