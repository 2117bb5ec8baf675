"""A lean MQTT 5 client for load: the `mqtt5` codec to read, requests cut from a template to write.

Used by `load`, which shares two cores with what it measures: so nothing here is made twice. It keeps the same
promises a careful client would: QoS 1, TCP_NODELAY, every message acknowledged, every refusal seen.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import mqtt5

from gateway.mqtt.framing import Framer
from tests.bench.workload import MARK, marked_value

_PACKET_ID: Final = 0x7A7A
_NUMBER_MARK: Final = b"\x01NUMBER\x02"
_ID_MARK: Final = "request-id-mark!"
_PACKET_BYTES_MAX: Final = 1 << 20


class ClientFailed(Exception):
    """Something the bench must not measure over."""


@dataclass(slots=True)
class Call:
    """One request on its way. Times are of CLOCK_MONOTONIC; 0 where nothing came yet."""

    number: int
    wants_receipt: bool
    sent_ns: int
    receipt_ns: int = 0
    result_ns: int = 0
    receipt: bytes = b""
    result: bytes = b""

    @property
    def complete(self) -> bool:
        """Whether all that was asked for came."""
        return bool(self.result_ns and (self.receipt_ns or not self.wants_receipt))


class Template:
    """A PUBLISH of which only packet id, request number, request id and the payload's mark change."""

    def __init__(
        self, topic: str, payload: bytes, content_type: str, answers: str, *, wants_receipt: bool = True
    ) -> None:
        self.wants_receipt = wants_receipt
        packet = mqtt5.PublishPacket(
            topic,
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=_PACKET_ID,
            content_type=content_type,
            response_topic=answers,
            correlation_data=_NUMBER_MARK,
            user_properties=[("request-id", _ID_MARK)],
        ).write()
        marks = [("packet_id", struct.pack("!H", _PACKET_ID)), ("number", _NUMBER_MARK)]
        marks += [("request_id", _ID_MARK.encode()), ("value", MARK)]
        self._parts: list[bytes] = []
        self._places: dict[str, int] = {}
        found = sorted((packet.index(mark), name, mark) for name, mark in marks if mark in packet)
        at = 0
        for offset, name, mark in found:
            self._parts += [packet[at:offset], mark]
            self._places[name] = len(self._parts) - 1
            at = offset + len(mark)
        self._parts.append(packet[at:])
        assert {"packet_id", "number", "request_id"} <= self._places.keys()

    def packet(self, packet_id: int, number: int) -> bytes:
        """The bytes of one request."""
        parts, places = self._parts, self._places
        parts[places["packet_id"]] = packet_id.to_bytes(2, "big")
        parts[places["number"]] = number.to_bytes(8, "big")
        parts[places["request_id"]] = b"%016x" % number
        if "value" in places:
            parts[places["value"]] = struct.pack("<d", marked_value(number))
        return b"".join(parts)


class LoadClient(asyncio.Protocol):
    """One connection. `on_complete` is called for each call that got all it wanted."""

    def __init__(self) -> None:
        self._framer = Framer(_PACKET_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._reading = False
        self._packet_id = 0
        #: Request ids must differ from those of every earlier run against the same log.
        self._number = time.time_ns() & 0xFFFF_FFFF_FFFF_0000
        self._answered: asyncio.Future[mqtt5.Packet] | None = None
        self.pending: dict[int, Call] = {}
        self.errors: list[str] = []
        self.strays = 0
        self.on_complete: Callable[[Call], None] = lambda call: None
        self.on_note: Callable[[str, bytes], None] = lambda topic, payload: None

    async def open(self, port: int, client_id: str) -> None:
        """Connect. Raises ClientFailed."""
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)
        connect = mqtt5.ConnectPacket(client_id, clean_start=True, keep_alive=0, receive_max=65_535)
        answer = await self._ask(connect.write())
        if not isinstance(answer, mqtt5.ConnAckPacket) or int(answer.reason_code):
            raise ClientFailed(f"the broker refused the load client: {answer!r}")

    async def subscribe(self, pattern: str) -> None:
        """Subscribe with QoS 1. Raises ClientFailed."""
        wanted = [mqtt5.TopicFilter(pattern, max_qos=mqtt5.QoS.AT_LEAST_ONCE, retain_as_published=False)]
        answer = await self._ask(mqtt5.SubscribePacket(self._next_packet_id(), wanted).write())
        if not isinstance(answer, mqtt5.SubAckPacket) or int(answer.reason_codes[0]) >= 0x80:
            raise ClientFailed(f"the broker refused a subscription: {answer!r}")

    def send(self, template: Template) -> Call:
        """Publish one request; `on_complete` hears of it."""
        self._number += 1
        packet = template.packet(self._next_packet_id(), self._number)
        call = Call(self._number, template.wants_receipt, time.monotonic_ns())
        self.pending[self._number] = call
        self._write(packet)
        return call

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.write(mqtt5.DisconnectPacket().write())
            self._transport.close()

    # ---- Inside ----

    async def _ask(self, packet: bytes) -> mqtt5.Packet:
        self._answered = asyncio.get_running_loop().create_future()
        self._write(packet)
        return await asyncio.wait_for(self._answered, 10)

    def _next_packet_id(self) -> int:
        # Far fewer than 65,535 are in flight, so none is met again while in use.
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._reading:
            self._flush()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.errors.append(f"the connection to the broker ended: {exc}")

    def data_received(self, data: bytes) -> None:
        self._reading = True
        for packet in self._framer.feed(data):
            if isinstance(packet, mqtt5.PublishPacket):
                self._take(packet)
            elif isinstance(packet, mqtt5.PubAckPacket):
                if int(packet.reason_code):
                    self.errors.append(f"a publish was answered with {packet.reason_code!r}")
            elif self._answered is not None and not self._answered.done():
                self._answered.set_result(packet)
            else:
                self.errors.append(f"the broker sent {packet!r}")
        self._reading = False
        self._flush()

    def _take(self, packet: Any) -> None:
        if packet.packet_id:
            self._out.append(b"\x40\x02" + packet.packet_id.to_bytes(2, "big"))
        if packet.correlation_data is None:
            self.on_note(packet.topic, packet.payload)
            return
        call = self.pending.get(int.from_bytes(packet.correlation_data, "big"))
        if call is None:
            self.strays += 1
            return
        properties = dict(packet.user_properties)
        kind = properties.get("kind", "echo")
        if kind == "receipt":
            call.receipt_ns, call.receipt = time.monotonic_ns(), packet.payload
        elif kind == "echo" or (kind == "result" and properties.get("status") == "completed"):
            call.result_ns, call.result = time.monotonic_ns(), packet.payload
        else:
            self.errors.append(f"{kind} {properties.get('status')}: {packet.payload[:400]!r}")
        if call.complete:
            del self.pending[call.number]
            self.on_complete(call)
