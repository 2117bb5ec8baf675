"""A Session on paho-mqtt: the reference implementation, driven by the event loop without threads.

Made by `gateway.mqtt.open_session`. Must never let paho open a socket, sleep, start a thread or keep
publishes across connections: paho resends by itself, and who resends here is the caller.

paho is given a `_Pipe` for its socket, which stands on an asyncio transport. So TLS and dialling do not
block, paho's reads of one byte are no system calls, and uvloop needs nothing special. Every connection has
a fresh paho client, which is how nothing old can be sent again.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from paho.mqtt import MQTTException
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.mqtt import reasons
from gateway.mqtt.base import BaseSession, ConnAck, Unsendable
from gateway.mqtt.outgoing import Outgoing
from gateway.mqtt.publish_wire import PackedProperties, Received, pack_properties, unpack_publish
from gateway.mqtt.session import (
    ALWAYS,
    IMPLEMENTATION_SPECIFIC_ERROR,
    NEVER,
    ONCE,
    PACKET_TOO_LARGE,
    BrokerAddress,
    Message,
    OnLost,
    OnMessage,
    Settings,
)

#: Fixed header and packet id of a PUBLISH at their largest.
_HEADER_BYTES = 9


class _Pipe:
    """What paho takes for its socket: reads what was fed, hands writes on, never blocks."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._data = b""
        self._at = 0
        self.open = True

    def feed(self, data: bytes) -> None:
        assert self._at == len(self._data), "paho left bytes unread"
        self._data, self._at = data, 0

    @property
    def unread(self) -> bool:
        return self._at < len(self._data)

    def recv(self, size: int) -> bytes:
        if self._at >= len(self._data):
            raise BlockingIOError
        chunk = self._data[self._at : self._at + size]
        self._at += len(chunk)
        return chunk

    def send(self, data: bytes | bytearray) -> int:
        self._write(bytes(data))
        return len(data)

    def close(self) -> None:
        self.open = False

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """Nothing here blocks."""


class _Client(paho.Client):
    """paho's client on a pipe; PUBLISH is read by us (`publish_wire` says why)."""

    def __init__(self, client_id: str, pipe: _Pipe) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._pipe = pipe
        #: Received and not yet handed on: our callbacks do not run inside paho, under its locks.
        self.arrived: list[Received] = []
        # Our window is the broker's Receive Maximum; paho's would scan all of it at every PUBACK.
        self.max_inflight_messages_set(0)

    def _create_socket(self) -> Any:
        return self._pipe

    def _handle_publish(self) -> MQTTErrorCode:
        packet = self._in_packet
        try:
            self.arrived.append(unpack_publish(packet["command"], packet["packet"]))
        except ValueError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def ping(self) -> None:
        """Send PINGREQ without expecting the answer in time."""
        self._send_pingreq()
        self._ping_t = 0.0
        self._last_bytes_received = self._last_msg_out = time.monotonic()

    @property
    def partial_bytes(self) -> int:
        """The size that the packet now being received has announced."""
        return int(self._in_packet["remaining_length"])


_RETAINED = {
    ALWAYS: SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE,
    ONCE: SubscribeOptions.RETAIN_SEND_IF_NEW_SUB,
    NEVER: SubscribeOptions.RETAIN_DO_NOT_SEND,
}


class PahoSession(BaseSession):
    """See `gateway.mqtt.session.Session`."""

    def __init__(
        self, address: BrokerAddress, settings: Settings, *, on_message: OnMessage, on_lost: OnLost
    ) -> None:
        super().__init__(address, settings, on_message=on_message, on_lost=on_lost)
        self._client: _Client | None = None
        self._pipe: _Pipe | None = None
        self._reading = False
        self._write_wanted = False
        self._farewell = ""

    # ---- Into packets ----

    def _begin(self) -> None:
        assert self._wire is not None
        settings = self.settings
        self._pipe = _Pipe(self._wire.write)
        self._client = client = _Client(settings.client_id, self._pipe)
        self._write_wanted, self._farewell = False, ""
        client.on_connect = self._connected
        client.on_publish = self._published
        client.on_subscribe = client.on_unsubscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_socket_register_write = self._want_write
        if self.address.username is not None:
            client.username_pw_set(self.address.username, self.address.password)
        if settings.will is not None:
            will = settings.will
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = settings.session_expiry_s
        properties.ReceiveMaximum = settings.receive_maximum
        properties.MaximumPacketSize = settings.packet_bytes_max
        client.connect(
            self.address.host,
            self.address.port,
            keepalive=settings.keepalive_s,
            clean_start=settings.clean_start,
            properties=properties,
        )

    def _send_publish(self, item: Outgoing) -> int:
        client = self._require()
        assert self._granted is not None
        try:
            packed = pack_properties(
                item.content_type,
                item.response_topic,
                item.correlation,
                item.user_properties,
                item.message_expiry_s,
            )
        except (ValueError, struct.error):
            raise Unsendable(IMPLEMENTATION_SPECIFIC_ERROR) from None
        size = _HEADER_BYTES + len(item.topic.encode()) + len(packed) + len(item.payload)
        if self._granted.packet_bytes_max is not None and size > self._granted.packet_bytes_max:
            raise Unsendable(PACKET_TOO_LARGE)  # MQTT 5 §3.2.2.3.6
        properties = cast(Properties, PackedProperties(packed))
        info = client.publish(item.topic, item.payload, item.qos, item.retain, properties)
        # A packet id that is still in flight is refused by paho, which has already moved on to the next.
        while info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            info = client.publish(item.topic, item.payload, item.qos, item.retain, properties)
        return info.mid if item.qos else 0

    def _send_subscribe(self, filters: Sequence[tuple[str, int]], *, retained: str) -> int:
        handling = _RETAINED[retained]
        wanted = [(pattern, SubscribeOptions(qos=qos, retainHandling=handling)) for pattern, qos in filters]
        _, packet_id = self._require().subscribe(wanted)
        assert packet_id is not None
        return packet_id

    def _send_unsubscribe(self, filters: Sequence[str]) -> int:
        _, packet_id = self._require().unsubscribe(list(filters))
        assert packet_id is not None
        return packet_id

    def _send_puback(self, packet_id: int) -> None:
        self._require().ack(packet_id, 1)

    def _send_goodbye(self) -> None:
        client = self._require()
        client.disconnect()
        client.loop_write()

    def _tick(self) -> None:
        self._require().loop_misc()
        self._check_open("the broker did not answer a ping")

    def _deaf_tick(self) -> None:
        self._require().ping()

    def _forget(self) -> None:
        client, self._client, self._pipe = self._client, None, None
        if client is not None:
            client.on_connect = client.on_publish = client.on_disconnect = None
            client.on_subscribe = client.on_unsubscribe = None
            client.on_socket_register_write = None

    # ---- From packets ----

    def _feed(self, data: bytes) -> None:
        client, pipe = self._client, self._pipe
        assert client is not None
        assert pipe is not None
        pipe.feed(data)
        while pipe.open and pipe.unread and client is self._client:
            self._reading = True
            try:
                client.loop_read()
            except (MQTTException, ValueError, KeyError, IndexError, struct.error) as error:
                # paho answers some malformed packets with whatever its parser stumbled over.
                self._lose(f"the broker sent something that is not MQTT 5 ({type(error).__name__})")
                return
            finally:
                self._reading = False
            arrived, client.arrived = client.arrived, []
            for received in arrived:
                if client is self._client:
                    self._publish_received(received)
        if client is self._client:
            if client.partial_bytes > self.settings.packet_bytes_max:
                self._lose("the broker sent a packet larger than the maximum")
            else:
                self._check_open("the broker sent something that is not MQTT 5")

    def _check_open(self, reason: str) -> None:
        if self._pipe is not None and not self._pipe.open:
            self._lose(self._farewell or reason)

    def _publish_received(self, received: Received) -> None:
        if received.qos == 2:  # never granted: subscriptions ask for 1 at most
            self._lose("the broker sent a QoS 2 message")
            return
        self._on_publish(
            Message(
                topic=received.topic,
                payload=received.payload,
                qos=received.qos,
                retain=received.retain,
                response_topic=received.response_topic,
                correlation=received.correlation,
                content_type=received.content_type,
                user_properties=received.user_properties,
                ack_token=self._token(received.packet_id) if received.qos else None,
                duplicate=received.duplicate,
                packet_id=received.packet_id if received.qos else 0,
            )
        )

    def _connected(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        def granted(name: str, default: Any) -> Any:
            return getattr(properties, name, default)

        self._on_connack(
            ConnAck(
                session_present=flags.session_present,
                code=reason.value,
                said=granted("ReasonString", None),
                receive_maximum=granted("ReceiveMaximum", 65_535),
                packet_bytes_max=granted("MaximumPacketSize", None),
                qos_max=granted("MaximumQoS", 2),
                retain_available=bool(granted("RetainAvailable", 1)),
                keepalive_s=granted("ServerKeepAlive", self.settings.keepalive_s),
            )
        )

    def _published(
        self,
        client: paho.Client,
        userdata: Any,
        packet_id: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        # paho calls this for QoS 0 too, while writing, with an id that a QoS 1 in flight may share.
        if self._reading:
            self._on_puback(packet_id, reason.value)

    def _subscribed(
        self,
        client: paho.Client,
        userdata: Any,
        packet_id: int,
        codes: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._on_suback(packet_id, [code.value for code in codes])

    def _disconnected(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = f"the broker said {reasons.name(reason.value)}"

    # ---- Inside ----

    def _require(self) -> _Client:
        assert self._client is not None, "not connected"
        return self._client

    def _want_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if not self._write_wanted:
            self._write_wanted = True
            asyncio.get_running_loop().call_soon(self._write_now, client)

    def _write_now(self, client: paho.Client) -> None:
        self._write_wanted = False
        if client is self._client:
            client.loop_write()
