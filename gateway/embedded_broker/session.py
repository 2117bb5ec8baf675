"""What the broker knows of one client between connections: subscriptions and QoS 1 messages. Pure.

Owned by `broker.EmbeddedBroker`. Sends nothing and looks at no clock: times arrive as arguments, in seconds of
the event loop's clock. Must never drop a QoS 1 message it has taken, except when it has expired.
"""

from __future__ import annotations

from collections import deque

from edge.core import limits
from edge.core.records import record

#: QoS 1 messages a session holds, in flight and waiting; above it publishers are refused.
QUEUED_MAX = 16_384
#: Bytes of topic and payload in them.
QUEUED_BYTES_MAX = 8 * limits.PAYLOAD_BYTES_MAX
#: Filters one client may hold.
SUBSCRIPTIONS_MAX = 1_024
#: Session expiry of this value means for ever (MQTT 5 §3.1.2.11.2).
NEVER_EXPIRES_S = 0xFFFF_FFFF

assert QUEUED_MAX > limits.RECEIVE_MAX


@record
class Publication:
    """A message as published. `expires_at_s` is on the event loop's clock, None where it never does."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    payload_format: int
    expires_at_s: float | None
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None
    user_properties: tuple[tuple[str, str], ...]

    @property
    def size_bytes(self) -> int:
        """What it is counted with."""
        return len(self.payload) + len(self.topic)

    def expired(self, now_s: float) -> bool:
        """True where nobody wants it any more (MQTT 5 §3.3.2.3.3)."""
        return self.expires_at_s is not None and self.expires_at_s <= now_s


@record
class Subscription:
    """One filter and its options (MQTT 5 §3.8.3.1)."""

    pattern: str
    qos: int
    no_local: bool
    retain_as_published: bool
    identifier: int | None


@record
class Delivery:
    """A publication on its way to one client."""

    publication: Publication
    qos: int
    retain: bool
    subscription_ids: tuple[int, ...]


def delivery_for(publication: Publication, found: list[Subscription]) -> Delivery:
    """One delivery for all of a client's overlapping filters, with the highest QoS (MQTT 5 §3.3.4)."""
    return Delivery(
        publication,
        min(publication.qos, max(subscription.qos for subscription in found)),
        publication.retain and any(subscription.retain_as_published for subscription in found),
        tuple(sorted({s.identifier for s in found if s.identifier is not None})),
    )


@record
class Sending:
    """A QoS 1 delivery that may be sent now."""

    packet_id: int
    delivery: Delivery
    duplicate: bool


class ClientSession:
    """Subscriptions and QoS 1 messages of one client id."""

    def __init__(self, client_id: str, *, queued_max: int = QUEUED_MAX) -> None:
        self.client_id = client_id
        self.expiry_s = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.expired = 0
        self._queued_max = queued_max
        self._held_bytes = 0
        self._packet_id = 0
        self._waiting: deque[Delivery] = deque()
        self._flying: dict[int, Delivery] = {}
        self._again: deque[int] = deque()

    @property
    def queued(self) -> int:
        """QoS 1 messages held."""
        return len(self._waiting) + len(self._flying)

    def has_room(self, publications: list[Publication]) -> bool:
        """True where all of these could be queued. One message always fits a session that holds none."""
        if not self.queued and len(publications) <= 1:
            return True
        size_bytes = sum(publication.size_bytes for publication in publications)
        return (
            self.queued + len(publications) <= self._queued_max
            and self._held_bytes + size_bytes <= QUEUED_BYTES_MAX
        )

    def queue(self, delivery: Delivery) -> None:
        """Take a QoS 1 delivery; the caller has asked `has_room`."""
        assert delivery.qos == 1
        self._held_bytes += delivery.publication.size_bytes
        self._waiting.append(delivery)

    def next(self, window: int, now_s: float) -> Sending | None:
        """The next message to send while fewer than `window` are unacknowledged (MQTT 5 §4.9)."""
        # Those still to be sent again are not in flight on this connection, whose window it is.
        if self._again:
            if len(self._flying) - len(self._again) >= window:
                return None
            packet_id = self._again.popleft()
            return Sending(packet_id, self._flying[packet_id], duplicate=True)
        while self._waiting and len(self._flying) < window:
            delivery = self._waiting.popleft()
            if delivery.publication.expired(now_s):
                self._held_bytes -= delivery.publication.size_bytes
                self.expired += 1
                continue
            packet_id = self._free_packet_id()
            self._flying[packet_id] = delivery
            return Sending(packet_id, delivery, duplicate=False)
        return None

    def acknowledged(self, packet_id: int) -> bool:
        """The client has it; False for a packet id that is not in flight."""
        delivery = self._flying.pop(packet_id, None)
        if delivery is None:
            return False
        if packet_id in self._again:  # acknowledged without having been sent on this connection
            self._again.remove(packet_id)
        self._held_bytes -= delivery.publication.size_bytes
        return True

    def connection_lost(self) -> None:
        """What was in flight goes first next time, under the same packet ids (MQTT 5 §4.4)."""
        self._again = deque(self._flying)

    def _free_packet_id(self) -> int:
        # queued_max is below 65,535, so one is free.
        while True:
            self._packet_id = self._packet_id % 65_535 + 1
            if self._packet_id not in self._flying:
                return self._packet_id


assert QUEUED_MAX < 65_535
