"""Sealing: groups of the journal become signed segments, one after the other, each naming the one before.

Called by the sealer's process (`edge.segments.sealer`), and by an export that wants delivered ones once more. The
folder of sealed segments is a queue that sync empties; where the log was cut stands beside it (`edge.segments.cuts`),
so that an empty queue goes on where it was, and a segment that was lost is sealed again as it was. Killed at any
point, the same again ends the same: a cut is noted first, then its segment is written whole beside, flushed, named.

It reads the journal's files and the blobs' sizes, never opens the index, and seals nothing above the number it is
given: what a runtime has not flushed yet must not be seen outside the box (design §4).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge import VERSION
from edge.core.chain import OpenedGroup
from edge.core.errors import LogDamaged, Misconfigured, SegmentRejected, StorageFailed
from edge.core.events import FORMAT_VERSION, URGENT_TYPES, Event, ExecutionRequested
from edge.core.limits import SEALED_BYTES, SEALED_EVENTS
from edge.security.signing import Signer
from edge.segments.columns import StoredGroup
from edge.segments.cuts import OLD_HEAD_FILE, Cut, Cuts, old_head
from edge.segments.extent import Extent
from edge.segments.manifest import NO_SEGMENT, ROUTINE, URGENT, Manifest, id_of
from edge.segments.packing import packed
from edge.segments.sealed import SUFFIX, manifest_in, sealed_bytes
from edge.store.blobs import BlobStore
from edge.store.index_rows import blobs_of
from edge.store.journal import read_groups
from edge.store.segment_file import SegmentHeader, log_id_of, segment_paths
from edge.store.upstream import Receipt
from edge.store.whole_file import write_whole

_START_BYTES: Final = 128 * 1024


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

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        box: str,
        blobs: BlobStore,
        receipt: Callable[[], Receipt | None] = lambda: None,
    ) -> None:
        """`receipt` reads what the centre has: that is not sealed again by itself where it is not in the folder."""
        self._folder, self._signer, self._box, self._blobs = folder, signer, box, blobs
        self._receipt, self._cuts = receipt, Cuts(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)

    def head(self) -> Cut | None:
        """What was sealed last; None where nothing was. Raises LogDamaged, StorageFailed.

        What the cuts do not say, since their file was lost, is taken from the folder and from the receipt.
        """
        cuts = self._cuts.all()
        newest = max(cuts, default=-1)
        for before, cut in self._found_elsewhere(newest):
            if cut.number > newest:
                self._cuts.add([(before, cut)])
                cuts[cut.number] = cut
        with contextlib.suppress(FileNotFoundError):
            (self._folder / OLD_HEAD_FILE).unlink()
        return cuts[max(cuts)] if cuts else None

    def _found_elsewhere(self, newest: int) -> Iterator[tuple[Cut | None, Cut]]:
        """Cuts beyond number `newest` of which others know, each with the one before it; perhaps one twice."""
        for path in sealed_paths(self._folder):
            if number_of(path) > newest:
                try:
                    said = manifest_of(path)
                except SegmentRejected as error:
                    raise LogDamaged(
                        error.message, mend="Move that file away: what it held is sealed again."
                    ) from error
                yield _before(said), _cut(said)
        if newest < 0 and (old := old_head(self._folder)) is not None:
            yield None, old
        if (has := self._receipt()) is not None and has.segment:
            yield None, Cut(has.log_id, has.number, has.segment, has.through, has.link)

    def seal(self, journal: Path, through: int, *, everything: bool) -> Iterator[tuple[Path, Manifest]]:
        """Seal what of the journal is not sealed yet, up to event `through`; each segment as it is made.

        A last one that is not full is left for later unless `everything` is wanted or it is urgent. What should be
        in the folder and is not comes after that. Raises LogDamaged where the journal does not go on from what was
        sealed, StorageFailed.
        """
        head = self.head()
        if head is not None and log_id_of(journal) not in (None, head.log_id):
            raise _other_log(head, log_id_of(journal) or b"")
        batch = _Batch()
        for header, group, data in read_groups(journal, head.last_seq if head is not None else 0):
            if group.last_seq > through:
                break
            if batch.stored and header.lost and header.first_seq == group.first_seq:
                # The chain does not go on over what the log itself calls lost: it begins anew with a segment.
                head, made = self._next(batch, head)
                yield made
                batch = _Batch()
            if head is not None and not batch.stored:
                _require_joining(head, header, group)
            batch.add(header, group, data)
            if batch.full:
                head, made = self._next(batch, head)
                yield made
                batch = _Batch()
        if batch.stored and (everything or batch.urgent):
            yield self._next(batch, head)[1]
        yield from self.seal_lost(journal, through)
        self._cuts.forget_before(_first_seq_of(journal))

    def seal_lost(self, journal: Path, through: int) -> Iterator[tuple[Path, Manifest]]:
        """Seal again what should be in the folder, up to event `through`. Raises LogDamaged, StorageFailed."""
        there = {number_of(path) for path in sealed_paths(self._folder)}
        # Read after the folder: what left the queue until then is in the receipt, which is noted first.
        receipt = self._receipt()
        receipted = receipt.through if receipt is not None else 0
        lost = [
            cut
            for cut in self._cuts.all().values()
            if cut.number not in there and receipted < cut.last_seq <= through
        ]
        for cut, manifest, data in self._again(journal, lost):
            if (made := _cut(manifest)) != cut:
                self._cuts.add([(_before(manifest), made)])
            yield self._write(manifest, data)

    def seal_delivered(self, journal: Path) -> Iterator[tuple[Manifest, bytes]]:
        """What the folder does not have any more, sealed once more as far back as the journal goes; writes nothing.

        Raises LogDamaged.
        """
        there = {number_of(path) for path in sealed_paths(self._folder)}
        gone = [cut for cut in self._cuts.all().values() if cut.number not in there]
        for _, manifest, data in self._again(journal, gone):
            yield manifest, data

    def _again(self, journal: Path, wanted: Iterable[Cut]) -> Iterator[tuple[Cut, Manifest, bytes]]:
        """Segments once more, by their cuts in order, as far as the journal has their events.

        Each is the same to the byte, but where another release wrote it: then its id is another, its events are not.
        """
        known, first_seq = self._cuts.all(), _first_seq_of(journal)
        due = [
            cut
            for cut in wanted
            if cut.last_seq >= first_seq and (cut.number == 0 or cut.number - 1 in known)
        ]
        if not due:
            return
        begins = {number + 1: cut.last_seq for number, cut in known.items()}
        groups = read_groups(journal, begins.get(due[0].number, 0))
        each = next(groups, None)
        for cut in due:
            batch, before = _Batch(), known.get(cut.number - 1)
            while each is not None and each[1].last_seq <= cut.last_seq:
                if each[1].first_seq > begins.get(cut.number, 0):
                    batch.add(*each)
                each = next(groups, None)
            if batch.link == cut.link:
                manifest, data = self._sealed(batch, before)
                if before is None or manifest.joins(before.last_seq, before.link):
                    known[cut.number] = _cut(manifest)
                    yield cut, manifest, data

    def _next(self, batch: _Batch, head: Cut | None) -> tuple[Cut, tuple[Path, Manifest]]:
        manifest, data = self._sealed(batch, head)
        made = _cut(manifest)
        self._cuts.add([(head, made)])
        return made, self._write(manifest, data)

    def _write(self, manifest: Manifest, data: bytes) -> tuple[Path, Manifest]:
        """Name a segment whose cut is noted."""
        path = self._folder / name_of(manifest.number)
        write_whole(path, data)
        return path, manifest

    def _sealed(self, batch: _Batch, before: Cut | None) -> tuple[Manifest, bytes]:
        """A segment's manifest and all its bytes."""
        assert batch.header is not None
        codec, body, unpacked_bytes = packed(batch.stored)
        manifest = Manifest(
            log_id=batch.header.log_id,
            number=before.number + 1 if before is not None else 0,
            previous=before.id if before is not None else NO_SEGMENT,
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
        return manifest, sealed_bytes(raw, self._signer.sign(raw), body)

    def _sizes(self, batch: _Batch) -> Iterator[tuple[bytes, int]]:
        for digest in batch.blobs:
            try:
                yield digest, os.stat(self._blobs.path(digest)).st_size
            except FileNotFoundError:
                continue  # an output that is made again, or went with the events that needed it


def _cut(manifest: Manifest) -> Cut:
    said = manifest
    return Cut(said.log_id, said.number, id_of(said.encode()), said.last_seq, said.link_after)


def _before(manifest: Manifest) -> Cut | None:
    """The cut before a segment, as it says itself; where a loss stands between, its last event is the lost one."""
    if manifest.number == 0:
        return None
    said = manifest
    return Cut(said.log_id, said.number - 1, said.previous, said.first_seq - 1, said.link_before)


def _first_seq_of(journal: Path) -> int:
    """The first number that a journal's files may hold; 0 where there are none."""
    return next((int(path.stem) for path in segment_paths(journal)), 0)


def _other_log(head: Cut, log_id: bytes) -> Misconfigured:
    return Misconfigured(
        f"The sealed segments are of log {head.log_id.hex()}, the journal is of {log_id.hex()}.",
        mend="Take away the folder `sealed` and the files `sealed.cuts` and `receipt` once what is in it has been "
        "delivered: a new log is sealed anew.",
    )


def _require_joining(head: Cut, header: SegmentHeader, group: OpenedGroup) -> None:
    if header.log_id != head.log_id:
        raise _other_log(head, header.log_id)
    lost = header.first_seq - header.lost <= head.last_seq + 1 and header.first_seq == group.first_seq
    if group.previous != head.link and not (header.lost and lost):
        raise LogDamaged(
            f"The journal does not go on from event {head.last_seq}, which is sealed: it is another history.",
            mend="Was the data folder put back from an older copy? Its events need a log of their own.",
        )


def manifest_of(path: Path) -> Manifest:
    """A segment file's manifest, its signature not looked at. Raises SegmentRejected, StorageFailed."""
    try:
        with path.open("rb") as file:
            raw, _, _ = manifest_in(file.read(_START_BYTES))
        return Manifest.decode(raw)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, SegmentRejected) as error:
        raise SegmentRejected(f"{path} cannot be read: {error}") from error


def cut_of(path: Path) -> Cut:
    """Where the log was cut for a segment, from its file. Raises SegmentRejected, StorageFailed."""
    return _cut(manifest_of(path))


def sealed_paths(folder: Path) -> list[Path]:
    """All segments of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def name_of(number: int) -> str:
    """The name of a segment's file, in a queue and in a bundle."""
    return f"{number:012d}{SUFFIX}"


def number_of(path: Path) -> int:
    """A segment's number, from its file's name."""
    return int(path.stem)
