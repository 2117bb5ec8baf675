"""The sealed segment: the one object that is kept, carried and stored, the same bytes everywhere.

    magic 8 | manifest's length 4, little-endian | manifest | signature 64 | body

Made by `edge.segments.sealing`; read by sync, by bundles and by the centre. Two checks: `open_sealed` looks at
everything but the events (signature, body's digest), `Sealed.groups` at every event. Pure but for the signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from edge.core.chain import OpenedGroup
from edge.core.errors import LogDamaged, SegmentRejected
from edge.core.limits import MANIFEST_BYTES_MAX
from edge.core.records import record
from edge.security.signing import SIGNATURE_BYTES, signed_by
from edge.segments.columns import Unpacked
from edge.segments.manifest import Manifest, id_of
from edge.segments.packing import unpacked

MAGIC: Final = b"NEseg1\r\n"
"""With a line's end in it, so that a copy in text mode is noticed at once (as PNG does, RFC 2083 §12.11)."""
_HEAD_BYTES: Final = len(MAGIC) + 4
OVERHEAD_BYTES: Final = _HEAD_BYTES + SIGNATURE_BYTES
SUFFIX: Final = ".segment"


@record
class Sealed:
    """A segment whose signature and digests hold; its events are looked at by `groups`."""

    id: bytes
    manifest: Manifest
    body: bytes

    def read(self, wanted: range | None = None) -> Iterator[OpenedGroup]:
        """Every group, or those with events that are `wanted`, as the signed body has it. Raises SegmentRejected.

        The chain is left to `groups`.
        """
        said = self.manifest
        try:
            for each in unpacked(
                said.codec,
                self.body,
                said.unpacked_bytes,
                said.log_id,
                said.link_before,
                linked=False,
                wanted=wanted,
            ):
                yield each.group
        except (ValueError, LogDamaged) as error:
            raise SegmentRejected(f"Segment {said.number} of {said.box} cannot be read: {error}.") from error

    def groups(self) -> Iterator[Unpacked]:
        """Every group with the chain's link after it, recomputed. Raises SegmentRejected, perhaps at the end only."""
        said, seen = self.manifest, Extent()
        where = f"Segment {said.number} of {said.box}"
        link = said.link_before
        try:
            for each in unpacked(said.codec, self.body, said.unpacked_bytes, said.log_id, said.link_before):
                seen.add(each.group)
                yield each
                link = each.link
        except (ValueError, LogDamaged) as error:
            raise SegmentRejected(f"{where} cannot be read: {error}.") from error
        if link != said.link_after:
            raise SegmentRejected(
                f"The events of segment {said.number} of {said.box} give the link {link.hex()[:16]}, "
                f"and its manifest says {said.link_after.hex()[:16]}."
            )
        if wrong := [name for name, value in seen.fields().items() if getattr(said, name) != value]:
            raise SegmentRejected(
                f"{where} says something else of its events than they are: {', '.join(wrong)}."
            )


class Extent:
    """What a manifest says of the events in it, gathered group by group."""

    def __init__(self) -> None:
        self._first_seq = self._last_seq = self._events = self._groups = 0
        self._wall_ns: list[int] = []
        self._trust: set[int] = set()
        self._boots: list[bytes] = []

    def add(self, group: OpenedGroup) -> None:
        """One group more, in order."""
        self._first_seq = self._first_seq or group.first_seq
        self._last_seq = group.last_seq
        self._events += len(group.parts) // 2
        self._groups += 1
        self._wall_ns.append(group.context.at.wall_ns)
        self._trust.add(group.context.at.wall_trust)
        if group.context.boot_id not in self._boots[-1:]:
            self._boots.append(group.context.boot_id)

    def fields(self) -> dict[str, int]:
        """By the manifest's names."""
        return {
            "first_seq": self._first_seq,
            "last_seq": self._last_seq,
            "events": self._events,
            "groups": self._groups,
            "wall_min_ns": min(self._wall_ns),
            "wall_max_ns": max(self._wall_ns),
            "trust_min": min(self._trust),
            "boots": len(self._boots),
        }


def sealed_bytes(manifest: bytes, signature: bytes, body: bytes) -> bytes:
    """A segment's bytes."""
    return b"".join((MAGIC, len(manifest).to_bytes(4, "little"), manifest, signature, body))


def manifest_in(start: bytes) -> tuple[bytes, bytes, int]:
    """`(manifest, signature, where the body begins)` from the first bytes of a segment. Raises SegmentRejected."""
    if start[: len(MAGIC)] != MAGIC[: len(start)] or len(start) < _HEAD_BYTES:
        raise SegmentRejected("This is no sealed segment: it does not begin like one.")
    size = int.from_bytes(start[len(MAGIC) : _HEAD_BYTES], "little")
    end = _HEAD_BYTES + size
    if size > MANIFEST_BYTES_MAX or len(start) < end + SIGNATURE_BYTES:
        raise SegmentRejected("A sealed segment is cut short in its manifest.")
    return start[_HEAD_BYTES:end], start[end : end + SIGNATURE_BYTES], end + SIGNATURE_BYTES


def open_sealed(data: bytes) -> Sealed:
    """A segment from its bytes, signature and digests checked. Raises SegmentRejected.

    The signature is checked against the key that the manifest names: whose that is, the caller must know.
    """
    raw, signature, start = manifest_in(data)
    try:
        manifest = Manifest.decode(raw)
    except ValueError as error:
        raise SegmentRejected(f"A sealed segment cannot be read: {error}.") from error
    where = f"Segment {manifest.number} of {manifest.box}"
    if not signed_by(manifest.key, signature, raw):
        raise SegmentRejected(f"{where} is not signed by the key that it names: it was changed.")
    body = data[start:]
    if len(body) != manifest.body_bytes:
        raise SegmentRejected(
            f"{where} has {len(body)} bytes of events and should have {manifest.body_bytes}."
        )
    if hashlib.sha256(body).digest() != manifest.body_digest:
        raise SegmentRejected(f"{where} was changed in its events: their digest is another.")
    return Sealed(id_of(raw), manifest, body)
