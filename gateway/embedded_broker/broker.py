"""The embedded broker: who is connected, who subscribed to what, where a message goes, what outlives whom.

Embedded by `edge up` and tests, run alone by `python -m gateway.embedded_broker`. For laptops and demos: it
listens on loopback only, forgets everything with its process, and must never drop a QoS 1 message silently:
what cannot be queued for every subscriber is refused to its publisher with *quota exceeded*.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
from dataclasses import dataclass

import mqtt5

from edge.core import limits
from edge.core.errors import Misconfigured, Unavailable
from gateway.embedded_broker.connection import PACKET_BYTES_MAX, Connection
from gateway.embedded_broker.retained import RetainedMessages
from gateway.embedded_broker.session import (
    NEVER_EXPIRES_S,
    QUEUED_MAX,
    ClientSession,
    Delivery,
    Publication,
    Subscription,
    delivery_for,
)
from gateway.embedded_broker.topics import FilterTree
from gateway.mqtt.names import topic_problem
from gateway.mqtt.wire import Wire

log = logging.getLogger(__name__)

#: Client ids with a session; above it CONNECT is refused.
SESSIONS_MAX = 1_024
#: Sockets accepted and not yet closed.
CONNECTIONS_MAX = 2_048

_Refused = mqtt5.ConnAckReasonCode


@dataclass(slots=True)
class Counters:
    """What the broker dropped or refused since it started."""

    dropped_slow: int = 0
    dropped_large: int = 0
    dropped_wills: int = 0
    refused_full: int = 0


class EmbeddedBroker:
    """See the module. All methods belong to one event loop."""

    def __init__(self, *, queued_max: int = QUEUED_MAX) -> None:
        self.counters = Counters()
        self.retained = RetainedMessages()
        self._queued_max = queued_max
        self._tree: FilterTree[Subscription] = FilterTree()
        self._sessions: dict[str, ClientSession] = {}
        self._connected: dict[str, Connection] = {}
        self._connections: set[Connection] = set()
        self._endings: dict[str, asyncio.TimerHandle] = {}
        self._wills: dict[str, tuple[asyncio.TimerHandle, mqtt5.Will]] = {}
        self._server: asyncio.Server | None = None

    # ---- Life ----

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port, chosen by the system where `port` is 0. Raises Misconfigured or Unavailable."""
        address = "127.0.0.1" if host == "localhost" else host
        try:
            loopback = ipaddress.ip_address(address).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise Misconfigured(
                f"The embedded broker does not listen on {host}: it has no access control.",
                mend="Use 127.0.0.1, or mosquitto where other machines must reach the broker.",
            )
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it on Linux; without it QoS 1 costs 44 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((address, port))
            self._server = await asyncio.get_running_loop().create_server(self._accept, sock=sock)
        except OSError as error:
            sock.close()
            raise Unavailable(
                f"The embedded broker cannot listen on {address}:{port}: {error}.",
                mend="Choose another port, or 0 to have one chosen.",
            ) from error
        return int(sock.getsockname()[1])

    async def stop(self) -> None:
        """Say goodbye to everybody and close; sessions and retained messages are gone."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.end(mqtt5.DisconnectReasonCode.SERVER_SHUTTING_DOWN, publish_will=False)
        for timer in [*self._endings.values(), *(timer for timer, _ in self._wills.values())]:
            timer.cancel()
        if connections:
            _, late = await asyncio.wait([connection.wire.ended for connection in connections], timeout=2)
            if late:
                for connection in connections:
                    connection.wire.abort()

    def _accept(self) -> Wire:
        connection = Connection(self)
        self._connections.add(connection)
        if len(self._connections) > CONNECTIONS_MAX:
            log.warning("More than %d connections; one is closed", CONNECTIONS_MAX)
            asyncio.get_running_loop().call_soon(lambda: connection.end(None, publish_will=False))
        return connection.wire

    # ---- Sessions ----

    def connect(self, connection: Connection, packet: mqtt5.ConnectPacket) -> None:
        """CONNECT as first packet: take over, make or resume the session, and answer."""
        code = self._connect_refusal(packet)
        if code != _Refused.SUCCESS:
            log.warning("Refused client %r: %s", packet.client_id, code.name.lower().replace("_", " "))
            connection.wire.write(mqtt5.ConnAckPacket(reason_code=code).write())
            connection.end(None, publish_will=False)
            return
        assigned = "" if packet.client_id else f"auto-{secrets.token_hex(8)}"
        client_id = packet.client_id or assigned
        old = self._connected.get(client_id)
        if old is not None:
            log.info("client %r connected again; its earlier connection is closed", client_id)
            old.end(mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER, publish_will=True)
        if packet.clean_start:
            self._end_session(client_id)
        session = self._sessions.get(client_id)
        present = session is not None
        if session is None:
            session = self._sessions[client_id] = ClientSession(client_id, queued_max=self._queued_max)
        self._keep_session(client_id)
        session.expiry_s = packet.session_expiry_interval
        self._connected[client_id] = connection
        answer = mqtt5.ConnAckPacket(
            session_present=present,
            assigned_client_id=assigned or None,
            receive_max=limits.RECEIVE_MAX,
            max_qos=mqtt5.QoS.AT_LEAST_ONCE,
            max_packet_size=PACKET_BYTES_MAX,
            shared_subscription_available=False,
        )
        connection.accept(session, packet, answer.write())

    def _connect_refusal(self, packet: mqtt5.ConnectPacket) -> mqtt5.ConnAckReasonCode:
        if packet.authentication_method is not None:
            return _Refused.BAD_AUTHENTICATION_METHOD
        if packet.will is not None:
            if packet.will.qos == mqtt5.QoS.EXACTLY_ONCE:  # MQTT 5 §3.2.2.3.4
                return _Refused.QUALITY_NOT_SUPPORTED
            if topic_problem(packet.will.topic):
                return _Refused.TOPIC_NAME_INVALID
        if "\0" in packet.client_id:
            return _Refused.CLIENT_ID_NOT_VALID
        if packet.client_id not in self._sessions and len(self._sessions) >= SESSIONS_MAX:
            return _Refused.QUOTA_EXCEEDED
        if packet.receive_max == 0 or packet.max_packet_size == 0:  # MQTT 5 §3.1.2.11.3
            return _Refused.PROTOCOL_ERROR
        return _Refused.SUCCESS

    def left(self, connection: Connection, *, publish_will: bool) -> None:
        """A connection has ended: its will, and the time its session has left."""
        self._connections.discard(connection)
        session = connection.session
        if session is None or self._connected.get(session.client_id) is not connection:
            return
        client_id = session.client_id
        del self._connected[client_id]
        session.connection_lost()
        loop = asyncio.get_running_loop()
        if connection.will is not None and publish_will:
            will, delay_s = connection.will, min(connection.will.will_delay_interval, session.expiry_s)
            if delay_s:
                self._wills[client_id] = (loop.call_later(delay_s, self._will_due, client_id), will)
            else:
                self._publish_will(client_id, will)
        if session.expiry_s == 0:
            self._end_session(client_id)
        elif session.expiry_s < NEVER_EXPIRES_S:
            self._endings[client_id] = loop.call_later(session.expiry_s, self._end_session, client_id)

    def _keep_session(self, client_id: str) -> None:
        """Its client is back: neither the session's end nor the delayed will is due (MQTT 5 §3.1.3.2.2)."""
        ending = self._endings.pop(client_id, None)
        if ending is not None:
            ending.cancel()
        will = self._wills.pop(client_id, None)
        if will is not None:
            will[0].cancel()

    def _end_session(self, client_id: str) -> None:
        session = self._sessions.pop(client_id, None)
        ending = self._endings.pop(client_id, None)
        if ending is not None:
            ending.cancel()
        if session is not None:
            for pattern in session.subscriptions:
                self._tree.remove(pattern, client_id)
        if client_id in self._wills:  # a will is due when its session ends, MQTT 5 §3.1.2.5
            self._will_due(client_id)

    def _will_due(self, client_id: str) -> None:
        timer, will = self._wills.pop(client_id)
        timer.cancel()
        self._publish_will(client_id, will)

    def _publish_will(self, client_id: str, will: mqtt5.Will) -> None:
        expiry_s = will.message_expiry_interval
        publication = Publication(
            topic=will.topic,
            payload=will.payload or b"",
            qos=int(will.qos),
            retain=will.retain,
            payload_format=will.payload_format_indicator,
            expires_at_s=None if expiry_s is None else asyncio.get_running_loop().time() + expiry_s,
            content_type=will.content_type,
            response_topic=will.response_topic,
            correlation=will.correlation_data,
            user_properties=tuple(will.user_properties),
        )
        if self.route(publication, client_id) == mqtt5.PubAckReasonCode.QUOTA_EXCEEDED:
            self.counters.dropped_wills += 1
            log.warning("The will of client %r is lost: a subscriber's queue is full", client_id)

    # ---- Messages ----

    def subscribe(self, session: ClientSession, subscription: Subscription) -> None:
        """Add a subscription, or replace the one with the same filter (MQTT 5 §3.8.4)."""
        session.subscriptions[subscription.pattern] = subscription
        self._tree.put(subscription.pattern, session.client_id, subscription)

    def unsubscribe(self, session: ClientSession, pattern: str) -> bool:
        """Remove a subscription; False where there was none. Messages already queued still leave."""
        if session.subscriptions.pop(pattern, None) is None:
            return False
        self._tree.remove(pattern, session.client_id)
        return True

    def route(self, publication: Publication, publisher: str) -> mqtt5.PubAckReasonCode:
        """Give a message to all subscribers or, where one of them has no room for QoS 1, to none."""
        found: dict[str, list[Subscription]] = {}
        for client_id, subscription in self._tree.match(publication.topic):
            if not (subscription.no_local and client_id == publisher):
                found.setdefault(client_id, []).append(subscription)
        deliveries = [(client_id, delivery_for(publication, those)) for client_id, those in found.items()]
        if not self._has_room(publication, deliveries):
            self.counters.refused_full += 1
            if self.counters.refused_full == 1:
                log.warning(
                    "A queue is full: a message to %r is refused; later ones are counted", publication.topic
                )
            return mqtt5.PubAckReasonCode.QUOTA_EXCEEDED
        if publication.retain:
            self.retained.keep(publication)
        for client_id, delivery in deliveries:
            self._hand_over(client_id, delivery)
        return mqtt5.PubAckReasonCode.SUCCESS if found else mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS

    def _has_room(self, publication: Publication, deliveries: list[tuple[str, Delivery]]) -> bool:
        if publication.retain and not self.retained.has_room(publication):
            return False
        return all(
            self._sessions[client_id].has_room([publication])
            for client_id, delivery in deliveries
            if delivery.qos == 1
        )

    def _hand_over(self, client_id: str, delivery: Delivery) -> None:
        connection = self._connected.get(client_id)
        if delivery.qos == 1:
            self._sessions[client_id].queue(delivery)
            if connection is not None:
                connection.pump()
        elif connection is not None:
            connection.send_unacknowledged(delivery)
