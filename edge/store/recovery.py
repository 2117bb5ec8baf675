"""Mending the journal: what is damaged or missing in it is taken from another home of the same groups.

Called by `edge log recover` and `edge log salvage`, and by the runtime when it starts, while nobody writes the log.
Groups are the same bytes in every home and each names the link it starts from, so a group is taken only where it
joins the chain.

Only segments that are damaged are written anew: first whole beside the old one, then flushed, then put in its place;
the old one is kept in a folder `damaged-…`. What no home holds is never closed over: the segment after the loss says
in its header how many numbers are missing (and `edge log salvage` writes a `gap` event). A chain that breaks where no
number is missing was changed by somebody: that is refused, never mended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from edge.core.chain import EPOCH_KEY_BYTES, GENESIS, OpenedGroup, open_group
from edge.core.errors import LogDamaged, StorageFailed
from edge.core.events import BootStopped
from edge.core.limits import SEGMENT_BYTES
from edge.core.records import record
from edge.core.retention_events import LogPruned
from edge.store.numbers import number_far_beyond, told_range
from edge.store.segment_file import (
    SegmentHeader,
    SegmentReader,
    flush_folder,
    group_frame,
    header_frame,
    prepare,
    segment_name,
    segment_paths,
)

StoredGroup = tuple[int, bytes, bytes]
"""A group in any home: `(first sequence number, epoch key, its bytes)`."""
Other = Callable[[int], Iterable[StoredGroup]]
"""Groups of another home that end at or above a sequence number, oldest first."""


@record
class Loss:
    """Sequence numbers `first` to `last` that no home holds."""

    first: int
    last: int

    def __str__(self) -> str:
        return told_range(self.first, self.last)


@record
class Piece:
    """A sound group that joins the chain: `link` is the chain's link after it, `own` says that the journal had it."""

    first_seq: int
    last_seq: int
    epoch_key: bytes
    data: bytes
    previous: bytes
    link: bytes
    own: bool


@dataclass(slots=True)
class Target:
    """A segment to be written: the groups that belong into it, oldest first; at least `size_bytes` large."""

    header: SegmentHeader
    pieces: list[Piece]
    size_bytes: int


@dataclass(slots=True)
class Plan:
    """What mending would do. `targets` are in order; `taken` counts events that come from the other home.

    `losses` are those that no segment's header names yet; `replaced` the files that are kept aside; `highest` is the
    highest number that was seen anywhere, mended or not.
    """

    log_id: bytes
    targets: list[Target] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    replaced: list[Path] = field(default_factory=list)
    taken: int = 0
    last_seq: int = 0
    highest: int = 0

    @property
    def nothing_to_do(self) -> bool:
        """True where the journal is whole and as long as the other home."""
        return not self.targets and not self.replaced


def make_plan(
    folder: Path, other: Other, log_id: bytes | None = None, *, other_has_end: bool = False
) -> Plan:
    """Read the whole journal beside the other home and say what would make it whole. Changes nothing.

    `log_id` is the other home's, `other_has_end` says that it is written in step with the journal. LogDamaged
    where the homes are of two logs, neither can be read, or the chain breaks though no number is missing.
    """
    paths = segment_paths(folder)
    starts = [int(path.stem) for path in paths]
    made = Plan(_log_id(paths, log_id), highest=max(starts, default=0))
    walk = _Walk(made, other, folder, other_has_end)
    first = next(iter(other(0)), None)
    beginning = min(([first[0]] if first is not None else []) + starts[:1], default=1)
    # Where the chain begins there was nothing before, though numbers may: a life that wrote nothing had them.
    whole = first is not None and open_group(first[0], first[2]).previous == GENESIS
    if beginning > 1 and not whole and not _was_pruned(paths, beginning):
        walk.seq = 1
    if first is not None and (not starts or first[0] < starts[0]):
        walk.mend(None, first[0], starts[0] if starts else None)
    for path, bound in zip_longest(paths, starts[1:]):
        if not walk.passes(path, bound):
            walk.mend(path, int(path.stem), bound)
    made.last_seq = walk.seq - 1
    made.highest = max(made.highest, made.last_seq)
    return made


def _was_pruned(paths: list[Path], beginning: int) -> bool:
    """Whether a log that begins with that number says itself that what was before it is pruned.

    It may have been stopped in the middle of pruning, and numbers may jump between what went and what is left.
    """
    previous = None
    for path in paths:
        try:
            reader = SegmentReader(path)
            previous = reader.header.previous if path == paths[0] else previous
            for frame in reader.all_frames():
                for event in open_group(frame.first_seq, frame.data).events():
                    said = event.body
                    if isinstance(said, LogPruned) and (
                        said.through >= beginning - 1 or said.link == previous
                    ):
                        return True
        except LogDamaged:
            continue
    return False


def _log_id(paths: list[Path], log_id: bytes | None) -> bytes:
    ids = {log_id} if log_id else set()
    for path in paths:
        try:
            ids.add(SegmentReader(path).header.log_id)
        except LogDamaged:
            continue
    if len(ids) > 1:
        raise LogDamaged(
            "Journal and index belong to different logs.", mend="Restore the folder that was exchanged."
        )
    if not ids:
        raise LogDamaged(
            "No header of the journal can be read, and there is no index to take its place.",
            mend="Put a copy of the data folder back, or move the folder away: the box then begins a new log.",
        )
    return ids.pop()


class _Walk:
    """Goes along the log, segment by segment: `seq` is the number that comes next, `link` the chain before it."""

    def __init__(self, made: Plan, other: Other, folder: Path, other_has_end: bool) -> None:
        self._plan, self._other, self._folder = made, other, folder
        self._other_has_end = other_has_end
        self.seq = 0
        self.link = b""
        self._lost = 0

    def passes(self, path: Path, bound: int | None) -> bool:
        """Go over a segment that is whole; False, and nothing done, where it is not."""
        try:
            reader = SegmentReader(path)
            seq, link, lost = reader.header.first_seq, reader.header.previous, reader.header.lost
            joins = link == self.link if not lost else seq - lost == self.seq
            if (self.link and (seq < self.seq or not joins)) or (self.seq == 1 and seq - lost != 1):
                return False
            for frame in reader.frames():
                group = open_group(frame.first_seq, frame.data)
                if not group.follows(seq - 1, link):
                    return False
                link = group.check(link, reader.header.epoch_key)
                seq = group.last_seq + 1
        except LogDamaged:
            return False
        if bound is None:
            beyond = next((group for group in self._other(seq) if group[0] >= seq), None)
            whole = beyond is None and reader.sound_frame_after() is None
        else:
            whole = self._leads_to(bound, seq, link) and reader.tail_is_clean()
        if whole:
            self.seq, self.link = seq, link
        return whole

    def mend(self, path: Path | None, first: int, bound: int | None) -> None:
        """Plan anew what a segment held, or a file that is gone: numbers from `first` to before `bound`."""
        reader = self._reader(path, first)
        found = self._candidates(reader, first, bound)
        if path is not None:
            self._plan.replaced.append(path)
        known = reader.header.lost if reader is not None and reader.own_header else 0
        if not self.seq:
            self.seq = first - known
        size_bytes = reader.size_bytes if reader is not None else SEGMENT_BYTES
        while True:
            if self.seq not in found:
                later = min((seq for seq in found if seq > self.seq), default=bound)
                if later is None:
                    self._lose_end(path, reader)
                    return
                if later == bound and self._leads_to(bound, self.seq, self.link):
                    return
                if any(piece.previous == (self.link or GENESIS) for piece in found.get(later, ())):
                    self.seq = later  # numbers jump, and the chain joins: nothing is lost between
                    continue
                self._lose(later, known_before=first if known == first - self.seq else None)
                if later == bound:
                    return
            joining = self._joining(found)
            if joining:
                self._take(joining[0], size_bytes)
            else:
                del found[self.seq]

    def _leads_to(self, bound: int, seq: int, link: bytes) -> bool:
        """Whether nothing unnamed is missing between number `seq`, where the chain is at `link`, and a segment."""
        reader = self._reader(self._folder / segment_name(bound), bound)
        if reader is None:
            return seq == bound
        return reader.header.previous == link or seq == bound - reader.header.lost

    def _lose_end(self, path: Path | None, reader: SegmentReader | None) -> None:
        """A last segment that nothing can be read of held nobody knows how much: the log goes on far beyond it.

        So did a journal that is gone as a whole, but where the index has all up to an end in order.
        """
        if reader is not None or self._other_has_end or (path is None and self._ended_in_order()):
            return
        beyond = number_far_beyond(max(self._plan.highest, self.seq))
        lost = self._lost + beyond - self.seq
        header = SegmentHeader(self._plan.log_id, beyond, self.link, os.urandom(EPOCH_KEY_BYTES), lost)
        self._plan.targets.append(Target(header, [], SEGMENT_BYTES))
        self._plan.losses.append(Loss(self.seq, beyond - 1))
        self.seq, self._lost = beyond, 0

    def _ended_in_order(self) -> bool:
        last = self._plan.targets[-1].pieces[-1] if self._plan.targets else None
        if last is None:
            return False
        return isinstance(open_group(last.first_seq, last.data).event(last.last_seq).body, BootStopped)

    def _lose(self, later: int, known_before: int | None) -> None:
        self._lost += later - self.seq
        if later > self.seq and known_before != later:
            self._plan.losses.append(Loss(self.seq, later - 1))
        self.seq = later

    def _joining(self, found: dict[int, list[Piece]]) -> list[Piece]:
        """The groups at `seq` that join the chain, the journal's own first; none where all are damaged copies."""
        joining = [
            piece for piece in found[self.seq] if not self.link or self._lost or piece.previous == self.link
        ]
        if not joining and any(piece.own for piece in found[self.seq]):
            raise LogDamaged(
                f"The chain breaks at event {self.seq}, though no event is missing: the log was changed by somebody.",
                mend="Compare it with what was uploaded before; it is not mended here.",
            )

        def leads_on(piece: Piece) -> bool:
            follow = found.get(piece.last_seq + 1)
            return follow is None or any(piece.link == after.previous for after in follow)

        # A copy that nothing sealed (the index has no checksums) is believed where what follows joins it.
        return [piece for piece in joining if leads_on(piece)] or [piece for piece in joining if piece.own]

    def _take(self, piece: Piece, size_bytes: int) -> None:
        """Put a group into the segment of its epoch key."""
        targets = self._plan.targets
        fresh = not targets or targets[-1].pieces[-1].link != piece.previous
        if fresh or self._lost or targets[-1].header.epoch_key != piece.epoch_key:
            header = SegmentHeader(self._plan.log_id, self.seq, piece.previous, piece.epoch_key, self._lost)
            targets.append(Target(header, [], size_bytes))
        targets[-1].pieces.append(piece)
        self._plan.taken += 0 if piece.own else piece.last_seq - piece.first_seq + 1
        self.seq, self.link, self._lost = piece.last_seq + 1, piece.link, 0

    def _reader(self, path: Path | None, first: int) -> SegmentReader | None:
        """The segment's reader; a header that is unreadable is made of what the other home has of its first group."""
        if path is None:
            return None
        try:
            return SegmentReader(path)
        except LogDamaged:
            group = next((group for group in self._other(first) if group[0] == first), None)
        if group is None:
            return None
        previous = open_group(first, group[2]).previous
        return SegmentReader(path, SegmentHeader(self._plan.log_id, first, previous, group[1]))

    def _candidates(
        self, reader: SegmentReader | None, first: int, bound: int | None
    ) -> dict[int, list[Piece]]:
        """Every sound group of the range, from both homes, by its first number; the journal's own come first."""
        found: dict[int, list[Piece]] = {}

        def note(first_seq: int, epoch_key: bytes, data: bytes, *, own: bool) -> None:
            try:
                group: OpenedGroup = open_group(first_seq, data)
                link = group.check(group.previous, epoch_key)
            except LogDamaged:
                return
            self._plan.highest = max(self._plan.highest, group.last_seq)
            piece = Piece(first_seq, group.last_seq, epoch_key, data, group.previous, link, own)
            if group.context.log_id != self._plan.log_id:
                return
            if first <= first_seq and (bound is None or group.last_seq < bound):
                found.setdefault(first_seq, []).append(piece)

        if reader is not None:
            for frame in reader.all_frames():
                note(frame.first_seq, reader.header.epoch_key, frame.data, own=True)
        for first_seq, epoch_key, data in self._other(first):
            if bound is not None and first_seq >= bound:
                break
            note(first_seq, epoch_key, data, own=False)
        return found


def carry_out(made: Plan, folder: Path, kept: Path) -> None:
    """Write the planned segments in place of the damaged ones, which stay in the folder `kept`. Raises StorageFailed.

    Killed at any point, the same again ends the same: a damaged file is replaced only after what it held is durable,
    and the file that a name already has is replaced last.
    """
    try:
        folder.mkdir(exist_ok=True, mode=0o750)
        kept.mkdir(parents=True, exist_ok=True, mode=0o750)
        for path in made.replaced:
            if not (kept / path.name).exists():
                os.link(path, kept / path.name)
        flush_folder(kept)
        flush_folder(kept.parent)
        for target in reversed(made.targets):
            _write_segment(target, folder)
        names = {segment_name(target.header.first_seq) for target in made.targets}
        for path in made.replaced:
            if path.name not in names:
                path.unlink()
        flush_folder(folder)
    except OSError as error:
        raise StorageFailed(f"The journal in {folder} could not be mended: {error.strerror}.") from error


def _write_segment(target: Target, folder: Path) -> None:
    made = folder / "mended.part"
    frames = [header_frame(target.header)]
    for piece in target.pieces:
        count = piece.last_seq - piece.first_seq + 1
        frames.append(group_frame(target.header, piece.first_seq, count, piece.data))
    prepare(made, max(target.size_bytes, sum(map(len, frames))))
    fd = os.open(made, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for data in frames:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(made, folder / segment_name(target.header.first_seq))
    flush_folder(folder)
