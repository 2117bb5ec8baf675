"""Sealing: groups of the journal become signed segments, one after the other, each naming the one before.

Called by the sealer's process (`edge.segments.sealer`). The folder of sealed segments is a queue that sync empties;
what was sealed last stands in `head`, so that an empty queue goes on where it was. Killed at any point, the same
again ends the same: a segment is written whole beside, flushed, then named, and `head` follows it.

It reads the journal's files and the blobs' sizes, never opens the index, and seals nothing above the number it is
given: what a runtime has not flushed yet must not be seen outside the box (design §4).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge import VERSION
from edge.core.chain import OpenedGroup
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged, Misconfigured
from edge.core.events import FORMAT_VERSION, URGENT_TYPES, Event, ExecutionRequested
from edge.core.limits import SEALED_BYTES, SEALED_EVENTS
from edge.core.records import record
from edge.security.signing import Signer
from edge.segments.columns import StoredGroup
from edge.segments.extent import Extent
from edge.segments.manifest import NO_SEGMENT, ROUTINE, URGENT, Manifest, id_of
from edge.segments.packing import packed
from edge.segments.sealed import SUFFIX, manifest_in, sealed_bytes
from edge.store.blobs import BlobStore
from edge.store.index_rows import blobs_of
from edge.store.journal import read_groups
from edge.store.segment_file import SegmentHeader
from edge.store.whole_file import write_whole

HEAD_FILE: Final = "head"
_START_BYTES: Final = 128 * 1024


@record
class Head:
    """The segment sealed last: its number, id, last event and the chain's link after that."""

    log_id: bytes
    number: int
    id: bytes
    last_seq: int
    link: bytes


@dataclass(slots=True)
class _Batch:
    """Groups on their way into one segment."""

    header: SegmentHeader | None = None
    stored: list[StoredGroup] = field(default_factory=list)
    extent: Extent = field(default_factory=Extent)
    link_before: bytes = b""
    link: bytes = b""
    events: int = 0
    size_bytes: int = 0
    urgent: bool = False
    blueprints: dict[bytes, None] = field(default_factory=dict)
    blobs: dict[bytes, None] = field(default_factory=dict)
    losses: list[tuple[int, int]] = field(default_factory=list)

    def add(self, header: SegmentHeader, group: OpenedGroup, data: bytes) -> None:
        """One group more, the next of the log."""
        if not self.stored:
            self.link_before = self.link = group.previous
        if header.lost and header.first_seq == group.first_seq:
            self.losses.append((header.first_seq - header.lost, header.first_seq - 1))
        self.header = header
        self.link = group.check(self.link, header.epoch_key)
        self.stored.append(StoredGroup(group.first_seq, header.epoch_key, data))
        self.extent.add(group)
        self.events += len(group.parts) // 2
        self.size_bytes += len(data)
        for event in group.events():
            self._note(event)

    def _note(self, event: Event) -> None:
        body = event.body
        if isinstance(body, ExecutionRequested):
            self.blueprints[body.digest] = None
        self.urgent = self.urgent or type(body) in URGENT_TYPES
        for digest in blobs_of(body):
            self.blobs[digest] = None

    @property
    def full(self) -> bool:
        """Whether it is a segment's worth."""
        return self.events >= SEALED_EVENTS or self.size_bytes >= SEALED_BYTES


class Sealing:
    """The folder of sealed segments of one log, and the key that signs them."""

    def __init__(self, folder: Path, signer: Signer, box: str, blobs: BlobStore) -> None:
        self._folder, self._signer, self._box, self._blobs = folder, signer, box, blobs
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)

    def head(self) -> Head | None:
        """What was sealed last; None where nothing was. Raises LogDamaged."""
        known = read_head(self._folder)
        paths = sealed_paths(self._folder)
        if paths and (known is None or number_of(paths[-1]) > known.number):
            # Killed between the segment and its note.
            return self._note(head_of(paths[-1]))
        return known

    def seal(self, journal: Path, through: int, *, everything: bool) -> Iterator[tuple[Path, Manifest]]:
        """Seal what of the journal is not sealed yet, up to event `through`; each segment as it is made.

        A last one that is not full is left for later unless `everything` is wanted or it is urgent. Raises
        LogDamaged where the journal does not go on from what was sealed, StorageFailed.
        """
        head = self.head()
        batch = _Batch()
        for header, group, data in read_groups(journal, head.last_seq if head is not None else 0):
            if group.last_seq > through:
                break
            if batch.stored and header.lost and header.first_seq == group.first_seq:
                # The chain does not go on over what the log itself calls lost: it begins anew with a segment.
                head, made = self._write(batch, head)
                yield made
                batch = _Batch()
            if head is not None and not batch.stored:
                _require_joining(head, header, group)
            batch.add(header, group, data)
            if batch.full:
                head, made = self._write(batch, head)
                yield made
                batch = _Batch()
        if batch.stored and (everything or batch.urgent):
            yield self._write(batch, head)[1]

    def _write(self, batch: _Batch, head: Head | None) -> tuple[Head, tuple[Path, Manifest]]:
        assert batch.header is not None
        codec, body, unpacked_bytes = packed(batch.stored)
        manifest = Manifest(
            log_id=batch.header.log_id,
            number=head.number + 1 if head is not None else 0,
            previous=head.id if head is not None else NO_SEGMENT,
            link_before=batch.link_before,
            link_after=batch.link,
            codec=codec,
            body_digest=hashlib.sha256(body).digest(),
            body_bytes=len(body),
            unpacked_bytes=unpacked_bytes,
            event_format=FORMAT_VERSION,
            key=self._signer.public,
            box=self._box,
            release=VERSION,
            priority=URGENT if batch.urgent else ROUTINE,
            blueprints=tuple(batch.blueprints),
            blobs=tuple(self._sizes(batch)),
            losses=tuple(batch.losses),
            **batch.extent.fields(),
        )
        raw = manifest.encode()
        path = self._folder / f"{manifest.number:012d}{SUFFIX}"
        write_whole(path, sealed_bytes(raw, self._signer.sign(raw), body))
        made = Head(manifest.log_id, manifest.number, id_of(raw), manifest.last_seq, manifest.link_after)
        return self._note(made), (path, manifest)

    def _sizes(self, batch: _Batch) -> Iterator[tuple[bytes, int]]:
        for digest in batch.blobs:
            try:
                yield digest, os.stat(self._blobs.path(digest)).st_size
            except FileNotFoundError:
                continue  # an output that is made again, or went with the events that needed it

    def _note(self, head: Head) -> Head:
        said = encode([head.log_id, head.number, head.id, head.last_seq, head.link])
        write_whole(self._folder / HEAD_FILE, said)
        return head


def _require_joining(head: Head, header: SegmentHeader, group: OpenedGroup) -> None:
    if header.log_id != head.log_id:
        raise Misconfigured(
            f"The sealed segments are of log {head.log_id.hex()}, the journal is of {header.log_id.hex()}.",
            mend="Take away the folder `sealed` once what is in it has been delivered: a new log is sealed anew.",
        )
    lost = header.first_seq - header.lost <= head.last_seq + 1 and header.first_seq == group.first_seq
    if group.previous != head.link and not (header.lost and lost):
        raise LogDamaged(
            f"The journal does not go on from event {head.last_seq}, which is sealed: it is another history.",
            mend="Was the data folder put back from an older copy? Its events need a log of their own.",
        )


def read_head(folder: Path) -> Head | None:
    """What a folder of segments says was sealed last. Raises LogDamaged."""
    path = folder / HEAD_FILE
    try:
        log_id, number, segment, last_seq, link = decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LogDamaged(
            f"{path} cannot be read: {error}.", mend="Remove it where the newest segment is there."
        ) from error
    return Head(log_id, number, segment, last_seq, link)


def head_of(path: Path) -> Head:
    """A segment file as the newest one. Raises SegmentRejected."""
    with path.open("rb") as file:
        raw, _, _ = manifest_in(file.read(_START_BYTES))
    try:
        manifest = Manifest.decode(raw)
    except ValueError as error:
        raise LogDamaged(f"{path.name} cannot be read: {error}.") from error
    return Head(manifest.log_id, manifest.number, id_of(raw), manifest.last_seq, manifest.link_after)


def sealed_paths(folder: Path) -> list[Path]:
    """All segments of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def number_of(path: Path) -> int:
    """A segment's number, from its file's name."""
    return int(path.stem)
