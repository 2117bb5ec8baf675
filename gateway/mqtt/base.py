"""What both sessions promise, written once: connecting, the send window, acknowledgement, loss, closing.

Extended by `paho_session` and `codec_session`, which turn the `_send_*` calls into packets and packets into
the `_on_*` calls. Must never import an MQTT library, retry by itself, or send a publish twice.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from edge.core.errors import EdgeError, Misconfigured, Unavailable
from edge.core.records import record
from gateway.mqtt import reasons
from gateway.mqtt.names import filter_problem, text_problem, topic_problem
from gateway.mqtt.outgoing import Outgoing, OutgoingQueue, fail, settle
from gateway.mqtt.session import (
    ALWAYS,
    IMPLEMENTATION_SPECIFIC_ERROR,
    REFUSED,
    RETAIN_NOT_SUPPORTED,
    SUCCESS,
    TOPIC_NAME_INVALID,
    UNSENT_BYTES_MAX,
    BrokerAddress,
    Message,
    OnLost,
    OnMessage,
    Settings,
)
from gateway.mqtt.wire import Wire, dial, tls_misconfigured, tls_refusal

#: A CONNACK in the form of MQTT 3.1.1 with return code 1: the broker is too old to answer in ours.
_OLD_REFUSAL = b"\x20\x02\x00\x01"


class Unsendable(Exception):
    """A publish that must not be sent; `code` is what the broker would have answered."""

    def __init__(self, code: int) -> None:
        super().__init__(reasons.name(code))
        self.code = code


@record
class ConnAck:
    """What the broker said to CONNECT (MQTT 5 §3.2), absent properties replaced by their defaults."""

    session_present: bool
    code: int
    said: str | None
    receive_maximum: int
    packet_bytes_max: int | None
    qos_max: int
    retain_available: bool
    keepalive_s: int


@record
class AckToken:
    """Which PUBACK a message needs; void once the connection it came by is gone."""

    connection: int
    packet_id: int


class BaseSession(ABC):
    """The part of a Session that does not depend on the library."""

    def __init__(
        self, address: BrokerAddress, settings: Settings, *, on_message: OnMessage, on_lost: OnLost
    ) -> None:
        self.address = address
        self.settings = settings
        self._on_message = on_message
        self._on_lost = on_lost
        self._wire: Wire | None = None
        self._connection = 0
        self._connack: asyncio.Future[bool] | None = None
        self._granted: ConnAck | None = None
        self._queue = OutgoingQueue()
        self._subscribing: dict[int, asyncio.Future[list[int]]] = {}
        self._unacknowledged = 0
        self._overrun: deque[Message] = deque()
        self._timer: asyncio.TimerHandle | None = None

    # ---- Session ----

    async def connect(self) -> bool:
        """See `Session.connect`."""
        assert self._wire is None, "connect() on a session that is connected"
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                wire = await dial(self.address, lambda: Wire(self._received, self._ended, self._pump))
                self._wire = wire
                self._connack = asyncio.get_running_loop().create_future()
                self._begin()
                return await self._connack
        except TimeoutError as error:
            reason = (
                f"The broker at {self.address} did not answer within {self.settings.connect_timeout_s} s."
            )
            raise self._drop(Unavailable(reason)) from error
        except BaseException:
            self._drop(Unavailable("The connection was given up."))
            raise
        finally:
            self._connack = None

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, retained: str = ALWAYS) -> None:
        """See `Session.subscribe`."""
        for pattern, qos in filters:
            assert qos in (0, 1), qos
            if problem := filter_problem(pattern):
                raise Misconfigured(f"The topic filter {pattern!r} is invalid: {problem}.")
        if self._wire is None or self._granted is None:
            raise self._away()
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        packet_id = self._send_subscribe(filters, retained=retained)
        self._subscribing[packet_id] = future
        try:
            codes = await future
        finally:
            self._subscribing.pop(packet_id, None)
        refused = [(f[0], code) for f, code in zip(filters, codes, strict=True) if code >= REFUSED]
        if refused:
            raise reasons.subscribe_refused(str(self.address), refused)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """See `Session.unsubscribe`."""
        if self._wire is None or self._granted is None:
            raise self._away()
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        packet_id = self._send_unsubscribe(filters)
        self._subscribing[packet_id] = future
        try:
            await future
        finally:
            self._subscribing.pop(packet_id, None)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        message_expiry_s: int | None = None,
    ) -> asyncio.Future[int]:
        """See `Session.publish`."""
        assert qos in (0, 1), qos
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        item = Outgoing(
            topic,
            payload,
            qos,
            retain,
            content_type,
            response_topic,
            correlation,
            tuple(user_properties),
            message_expiry_s,
            future,
        )
        if self._wire is None or self._granted is None:
            fail(future, self._away())
        elif code := self._refusal(item):
            settle(future, code)
        elif qos == 0:
            self._publish_unacknowledged(item)
        elif self._queue.put(item):
            self._pump()
        return future

    def acknowledge(self, message: Message) -> None:
        """See `Session.acknowledge`."""
        token = message.ack_token
        if isinstance(token, AckToken) and token.connection == self._connection and self._wire is not None:
            self._unacknowledged -= 1
            self._send_puback(token.packet_id)
            if self._overrun:
                asyncio.get_running_loop().call_soon(self._deliver_overrun)

    async def close(self) -> None:
        """See `Session.close`."""
        wire = self._wire
        if wire is None:
            return
        if self._granted is not None:
            self._send_goodbye()
        self._drop(Unavailable("The session was closed."), politely=True)
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                await asyncio.shield(wire.ended)
        except TimeoutError:
            wire.abort()  # the broker takes nothing any more; its last bytes are not worth waiting for

    # ---- For the implementation: from packets ----

    def _on_connack(self, ack: ConnAck) -> None:
        if self._connack is None or self._connack.done() or self._granted is not None:
            self._lose("the broker sent a second CONNACK")
            return
        if ack.code >= REFUSED:
            self._drop(reasons.connect_refused(str(self.address), ack.code, ack.said))
            return
        if ack.qos_max < 1:
            self._drop(reasons.connect_refused(str(self.address), 0x9B))
            return
        self._granted = ack
        self._queue.window = ack.receive_maximum
        self._connack.set_result(ack.session_present)
        self._schedule_tick()

    def _on_puback(self, packet_id: int, code: int) -> None:
        self._queue.acknowledged(packet_id, code)
        self._pump()

    def _on_suback(self, packet_id: int, codes: list[int]) -> None:
        future = self._subscribing.get(packet_id)
        if future is not None and not future.done():
            future.set_result(codes)

    def _on_publish(self, message: Message) -> None:
        # More than our Receive Maximum is a protocol error of the broker's (MQTT 5 §3.3.4), but mosquitto 2.0.11
        # (Debian 12) does it whenever it works off a backlog; ending the connection would never get past it.
        # So the rest waits here, bounded by one read, and TCP holds the broker back until there is room.
        if self._overrun or (message.qos and self._unacknowledged >= self.settings.receive_maximum):
            self._overrun.append(message)
            if self._wire is not None:
                self._wire.pause_reading()
        else:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        self._unacknowledged += message.qos
        self._on_message(message)

    def _deliver_overrun(self) -> None:
        while self._overrun and self._unacknowledged < self.settings.receive_maximum:
            self._deliver(self._overrun.popleft())
        if not self._overrun and self._wire is not None:
            self._wire.resume_reading()

    def _token(self, packet_id: int) -> AckToken:
        return AckToken(self._connection, packet_id)

    def _lose(self, reason: str) -> None:
        """The connection is of no more use; `reason` has no full stop."""
        connecting, established = self._connack, self._granted is not None
        self._drop(Unavailable(f"The connection to the broker at {self.address} was lost: {reason}."))
        if established and (connecting is None or connecting.done()):
            self._on_lost(reason)

    # ---- Inside ----

    def _away(self) -> Unavailable:
        return Unavailable(f"There is no connection to the broker at {self.address}.")

    def _refusal(self, item: Outgoing) -> int:
        """The reason code of a publish that no broker would take, or 0."""
        if topic_problem(item.topic):
            return TOPIC_NAME_INVALID
        # A response topic comes from whoever asked: a wildcard in it must not end our connection.
        if item.response_topic is not None and topic_problem(item.response_topic):
            return TOPIC_NAME_INVALID
        texts = [text for pair in item.user_properties for text in pair]
        if item.content_type is not None:
            texts.append(item.content_type)
        if any(text_problem(text) for text in texts) or len(item.correlation or b"") > 65_535:
            return IMPLEMENTATION_SPECIFIC_ERROR
        assert self._granted is not None
        return RETAIN_NOT_SUPPORTED if item.retain and not self._granted.retain_available else SUCCESS

    def _publish_unacknowledged(self, item: Outgoing) -> None:
        assert self._wire is not None
        if self._wire.unsent_bytes + item.size_bytes > UNSENT_BYTES_MAX:
            fail(item.future, Unavailable(f"The broker at {self.address} takes nothing at the moment."))
            return
        try:
            self._send_publish(item)
        except Unsendable as refusal:
            settle(item.future, refusal.code)
        else:
            settle(item.future, SUCCESS)

    def _pump(self) -> None:
        """Send what the window and the socket allow."""
        while self._wire is not None and not self._wire.paused and (item := self._queue.next()) is not None:
            try:
                packet_id = self._send_publish(item)
            except Unsendable as refusal:
                self._queue.refused(item, refusal.code)
            else:
                self._queue.sent(packet_id, item)

    def _received(self, data: bytes) -> None:
        if self._granted is None and data.startswith(_OLD_REFUSAL):
            self._drop(reasons.only_old_mqtt(str(self.address)))
        else:
            self._feed(data)

    def _ended(self, wire: Wire, error: Exception | None) -> None:
        if wire is not self._wire:
            return
        if error is not None and self._granted is None and tls_refusal(error):
            # TLS 1.3 tells of a refused client certificate only after the handshake.
            self._drop(tls_misconfigured(self.address, error))
            return
        self._lose(f"the connection broke: {error}" if error else "the broker closed the connection")

    def _drop(self, error: EdgeError, *, politely: bool = False) -> EdgeError:
        """End the connection and fail everything that waits for it; gives back `error`."""
        wire, self._wire = self._wire, None
        self._connection += 1
        self._granted = None
        self._unacknowledged = 0
        self._overrun.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wire is not None:
            self._forget()
            if politely:
                wire.close()
            else:
                wire.abort()
        if self._connack is not None and not self._connack.done():
            self._connack.set_exception(error)
        for future in self._subscribing.values():
            if not future.done():
                future.set_exception(error)
        self._queue.fail_all(error)
        return error

    def _schedule_tick(self) -> None:
        assert self._granted is not None
        # Half the keep alive: a ping and its answer fit, and silence is noticed within one keep alive.
        period_s = self._granted.keepalive_s / 2
        if period_s > 0:
            self._timer = asyncio.get_running_loop().call_later(period_s, self._ticked)

    def _ticked(self) -> None:
        assert self._wire is not None
        if self._wire.reading_paused:
            self._deaf_tick()  # the answer to a ping may lie unread: silence proves nothing
        else:
            self._tick()
        if self._granted is not None:
            self._schedule_tick()

    # ---- For the implementation: into packets ----

    @abstractmethod
    def _begin(self) -> None:
        """Send CONNECT on the new wire."""

    @abstractmethod
    def _feed(self, data: bytes) -> None:
        """Take bytes from the broker."""

    @abstractmethod
    def _tick(self) -> None:
        """Half a keep alive has passed: ping, or notice that the last ping went unanswered."""

    @abstractmethod
    def _deaf_tick(self) -> None:
        """Half a keep alive has passed and we did not listen: ping, expect nothing."""

    @abstractmethod
    def _send_publish(self, item: Outgoing) -> int:
        """Send PUBLISH; the packet id for QoS 1, 0 for QoS 0. Raises Unsendable."""

    @abstractmethod
    def _send_subscribe(self, filters: Sequence[tuple[str, int]], *, retained: str) -> int:
        """Send SUBSCRIBE; the packet id."""

    @abstractmethod
    def _send_unsubscribe(self, filters: Sequence[str]) -> int:
        """Send UNSUBSCRIBE; the packet id."""

    @abstractmethod
    def _send_puback(self, packet_id: int) -> None:
        """Send PUBACK with success."""

    @abstractmethod
    def _send_goodbye(self) -> None:
        """Send DISCONNECT with normal disconnection, which discards the will."""

    @abstractmethod
    def _forget(self) -> None:
        """The wire is about to close: let go of what belongs to it."""
