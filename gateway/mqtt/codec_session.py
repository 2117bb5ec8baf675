"""A Session on the sans-I/O `mqtt5` codec: the same promises as paho for a fraction of the CPU.

Made by `gateway.mqtt.open_session`. Must never keep publishes across connections: who resends is the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import mqtt5

from gateway.mqtt import reasons
from gateway.mqtt.base import BaseSession, ConnAck, Unsendable
from gateway.mqtt.framing import Framer, Malformed
from gateway.mqtt.outgoing import Outgoing
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

_RETAINED = {
    ALWAYS: mqtt5.RetainHandling.SEND_ALWAYS,
    ONCE: mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS,
    NEVER: mqtt5.RetainHandling.SEND_NEVER,
}
_QOS = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE)
_PING = mqtt5.PingReqPacket().write()
_GOODBYE = mqtt5.DisconnectPacket().write()


class CodecSession(BaseSession):
    """See `gateway.mqtt.session.Session`."""

    def __init__(
        self, address: BrokerAddress, settings: Settings, *, on_message: OnMessage, on_lost: OnLost
    ) -> None:
        super().__init__(address, settings, on_message=on_message, on_lost=on_lost)
        self._framer = Framer(settings.packet_bytes_max)
        self._packet_id = 0
        self._heard = self._sent = True
        self._pinged = False

    # ---- Into packets ----

    def _begin(self) -> None:
        settings, address = self.settings, self.address
        self._framer = Framer(settings.packet_bytes_max)
        self._heard, self._sent, self._pinged = True, True, False
        will = None
        if settings.will is not None:
            will = mqtt5.Will(
                settings.will.topic,
                payload=settings.will.payload,
                qos=_QOS[settings.will.qos],
                retain=settings.will.retain,
            )
        self._write(
            mqtt5.ConnectPacket(
                settings.client_id,
                username=address.username,
                password=None if address.password is None else address.password.encode(),
                clean_start=settings.clean_start,
                will=will,
                keep_alive=settings.keepalive_s,
                session_expiry_interval=settings.session_expiry_s,
                receive_max=settings.receive_maximum,
                max_packet_size=settings.packet_bytes_max,
            ).write()
        )

    def _send_publish(self, item: Outgoing) -> int:
        packet_id = self._free_packet_id() if item.qos else None
        assert self._granted is not None
        try:
            packet = mqtt5.PublishPacket(
                item.topic,
                item.payload,
                qos=_QOS[item.qos],
                retain=item.retain,
                packet_id=packet_id,
                message_expiry_interval=item.message_expiry_s,
                content_type=item.content_type,
                response_topic=item.response_topic,
                correlation_data=item.correlation,
                user_properties=list(item.user_properties),
            ).write()
        except (ValueError, OverflowError):
            raise Unsendable(IMPLEMENTATION_SPECIFIC_ERROR) from None
        if self._granted.packet_bytes_max is not None and len(packet) > self._granted.packet_bytes_max:
            raise Unsendable(PACKET_TOO_LARGE)  # MQTT 5 §3.2.2.3.6
        self._write(packet)
        return packet_id or 0

    def _send_subscribe(self, filters: Sequence[tuple[str, int]], *, retained: str) -> int:
        packet_id = self._free_packet_id()
        wanted = [
            # The codec's default is retain_as_published, which would hide what the broker had kept.
            mqtt5.TopicFilter(
                pattern, max_qos=_QOS[qos], retain_as_published=False, retain_handling=_RETAINED[retained]
            )
            for pattern, qos in filters
        ]
        self._write(mqtt5.SubscribePacket(packet_id, wanted).write())
        return packet_id

    def _send_unsubscribe(self, filters: Sequence[str]) -> int:
        packet_id = self._free_packet_id()
        self._write(mqtt5.UnsubscribePacket(packet_id, list(filters)).write())
        return packet_id

    def _send_puback(self, packet_id: int) -> None:
        # PUBACK of success without properties, four bytes (MQTT 5 §3.4.2.1); 3 times faster than the codec.
        self._write(b"\x40\x02" + packet_id.to_bytes(2, "big"))

    def _send_goodbye(self) -> None:
        self._write(_GOODBYE)

    def _tick(self) -> None:
        if self._pinged and not self._heard:
            self._lose("the broker did not answer a ping")
            return
        self._pinged = not (self._heard and self._sent)
        if self._pinged:
            self._write(_PING)
        self._heard = self._sent = False

    def _deaf_tick(self) -> None:
        self._heard, self._pinged = True, False
        self._write(_PING)

    def _forget(self) -> None:
        self._framer = Framer(self.settings.packet_bytes_max)

    def _write(self, data: bytes) -> None:
        assert self._wire is not None
        self._sent = True
        self._wire.write(data)

    def _free_packet_id(self) -> int:
        # In flight are at most 65,535 publishes (Receive Maximum) of OUTGOING_MAX, so one is free.
        while True:
            self._packet_id = self._packet_id % 65_535 + 1
            if not self._queue.uses(self._packet_id) and self._packet_id not in self._subscribing:
                return self._packet_id

    # ---- From packets ----

    def _feed(self, data: bytes) -> None:
        self._heard = True
        connection = self._connection
        try:
            packets = self._framer.feed(data)
        except Malformed as error:
            self._violated(error.code, str(error))
            return
        for packet in packets:
            self._take(packet)
            if self._connection != connection:
                return  # lost or closed by what the packet caused; the rest belongs to nobody

    def _take(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PublishPacket():
                self._take_publish(packet)
            case mqtt5.PubAckPacket():
                self._on_puback(packet.packet_id, int(packet.reason_code))
            case mqtt5.PingRespPacket():
                pass  # that something was heard is all it says
            case mqtt5.SubAckPacket():
                self._on_suback(packet.packet_id, [int(code) for code in packet.reason_codes])
            case mqtt5.UnsubAckPacket():
                self._on_suback(packet.packet_id, [int(code) for code in packet.reason_codes])
            case mqtt5.ConnAckPacket():
                self._take_connack(packet)
            case mqtt5.DisconnectPacket():
                said = f", {packet.reason_str!r}" if packet.reason_str else ""
                self._lose(f"the broker said {reasons.name(int(packet.reason_code))}{said}")
            case _:
                self._violated(0x82, f"an unexpected {type(packet).__name__}")

    def _take_publish(self, packet: mqtt5.PublishPacket) -> None:
        qos, packet_id = int(packet.qos), packet.packet_id
        if qos == 2 or self._granted is None:  # QoS 2 is never granted: subscriptions ask for 1 at most
            self._violated(0x82, "a QoS 2 message, or one before the CONNACK")
            return
        if packet.topic_alias is not None or (qos and not packet_id):
            # No alias was allowed (§3.1.2.11.5); the codec lets a packet id of 0 through (§2.2.1).
            self._violated(0x81, "a topic alias or the packet id 0")
            return
        self._on_publish(
            Message(
                topic=packet.topic,
                payload=packet.payload,
                qos=qos,
                retain=packet.retain,
                response_topic=packet.response_topic,
                correlation=packet.correlation_data,
                content_type=packet.content_type,
                user_properties=tuple(packet.user_properties),
                ack_token=self._token(packet_id) if packet_id else None,
                duplicate=packet.duplicate,
                packet_id=packet_id or 0,
            )
        )

    def _take_connack(self, packet: mqtt5.ConnAckPacket) -> None:
        keepalive_s = packet.server_keep_alive
        self._on_connack(
            ConnAck(
                session_present=packet.session_present,
                code=int(packet.reason_code),
                said=packet.reason_str,
                receive_maximum=packet.receive_max,
                packet_bytes_max=packet.max_packet_size,
                qos_max=int(packet.max_qos),
                retain_available=packet.retain_available,
                keepalive_s=self.settings.keepalive_s if keepalive_s is None else keepalive_s,
            )
        )

    def _violated(self, code: int, what: str) -> None:
        self._lose(f"the broker sent something that is not MQTT 5: {what} ({reasons.name(code)})")
