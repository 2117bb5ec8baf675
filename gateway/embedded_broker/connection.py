"""One client's connection: packets in, packets out, and the rules a single client can break.

Made by `broker.EmbeddedBroker` for each accepted socket. Whatever a client sends must never end more than its
own connection; whatever it does not read must never grow without a bound.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

import mqtt5

from edge.core import limits
from gateway.embedded_broker.opening import OPENING_BYTES, refusal_of
from gateway.embedded_broker.session import (
    SUBSCRIPTIONS_MAX,
    ClientSession,
    Delivery,
    Publication,
    Subscription,
)
from gateway.embedded_broker.topics import SHARED_PREFIX
from gateway.mqtt.framing import Framer, Malformed
from gateway.mqtt.names import filter_problem, topic_problem
from gateway.mqtt.wire import Wire

if TYPE_CHECKING:
    from gateway.embedded_broker.broker import EmbeddedBroker

log = logging.getLogger(__name__)

#: The largest packet accepted; announced in CONNACK (MQTT 5 §3.2.2.3.6).
PACKET_BYTES_MAX = limits.FRAME_BYTES_MAX
#: Unread bytes at which a client that does not even read its acknowledgements is let go.
UNREAD_BYTES_MAX = 2 * PACKET_BYTES_MAX
#: From accept to CONNECT.
OPENING_TIMEOUT_S = 10.0

_QOS = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE)
_PONG = mqtt5.PingRespPacket().write()
_Goodbye = mqtt5.DisconnectReasonCode


class Violation(Exception):
    """The client broke the protocol; `code` is the reason code of our DISCONNECT (MQTT 5 §4.13)."""

    def __init__(self, code: mqtt5.DisconnectReasonCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Connection:
    """One accepted socket."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.session: ClientSession | None = None
        self.will: mqtt5.Will | None = None
        self.wire = Wire(self._received, self._ended, self.pump)
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._framer = Framer(PACKET_BYTES_MAX)
        self._opening = b""
        self._window = 65_535
        self._packet_bytes_max: int | None = None
        self._keepalive_s = 0.0
        self._heard_at_s = self._loop.time()
        self._slow_told = False
        self._timer = self._loop.call_later(OPENING_TIMEOUT_S, self._opening_timed_out)

    @property
    def name(self) -> str:
        """The client in a log line."""
        return f"client {self.session.client_id!r}" if self.session is not None else "a client"

    # ---- For the broker ----

    def accept(self, session: ClientSession, packet: mqtt5.ConnectPacket, answer: bytes) -> None:
        """CONNECT was accepted: answer, then send what the session holds."""
        self.session = session
        self.will = packet.will
        self._window = packet.receive_max
        self._packet_bytes_max = packet.max_packet_size
        # One and a half times the keep alive, MQTT 5 §3.1.2.10.
        self._keepalive_s = packet.keep_alive * 1.5
        self._timer.cancel()
        self._write(answer)
        if self._keepalive_s:
            self._timer = self._loop.call_later(self._keepalive_s, self._check_keepalive)
        self.pump()

    def send_unacknowledged(self, delivery: Delivery) -> None:
        """A QoS 0 message: now or never."""
        if self.wire.paused:
            self.broker.counters.dropped_slow += 1
            if not self._slow_told:
                self._slow_told = True
                log.warning("%s reads too slowly; QoS 0 messages to it are dropped and counted", self.name)
            return
        self._send(delivery, None, duplicate=False)

    def pump(self) -> None:
        """Send queued QoS 1 messages as far as the client's window and its reading allow."""
        session = self.session
        while session is not None and not self.closed and not self.wire.paused:
            sending = session.next(self._window, self._loop.time())
            if sending is None:
                return
            if not self._send(sending.delivery, sending.packet_id, duplicate=sending.duplicate):
                session.acknowledged(sending.packet_id)

    def end(self, code: mqtt5.DisconnectReasonCode | None, *, publish_will: bool) -> None:
        """Close this connection, telling the client why if `code` is given."""
        if self.closed:
            return
        self.closed = True
        self._timer.cancel()
        if code is not None and self.session is not None:
            self.wire.write(mqtt5.DisconnectPacket(reason_code=code).write())
        self.wire.close()
        self.broker.left(self, publish_will=publish_will)

    # ---- Bytes ----

    def _received(self, data: bytes) -> None:
        self._heard_at_s = self._loop.time()
        if self.session is None and len(self._opening) < OPENING_BYTES:
            self._opening += data[:OPENING_BYTES]
        try:
            if self._opening[0] != 0x10:  # MQTT 5 §3.1: CONNECT comes first; a browser need not be waited for
                raise Malformed(0x81, "the first packet is not CONNECT")
            for packet in self._framer.feed(data):
                self._take(packet)
                if self.closed:
                    return
        except Malformed as error:
            self._malformed(error)
        except Violation as error:
            log.warning("%s broke the protocol: %s", self.name, error)
            self.end(error.code, publish_will=True)
        else:
            if self.wire.unsent_bytes > UNREAD_BYTES_MAX:
                log.warning("%s does not read what it is sent; its connection is closed", self.name)
                self.wire.abort()
                self.end(None, publish_will=True)

    def _malformed(self, error: Malformed) -> None:
        refusal = refusal_of(self._opening) if self.session is None else None
        if refusal is not None:
            log.warning("Refused: %s.", refusal.text)
            self.wire.write(refusal.answer)
            self.end(None, publish_will=False)
            return
        log.warning("%s sent something that is not MQTT 5: %s", self.name, error)
        self.end(mqtt5.DisconnectReasonCode(error.code), publish_will=True)

    def _ended(self, wire: Wire, error: Exception | None) -> None:
        self.end(None, publish_will=True)

    def _write(self, data: bytes) -> None:
        self.wire.write(data)

    def _send(self, delivery: Delivery, packet_id: int | None, *, duplicate: bool) -> bool:
        """Send a PUBLISH; False where the client's maximum packet size forbids it."""
        publication = delivery.publication
        expiry_s = None
        if publication.expires_at_s is not None:
            # What is left of it when it leaves, MQTT 5 §3.3.2.3.3.
            expiry_s = max(0, math.ceil(publication.expires_at_s - self._loop.time()))
        data = mqtt5.PublishPacket(
            publication.topic,
            publication.payload,
            qos=_QOS[delivery.qos],
            retain=delivery.retain,
            packet_id=packet_id,
            duplicate=duplicate,
            payload_format_indicator=publication.payload_format,
            message_expiry_interval=expiry_s,
            content_type=publication.content_type,
            response_topic=publication.response_topic,
            correlation_data=publication.correlation,
            subscription_ids=list(delivery.subscription_ids),
            user_properties=list(publication.user_properties),
        ).write()
        if self._packet_bytes_max is not None and len(data) > self._packet_bytes_max:
            # MQTT 5 §3.1.2.11.4: not sent, and treated as if it had been.
            self.broker.counters.dropped_large += 1
            log.warning("A message of %d bytes is larger than %s accepts", len(data), self.name)
            return False
        self._write(data)
        return True

    # ---- Packets ----

    def _take(self, packet: mqtt5.Packet) -> None:
        if self.session is None:
            if not isinstance(packet, mqtt5.ConnectPacket):
                raise Violation(_Goodbye.PROTOCOL_ERROR, "the first packet is not CONNECT")
            self.broker.connect(self, packet)
            return
        match packet:
            case mqtt5.PublishPacket():
                self._take_publish(packet)
            case mqtt5.PubAckPacket():
                if self.session.acknowledged(packet.packet_id):
                    self.pump()
            case mqtt5.SubscribePacket():
                self._take_subscribe(self.session, packet)
            case mqtt5.UnsubscribePacket():
                self._take_unsubscribe(self.session, packet)
            case mqtt5.PingReqPacket():
                self._write(_PONG)
            case mqtt5.DisconnectPacket():
                self._take_disconnect(self.session, packet)
            case mqtt5.ConnectPacket():
                raise Violation(_Goodbye.PROTOCOL_ERROR, "a second CONNECT")
            case _:
                raise Violation(_Goodbye.PROTOCOL_ERROR, f"an unexpected {type(packet).__name__}")

    def _take_publish(self, packet: mqtt5.PublishPacket) -> None:
        if packet.qos == mqtt5.QoS.EXACTLY_ONCE:
            raise Violation(_Goodbye.QOS_NOT_SUPPORTED, "a QoS 2 message; QoS 1 is the highest here")
        if packet.topic_alias is not None:
            raise Violation(_Goodbye.TOPIC_ALIAS_INVALID, "a topic alias, none was allowed")
        if packet.packet_id == 0:  # the codec lets it through; MQTT 5 §2.2.1
            raise Violation(_Goodbye.PROTOCOL_ERROR, "the packet id 0")
        if problem := topic_problem(packet.topic):
            raise Violation(_Goodbye.TOPIC_NAME_INVALID, f"a topic that is invalid: {problem}")
        if packet.response_topic is not None and (problem := topic_problem(packet.response_topic)):
            raise Violation(_Goodbye.PROTOCOL_ERROR, f"a response topic that is invalid: {problem}")
        if packet.subscription_ids:
            raise Violation(_Goodbye.PROTOCOL_ERROR, "a subscription identifier in a client's PUBLISH")
        now_s = self._loop.time()
        expiry_s = packet.message_expiry_interval
        publication = Publication(
            topic=packet.topic,
            payload=packet.payload,
            qos=int(packet.qos),
            retain=packet.retain,
            payload_format=packet.payload_format_indicator,
            expires_at_s=None if expiry_s is None else now_s + expiry_s,
            content_type=packet.content_type,
            response_topic=packet.response_topic,
            correlation=packet.correlation_data,
            user_properties=tuple(packet.user_properties),
        )
        assert self.session is not None
        code = self.broker.route(publication, self.session.client_id)
        if packet.packet_id and not self.closed:
            self._write(mqtt5.PubAckPacket(packet.packet_id, reason_code=code).write())

    def _take_subscribe(self, session: ClientSession, packet: mqtt5.SubscribePacket) -> None:
        if not packet.topic_filters or not packet.packet_id:
            raise Violation(_Goodbye.PROTOCOL_ERROR, "a SUBSCRIBE without filters or packet id")
        owed: list[Delivery] = []
        codes = [
            self._subscribe(session, wanted, packet.subscription_id, owed) for wanted in packet.topic_filters
        ]
        self._write(mqtt5.SubAckPacket(packet.packet_id, codes).write())
        for delivery in owed:
            if delivery.qos == 0:
                self.send_unacknowledged(delivery)
        self.pump()

    def _subscribe(
        self,
        session: ClientSession,
        wanted: mqtt5.TopicFilter,
        identifier: int | None,
        owed: list[Delivery],
    ) -> mqtt5.SubAckReasonCode:
        answer = mqtt5.SubAckReasonCode
        pattern = wanted.pattern
        if pattern.startswith(SHARED_PREFIX):
            return answer.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if filter_problem(pattern):
            return answer.TOPIC_FILTER_INVALID
        new = pattern not in session.subscriptions
        if new and len(session.subscriptions) >= SUBSCRIPTIONS_MAX:
            return answer.QUOTA_EXCEEDED
        qos = min(int(wanted.max_qos), 1)
        subscription = Subscription(pattern, qos, wanted.no_local, wanted.retain_as_published, identifier)
        handling = wanted.retain_handling
        send = handling == mqtt5.RetainHandling.SEND_ALWAYS or (
            handling == mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS and new
        )
        identifiers = () if identifier is None else (identifier,)
        kept = [
            Delivery(publication, min(publication.qos, qos), True, identifiers)
            for publication in (self.broker.retained.matching(pattern, self._loop.time()) if send else ())
        ]
        queued = [delivery for delivery in kept if delivery.qos == 1]
        if not session.has_room([delivery.publication for delivery in queued]):
            return answer.QUOTA_EXCEEDED
        self.broker.subscribe(session, subscription)
        for delivery in queued:
            session.queue(delivery)
        owed += kept
        return answer(qos)

    def _take_unsubscribe(self, session: ClientSession, packet: mqtt5.UnsubscribePacket) -> None:
        if not packet.patterns or not packet.packet_id:
            raise Violation(_Goodbye.PROTOCOL_ERROR, "an UNSUBSCRIBE without filters or packet id")
        answer = mqtt5.UnsubAckReasonCode
        codes = [
            answer.SUCCESS if self.broker.unsubscribe(session, pattern) else answer.NO_SUBSCRIPTION_EXISTED
            for pattern in packet.patterns
        ]
        self._write(mqtt5.UnsubAckPacket(packet.packet_id, codes).write())

    def _take_disconnect(self, session: ClientSession, packet: mqtt5.DisconnectPacket) -> None:
        if packet.session_expiry_interval is not None:
            if session.expiry_s == 0 and packet.session_expiry_interval > 0:  # MQTT 5 §3.14.2.2.2
                raise Violation(_Goodbye.PROTOCOL_ERROR, "a session expiry that was 0 at CONNECT")
            session.expiry_s = packet.session_expiry_interval
        # Only a normal disconnection discards the will, MQTT 5 §3.14.4.
        self.end(None, publish_will=packet.reason_code != _Goodbye.NORMAL_DISCONNECTION)

    # ---- Time ----

    def _opening_timed_out(self) -> None:
        log.warning(
            "A client did not send CONNECT within %.0f s; its connection is closed", OPENING_TIMEOUT_S
        )
        self.end(None, publish_will=False)

    def _check_keepalive(self) -> None:
        due_s = self._heard_at_s + self._keepalive_s - self._loop.time()
        if due_s > 0:
            self._timer = self._loop.call_later(due_s, self._check_keepalive)
            return
        log.warning("%s was silent for %.1f s; its connection is closed", self.name, self._keepalive_s)
        self.end(_Goodbye.KEEP_ALIVE_TIMEOUT, publish_will=True)
