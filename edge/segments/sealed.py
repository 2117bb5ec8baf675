"""The sealed segment: the one object that is kept, carried and stored, the same bytes everywhere.

    magic 8 | manifest's length 4, little-endian | manifest | signature 64 | body

Made by `edge.segments.sealing`; read by sync, by bundles and by the centre. Two checks: `open_sealed` looks at
everything but the events (signature, body's digest), `Sealed.check` at every event. Pure but for the signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edge.core.chain import OpenedGroup
from edge.core.errors import LogDamaged, SegmentRejected
from edge.core.limits import MANIFEST_BYTES_MAX
from edge.core.records import record
from edge.security.signing import SIGNATURE_BYTES, signed_by
from edge.segments.columns import Rows, Unpacked
from edge.segments.extent import Extent
from edge.segments.manifest import Manifest, id_of
from edge.segments.packing import checked, rows, unpacked

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
        with self._readable():
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

    def rows(self) -> tuple[list[int], list[Rows]] | None:
        """The events by their columns (`columns.rows`), None where the codec has none. Raises SegmentRejected."""
        said = self.manifest
        with self._readable():
            return rows(said.codec, self.body, said.unpacked_bytes)

    def groups(self) -> Iterator[Unpacked]:
        """Every group with the chain's link after it, recomputed. Raises SegmentRejected, perhaps at the end only."""
        said, seen = self.manifest, Extent()
        link = said.link_before
        with self._readable():
            for each in unpacked(said.codec, self.body, said.unpacked_bytes, said.log_id, said.link_before):
                seen.add(each.group)
                yield each
                link = each.link
        self._require(link, seen.fields())

    def check(self) -> None:
        """Look at every event and keep none: the chain over them, and what the manifest says. SegmentRejected."""
        said = self.manifest
        with self._readable():
            found = checked(said.codec, self.body, said.unpacked_bytes, said.log_id, said.link_before)
        self._require(*found)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, LogDamaged) as error:
            said = self.manifest
            raise SegmentRejected(f"Segment {said.number} of {said.box} cannot be read: {error}.") from error

    def _require(self, link: bytes, extent: dict[str, int]) -> None:
        said = self.manifest
        where = f"segment {said.number} of {said.box}"
        if link != said.link_after:
            raise SegmentRejected(
                f"The events of {where} give the link {link.hex()[:16]}, "
                f"and its manifest says {said.link_after.hex()[:16]}."
            )
        if wrong := [name for name, value in extent.items() if getattr(said, name) != value]:
            raise SegmentRejected(
                f"The manifest of {where} says something else of its events than they are: {', '.join(wrong)}."
            )


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
