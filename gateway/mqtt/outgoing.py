"""Publishes on their way: what is in flight, what waits for the broker's Receive Maximum, and their futures.

Owned by `base.BaseSession`. Pure bookkeeping: sends nothing, looks at no clock. Must never drop a publish
without settling its future.
"""

from __future__ import annotations

import asyncio
from collections import deque

from edge.core.errors import EdgeError, Unavailable
from edge.core.records import record
from gateway.mqtt.session import OUTGOING_BYTES_MAX, OUTGOING_MAX


@record
class Outgoing:
    """One publish and the future of its reason code."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None
    user_properties: tuple[tuple[str, str], ...]
    message_expiry_s: int | None
    future: asyncio.Future[int]

    @property
    def size_bytes(self) -> int:
        """What it is counted with against OUTGOING_BYTES_MAX."""
        return len(self.payload) + len(self.topic)


def settle(future: asyncio.Future[int], code: int) -> None:
    """Give the reason code, unless the caller has cancelled."""
    if not future.done():
        future.set_result(code)


def fail(future: asyncio.Future[int], error: EdgeError) -> None:
    """Fail the future; whoever ignores it hears nothing, asyncio's complaint included."""
    if not future.done():
        future.set_exception(error)
        future.exception()


class OutgoingQueue:
    """QoS 1 publishes of one connection, in order (MQTT 5 §3.3.4, §4.6)."""

    def __init__(self) -> None:
        #: How many may be unacknowledged: the broker's Receive Maximum.
        self.window = 0
        self._waiting: deque[Outgoing] = deque()
        self._flying: dict[int, Outgoing] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    def put(self, item: Outgoing) -> bool:
        """Take a publish; False (future failed) where too much is waiting already."""
        full = len(self) >= OUTGOING_MAX
        # One publish is always taken, so that a payload of the full size can leave at all.
        if full or (len(self) and self._held_bytes + item.size_bytes > OUTGOING_BYTES_MAX):
            fail(item.future, Unavailable("Too many publishes wait for the broker's acknowledgement."))
            return False
        self._held_bytes += item.size_bytes
        self._waiting.append(item)
        return True

    def next(self) -> Outgoing | None:
        """The next publish that may be sent now; those cancelled while waiting are left out."""
        while self._waiting and len(self._flying) < self.window:
            item = self._waiting.popleft()
            if not item.future.done():
                return item
            self._held_bytes -= item.size_bytes
        return None

    def sent(self, packet_id: int, item: Outgoing) -> None:
        """`item` was sent under `packet_id`."""
        assert packet_id not in self._flying, packet_id
        self._flying[packet_id] = item

    def refused(self, item: Outgoing, code: int) -> None:
        """`item` came from `next` but cannot be sent by anybody."""
        self._held_bytes -= item.size_bytes
        settle(item.future, code)

    def uses(self, packet_id: int) -> bool:
        """True where the packet id is in flight."""
        return packet_id in self._flying

    def acknowledged(self, packet_id: int, code: int) -> bool:
        """The broker's PUBACK; False for a packet id that is not in flight."""
        item = self._flying.pop(packet_id, None)
        if item is None:
            return False
        self._held_bytes -= item.size_bytes
        settle(item.future, code)
        return True

    def fail_all(self, error: EdgeError) -> None:
        """Fail everything, in the order it was published, and forget it."""
        items = [*self._flying.values(), *self._waiting]
        self._flying.clear()
        self._waiting.clear()
        self._held_bytes = 0
        for item in items:
            fail(item.future, error)
