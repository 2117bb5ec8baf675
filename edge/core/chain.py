"""The hash chain over events, and the group: the events that share one flush.

The event log writes with it, verification and replay recompute it. Pure.

leaf = SHA-256(0x00 ‖ context ‖ seq ‖ envelope ‖ SHA-256(salt ‖ body)), link = SHA-256(0x01 ‖ previous ‖ leaf)
(prefixes after RFC 9162 §2.1, so that a leaf can never pass for a node). `context` is CBOR of what is
constant over the group: log id, boot id, clocks. `salt` comes from the segment's epoch key, so that a body
can be erased later while its digest, and with it the chain, stays (design §5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from edge.core.clock import Reading
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged
from edge.core.event_codec import decode_event, encode_body, encode_envelope
from edge.core.events import Event
from edge.core.records import record

GENESIS: Final = bytes(32)
SALT_BYTES: Final = 16
EPOCH_KEY_BYTES: Final = 32


@record
class Context:
    """What is constant over one group of events. `log_id` is 8 bytes, `boot_id` 16."""

    log_id: bytes
    boot_id: bytes
    at: Reading

    def encode(self) -> bytes:
        """CBOR array; these bytes are hashed into every leaf of the group."""
        return encode([self.log_id, self.boot_id, self.at.mono_ns, self.at.wall_ns, self.at.wall_trust])

    @classmethod
    def decode(cls, data: bytes) -> Context:
        """The context from its bytes."""
        log_id, boot_id, mono_ns, wall_ns, wall_trust = decode(data)
        return cls(log_id, boot_id, Reading(mono_ns, wall_ns, wall_trust))


def salt(epoch_key: bytes, seq: int) -> bytes:
    """The salt of one event's body: 16 bytes, different for each, disclosed one by one or all by the key."""
    return hashlib.blake2b(seq.to_bytes(8, "big"), key=epoch_key, digest_size=SALT_BYTES).digest()


def link_of(
    previous: bytes, context: bytes, epoch_key: bytes, seq: int, envelope: bytes, body: bytes
) -> bytes:
    """The chain's link after one event."""
    inner = hashlib.sha256(salt(epoch_key, seq) + body).digest()
    leaf = hashlib.sha256(b"\x00" + context + seq.to_bytes(8, "big") + envelope + inner).digest()
    return hashlib.sha256(b"\x01" + previous + leaf).digest()


def last_link(previous: bytes, events: Iterable[tuple[bytes, bytes, int, tuple[bytes, bytes]]]) -> bytes:
    """The chain's link after many events, each `(context, epoch key, seq, (envelope, body))`.

    What `link_of` gives one by one, without what it does again for each: for whoever only needs the last.
    """
    sha256, known = hashlib.sha256, b""
    salting = hashlib.blake2b(digest_size=SALT_BYTES)
    for context, epoch_key, seq, (envelope, body) in events:
        if epoch_key != known:
            known, salting = epoch_key, hashlib.blake2b(key=epoch_key, digest_size=SALT_BYTES)
        number, salted = seq.to_bytes(8, "big"), salting.copy()
        salted.update(number)
        inner = sha256(salted.digest() + body).digest()
        leaf = sha256(b"".join((b"\x00", context, number, envelope, inner))).digest()
        previous = sha256(b"\x01" + previous + leaf).digest()
    return previous


@record
class Group:
    """Events that became durable together.

    `data` is the CBOR array `[context, previous link, [envelope, body, …]]`, byte for byte what both homes
    hold; `links[i]` is the chain after event `first_seq + i`.
    """

    first_seq: int
    data: bytes
    links: tuple[bytes, ...]

    @property
    def last_seq(self) -> int:
        """Sequence number of the last event."""
        return self.first_seq + len(self.links) - 1


def seal_group(
    first_seq: int, previous: bytes, context: Context, epoch_key: bytes, parts: list[bytes]
) -> Group:
    """Make a group of encoded events (`parts` alternates envelope and body)."""
    head = context.encode()
    links = []
    link = previous
    for index in range(0, len(parts), 2):
        link = link_of(link, head, epoch_key, first_seq + index // 2, parts[index], parts[index + 1])
        links.append(link)
    return Group(first_seq, encode([head, previous, parts]), tuple(links))


@record
class OpenedGroup:
    """A group read back: its context, the link it starts from, and its events."""

    first_seq: int
    context: Context
    previous: bytes
    parts: list[bytes]
    context_bytes: bytes

    @property
    def last_seq(self) -> int:
        """Sequence number of the last event."""
        return self.first_seq + len(self.parts) // 2 - 1

    def holds(self, seq: int) -> bool:
        """Whether an event of that number is in it."""
        return self.first_seq <= seq <= self.last_seq

    def events(self) -> list[Event]:
        """The events, decoded. Raises LogDamaged where one is not readable."""
        return [self.event(seq) for seq in range(self.first_seq, self.last_seq + 1)]

    def event(self, seq: int) -> Event:
        """One of the events, decoded. Raises LogDamaged where it is not readable."""
        index = 2 * (seq - self.first_seq)
        try:
            return decode_event(seq, self.parts[index], self.parts[index + 1])
        except ValueError as error:
            raise LogDamaged(str(error)) from error

    def follows(self, seq: int, link: bytes) -> bool:
        """Whether it stands right behind event `seq`, where the chain is at `link`.

        Numbers may jump: where the chain joins, no event ever stood between. A link that does not join is told by
        `check` where the numbers do, and means missing events where they do not.
        """
        return self.first_seq == seq + 1 or (self.first_seq > seq and self.previous == link)

    def check(self, previous: bytes, epoch_key: bytes) -> bytes:
        """The link after this group, if it starts from `previous`. Raises LogDamaged otherwise."""
        if self.previous != previous:
            raise LogDamaged(
                f"The chain breaks at event {self.first_seq}: "
                f"it starts from {self.previous.hex()[:16]}, the log before it ends at {previous.hex()[:16]}."
            )
        link = previous
        for index in range(0, len(self.parts), 2):
            seq = self.first_seq + index // 2
            link = link_of(link, self.context_bytes, epoch_key, seq, self.parts[index], self.parts[index + 1])
        return link


def open_group(first_seq: int, data: bytes) -> OpenedGroup:
    """A group from its bytes. Raises LogDamaged where they are not one."""
    try:
        head, previous, parts = decode(data)
        if len(parts) % 2 or not parts or any(type(part) is not bytes for part in parts):
            raise ValueError("it has half an event")
        return OpenedGroup(first_seq, Context.decode(head), previous, parts, head)
    except (ValueError, TypeError) as error:
        raise LogDamaged(f"The group at event {first_seq} cannot be read: {error}.") from error


def encode_event(event: Event) -> tuple[bytes, bytes]:
    """Envelope and body of one event, as they are stored and hashed."""
    return encode_envelope(event), encode_body(event.body)
