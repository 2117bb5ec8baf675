"""What a sealed segment says of itself: canonical CBOR, signed, small enough to be read alone.

The segment's id is the SHA-256 of these bytes; body and neighbours are named in it by their digests. Made by
`edge.segments.sealing`, read by everybody who carries, checks or stores segments. Pure.

A field number is never used again for something else; a reader leaves alone what it does not know, so that a newer
box can say more to an older centre. What must be understood to read a segment is `codec`, and an unknown one is
refused by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any, Final

from edge.core.codec import decode, encode_canonical
from edge.core.limits import MANIFEST_BYTES_MAX, SEALED_EVENTS_MAX, SEALED_UNPACKED_BYTES_MAX
from edge.core.records import record

VERSION: Final = 1
NO_SEGMENT: Final = b""
"""The id before a log's first segment."""

ROUTINE, URGENT = 0, 1
"""Priorities: urgent ones go upstream before all others."""


@record
class Manifest:
    """Segment `number` of log `log_id`: `events` events in `groups` groups, numbered `first_seq` to `last_seq`.

    `link_before` and `link_after` are the chain's links around it, `previous` the id of the segment before it.
    `body_digest` is the SHA-256 of the body as it is carried (`body_bytes`), `unpacked_bytes` its size after `codec`.
    `wall_min_ns`, `wall_max_ns` are the clock's extremes over its groups, `trust_min` the lowest trust in it, `boots`
    how many boots wrote it. `blueprints` are digests of the playbooks that executions in it were begun with,
    `blobs` digests and sizes of values that are carried apart. `losses` are `[first, last]` of numbers that the log
    says are lost. `key` is the signer's public key, `box` and `release` who wrote it.
    """

    log_id: bytes
    number: int
    first_seq: int
    last_seq: int
    events: int
    groups: int
    link_before: bytes
    link_after: bytes
    previous: bytes
    codec: str
    body_digest: bytes
    body_bytes: int
    unpacked_bytes: int
    wall_min_ns: int
    wall_max_ns: int
    trust_min: int
    boots: int
    event_format: int
    key: bytes
    box: str
    release: str
    priority: int = ROUTINE
    blueprints: tuple[bytes, ...] = ()
    blobs: tuple[tuple[bytes, int], ...] = ()
    losses: tuple[tuple[int, int], ...] = ()

    def encode(self) -> bytes:
        """Canonical CBOR (RFC 8949 §4.2.1): a map of field number to value, key 0 the version."""
        made: dict[int, Any] = {0: VERSION}
        for number, each in enumerate(fields(self), 1):
            value = getattr(self, each.name)
            if value != each.default:
                made[number] = (
                    [list(item) if type(item) is tuple else item for item in value]
                    if type(value) is tuple
                    else value
                )
        return encode_canonical(made)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest from its bytes. Raises ValueError, saying what is wrong with it."""
        if len(data) > MANIFEST_BYTES_MAX:
            raise ValueError(f"its manifest has {len(data)} bytes, and {MANIFEST_BYTES_MAX} are the most")
        made = decode(data)
        if type(made) is not dict or made.get(0) != VERSION:
            raise ValueError("its manifest is of a version that this release does not know")
        if encode_canonical(made) != data:
            raise ValueError("its manifest is not in canonical form")
        given = {}
        for number, each in enumerate(fields(cls), 1):
            if number in made:
                given[each.name] = _checked(each.name, made[number])
        try:
            manifest = cls(**given)
        except TypeError as error:
            raise ValueError(f"its manifest lacks a field: {error}") from error
        manifest._require_sense()
        return manifest

    def joins(self, last_seq: int, link: bytes) -> bool:
        """Whether it goes on where a log ends with event `last_seq`, its chain at `link`.

        Over what the log itself calls lost the chain does not go on: then `losses` covers all numbers between.
        """
        lost = any(first <= last_seq + 1 and last == self.first_seq - 1 for first, last in self.losses)
        return self.link_before == link or lost

    def follows(self, segment: bytes, last_seq: int, link: bytes) -> bool:
        """Whether it goes on after a segment with that id, which ends with event `last_seq`, the chain at `link`.

        A segment that another release of the box sealed again has another id and the same events: then the chain
        alone says it, and where that begins anew, over a loss, the id alone.
        """
        return self.joins(last_seq, link) and (self.previous == segment or self.link_before == link)

    def same_events(self, other: Manifest) -> bool:
        """Whether both are of the same events, where the chain of both holds; it does not matter who sealed them."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("log_id", "number", "first_seq", "last_seq", "events", "link_before", "link_after")
        )

    def _require_sense(self) -> None:
        holds = (
            1 <= self.first_seq <= self.last_seq
            and 1 <= self.groups <= self.events <= SEALED_EVENTS_MAX
            and self.last_seq - self.first_seq + 1 >= self.events
            and 0 < self.unpacked_bytes <= SEALED_UNPACKED_BYTES_MAX
            and 0 < self.body_bytes <= self.unpacked_bytes + 1024
            and (self.number == 0) == (self.previous == NO_SEGMENT)
        )
        if not holds:
            raise ValueError("its manifest says what cannot be")


#: Widths of the byte strings.
_WIDTHS: Final = {
    "log_id": (8,),
    "link_before": (32,),
    "link_after": (32,),
    "previous": (0, 32),
    "body_digest": (32,),
    "key": (32,),
}
_TEXTS: Final = ("codec", "box", "release")
_TEXT_MAX: Final = 200


def _checked(name: str, value: Any) -> Any:
    """A field's value where it is of its type. Raises ValueError."""
    kind = type(value)
    if name in _WIDTHS:
        holds = kind is bytes and len(value) in _WIDTHS[name]
    elif name in _TEXTS:
        holds = kind is str and len(value) <= _TEXT_MAX
    elif name == "blueprints":
        holds = kind is list and all(type(each) is bytes and len(each) == 32 for each in value)
        value = tuple(value) if holds else value
    elif name in ("blobs", "losses"):
        first = bytes if name == "blobs" else int
        holds = kind is list and all(
            type(each) is list and len(each) == 2 and type(each[0]) is first and type(each[1]) is int
            for each in value
        )
        value = tuple((each[0], each[1]) for each in value) if holds else value
    else:
        holds = kind is int and value >= (-(2**63) if name.startswith("wall_") else 0)
    if not holds:
        raise ValueError(f"its manifest's {name} is not what it should be")
    return value


def id_of(manifest: bytes) -> bytes:
    """A segment's id: 32 bytes, from its manifest's."""
    return hashlib.sha256(manifest).digest()
