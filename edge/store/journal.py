"""The journal: the first home of the event log. Append-only, one fdatasync for each group.

Owned by the runtime's journal thread (`write`); opened once at start. Opening finds the sound end, makes it
durable before anyone acts on it (what a killed process left may be in the page cache only), and clears a
torn tail: that group was never acknowledged. Damage before the end is never skipped: it is refused by
name, for `edge log verify` to show.

Sequence numbers are never used twice. A life that did not end in order, or in an earlier boot of the machine, is
followed by a jump (`begin_life`): what it gave out and lost, nobody can know. The chain goes on over the jump, which
proves that no event stood between (DESIGN.md).

After a write or flush that failed the journal is closed for good: the kernel may call lost pages clean, so
the process must end, and the next one starts from what really is on the drive (design §4, Errors).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from edge.core.chain import EPOCH_KEY_BYTES, GENESIS, Group, OpenedGroup, open_group
from edge.core.errors import LogDamaged, StorageFailed
from edge.core.events import BootStopped
from edge.core.limits import SEGMENT_BYTES
from edge.store import segment_file
from edge.store.mirror import Mirror
from edge.store.numbers import number_beyond, number_far_beyond, told_range
from edge.store.reserve import allocate
from edge.store.segment_file import FRAME_OVERHEAD_BYTES, Frame, SegmentHeader, SegmentReader

logger = logging.getLogger(__name__)

#: At the end of the newest segment, checked at each opening: what a torn or doubled write could have left there.
_CHECKED_GROUPS = 64


class Journal:
    """The open journal. `last_seq` and `last_link` say where the chain ends, `next_seq` what the next event is."""

    def __init__(
        self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, mirror: Mirror | None = None
    ) -> None:
        """Open or start a journal. Raises LogDamaged, StorageFailed; Misconfigured for the mirror of another log."""
        self._folder, self._mirror = folder, mirror
        self._segment_bytes = segment_bytes
        self._failed = False
        #: As in `edge.store.blobs`.
        self.make_room: Callable[[int], bool] = lambda size_bytes: False
        self._spare_thread: threading.Thread | None = None
        #: Held to begin a spare file, and to put a retired segment in its place.
        self._spare_lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self.last_seq, self.next_seq = 0, 1
        self.last_link = GENESIS
        #: The boot that wrote the last group, and whether that ended the log in order.
        self._last_boot, self._in_order = b"", False
        self._mirror_seen = True
        #: `(first, last)` of the numbers in which told events may be lost: a mirror is there to tell, and did not.
        self.unproved: tuple[int, int] | None = None
        self._fd, self._offset = -1, 0
        self._header: SegmentHeader | None = None
        try:
            named = segment_file.name_again(folder)
        except OSError as error:
            raise StorageFailed(f"{folder} could not be read: {error.strerror}.") from error
        if named:
            logger.warning("%s had lost its name to a torn block of the drive: it has it again.", named)
        paths = segment_file.segment_paths(folder)
        self._fresh = not paths
        if paths:
            self._open_last(paths[-1])
        else:
            self._start_segment(os.urandom(8))
        if mirror is not None:
            mirror.follow(folder)

    @property
    def folder(self) -> Path:
        """Where the segments are."""
        return self._folder

    @property
    def mirror_state(self) -> str:
        """Of the second place: "off", "written", or why it is not written now."""
        if self._mirror is None:
            return "off"
        return self._mirror.problem or "written"

    @property
    def log_id(self) -> bytes:
        """The id of this log, 8 bytes, made at random when it was started."""
        return self.header.log_id

    @property
    def header(self) -> SegmentHeader:
        """Header of the segment being written."""
        assert self._header is not None
        return self._header

    def _open_last(self, path: Path) -> None:
        reader = SegmentReader(path)
        group, link = _end_of(reader)
        seq = group.last_seq if group is not None else reader.header.first_seq - 1
        beyond = reader.sound_frame_after()
        if beyond is not None:
            raise LogDamaged(
                f"{path.name} is damaged from byte {reader.end} to {beyond.offset}: "
                f"{told_range(seq + 1, beyond.first_seq - 1)} cannot be read.",
                mend="Run `edge log recover`: it takes what is damaged from the other home.",
            )
        if self._mirror is not None:
            self._mirror_seen = self._mirror.require_no_longer(reader.header.log_id, seq)
        try:
            self._fd = self._make_durable(path, reader)
        except OSError as error:
            raise StorageFailed(f"{path.name} could not be opened for writing: {error.strerror}.") from error
        if group is not None and reader.tail_is_clean():
            self._in_order = isinstance(group.event(group.last_seq).body, BootStopped)
        self._header, self._offset = reader.header, reader.end
        self._last_boot = group.context.boot_id if group is not None else b""
        self.last_seq, self.last_link, self.next_seq = seq, link, seq + 1

    def begin_life(self, boot: bytes, above: int = 0) -> None:
        """Let numbers go on where nobody can have been given them; to be called once, before the first write.

        What this very `boot` of the machine wrote last is all there, whatever the drive is like: numbers go on after
        an end in order, and jump over what may have been given out in memory after any other. What an earlier boot
        wrote may have lost its end, and so has the log where a higher number was seen elsewhere (`above`): they jump
        far.
        """
        if self._fresh:
            return
        if self._last_boot != boot or above > self.last_seq:
            proved = self._in_order or self._mirror_seen
            self.next_seq = number_far_beyond(max(self.last_seq, above))
            self.unproved = None if proved else (self.last_seq + 1, self.next_seq - 1)
        elif not self._in_order:
            self.next_seq = number_beyond(self.last_seq)

    def _make_durable(self, path: Path, reader: SegmentReader) -> int:
        """The open file, all that was read of it surely on the drive, zeros behind. Raises OSError, StorageFailed."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Where the last flush failed, the kernel may hold that frame as clean though the drive never got it:
            # flushing again would do nothing. Written again, it is dirty again, and this flush tells the truth.
            self._pwrite(fd, reader.read(reader.last_offset, reader.end), reader.last_offset)
            if not reader.tail_is_clean():
                self._pwrite(fd, bytes(reader.size_bytes - reader.end), reader.end)
            os.fdatasync(fd)
        except OSError:
            os.close(fd)
            # This place of the drive takes nothing any more: all of it goes to another, before anything is told.
            return segment_file.rewrite(path, reader.read(0, reader.end), reader.size_bytes)
        return fd

    @staticmethod
    def _pwrite(fd: int, data: bytes, offset: int) -> None:
        written = os.pwrite(fd, data, offset)
        if written != len(data):
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were written")

    def _start_segment(self, log_id: bytes) -> None:
        header = SegmentHeader(log_id, self.next_seq, self.last_link, os.urandom(EPOCH_KEY_BYTES))
        spare = self._folder / segment_file.SPARE
        self._wait_for_spare()
        if not spare.exists() or spare.stat().st_size != self._segment_bytes:
            try:
                self._make_spare(spare)
            except StorageFailed:
                if not self.make_room(self._segment_bytes):
                    raise
                self._make_spare(spare)
        fd, offset = segment_file.create(spare, self._folder, header)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._offset, self._header = fd, offset, header

    def _make_spare(self, spare: Path) -> None:
        made = self._folder / segment_file.SPARE_PART
        segment_file.prepare(made, self._segment_bytes)
        try:
            made.rename(spare)
        except OSError as error:
            raise StorageFailed(f"The journal could not start a segment: {error.strerror}.") from error

    def hold_next(self) -> None:
        """See that there is room on the drive for the next file, long before it is filled with zeros."""
        made, spare = self._folder / segment_file.SPARE_PART, self._folder / segment_file.SPARE
        with self._spare_lock:
            if self._spare_thread is not None or spare.exists() or made.exists():
                return
            # No room now, or none to be had this way: the next look tries again.
            with contextlib.suppress(OSError):
                fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
                try:
                    allocate(fd, 0, self._segment_bytes)
                finally:
                    os.close(fd)

    def has_room_for(self, size_bytes: int) -> bool:
        """True where a group of that many bytes still fits the open segment."""
        return self._offset + FRAME_OVERHEAD_BYTES + size_bytes <= self._segment_bytes

    def roll(self) -> None:
        """Close the full segment and go on in a new one. Raises StorageFailed, and then takes nothing more."""
        try:
            self._start_segment(self.header.log_id)
        except StorageFailed:
            self._failed = True
            raise
        if self._mirror is not None:
            self._mirror.begin(self.header, self._segment_bytes, self._folder)

    def write(self, group: Group) -> None:
        """Append one group and flush it: durable when this returns. Called on the journal thread only.

        Raises StorageFailed; after that the journal takes nothing more.
        """
        if self._failed:
            raise StorageFailed(
                "The journal failed before and takes nothing more until the runtime restarts."
            )
        assert group.first_seq == self.next_seq, (group.first_seq, self.next_seq)
        frame = segment_file.group_frame(self.header, group.first_seq, len(group.links), group.data)
        assert self._offset + len(frame) <= self._segment_bytes
        try:
            self._pwrite(self._fd, frame, self._offset)
            os.fdatasync(self._fd)
        except OSError as error:
            self._failed = True
            raise StorageFailed(f"The journal could not be flushed: {error.strerror}.") from error
        if self._mirror is not None:
            self._mirror.write(frame, self._offset)
        self._offset += len(frame)
        self.last_seq, self.last_link = group.last_seq, group.links[-1]
        self.next_seq = group.last_seq + 1
        if self._offset > self._segment_bytes // 2 and self._spare_thread is None:
            self._prepare_spare()

    def _prepare_spare(self) -> None:
        """Fill the next file ahead, beside the writing, so that a change of segment costs one rename."""
        if self._mirror is not None:
            self._mirror.prepare(self._segment_bytes)
        spare = self._folder / segment_file.SPARE
        if spare.exists():
            return

        def prepare() -> None:
            made = self._folder / segment_file.SPARE_PART
            try:
                segment_file.prepare(made, self._segment_bytes)
                made.rename(spare)
            except (StorageFailed, OSError):
                return  # rolling over tries again and reports it

        with self._spare_lock:
            self._spare_thread = threading.Thread(target=prepare, name="journal-spare", daemon=True)
            self._spare_thread.start()

    def retire(self, path: Path) -> None:
        """Take a segment out of the log that was pruned: the next spare file is made of it, of several the last.

        Durable when this returns; called for the oldest segment only, off the loop. Raises StorageFailed. Somebody
        who reads the file meanwhile notices (`SegmentReader`).
        """
        made = self._folder / segment_file.SPARE_PART
        try:
            with self._spare_lock:
                thread = self._spare_thread
                # A damaged file that was kept aside may share its bytes with this one.
                wanted = (thread is None or not thread.is_alive()) and path.stat().st_nlink == 1
                if wanted:
                    path.rename(made)
                else:
                    path.unlink()
                # Before anything is written over it: else a power cut brings it back under its old name.
                segment_file.flush_folder(self._folder)
        except FileNotFoundError:
            return  # gone already
        except OSError as error:
            raise StorageFailed(f"{path.name} could not be taken out: {error.strerror}.") from error

    def _wait_for_spare(self) -> None:
        if self._spare_thread is not None:
            self._spare_thread.join()
            self._spare_thread = None

    def close(self) -> None:
        """Close the file. What was written is durable already."""
        self._wait_for_spare()
        if self._mirror is not None:
            self._mirror.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _end_of(reader: SegmentReader) -> tuple[OpenedGroup | None, bytes]:
    """The last sound group of a segment, None where it has none, and the chain's link there. Raises LogDamaged.

    Checksums and numbers are looked at from the first frame on, the chain where numbers jump and over the last
    groups: all of a full segment would take most of a second. What is in the index was checked on its way there, what
    is not is checked when it goes there (`catch_up`), and everything by `edge log verify`.
    """
    header = reader.header
    seq, tail = header.first_seq - 1, deque[Frame](maxlen=_CHECKED_GROUPS)
    for frame in reader.frames():
        if frame.first_seq != seq + 1:
            link = _link_after(tail[-1], header) if tail else header.previous
            if not open_group(frame.first_seq, frame.data).follows(seq, link):
                raise LogDamaged(
                    f"{reader.path.name}: event {seq + 1} is missing before event {frame.first_seq}."
                )
        seq = frame.first_seq + frame.count - 1
        tail.append(frame)
    group: OpenedGroup | None = None
    link = header.previous
    for frame in tail:
        following = open_group(frame.first_seq, frame.data)
        if group is None and frame.offset != reader.start:
            link = following.previous
        group, link = following, following.check(link, header.epoch_key)
    return group, link


def _link_after(frame: Frame, header: SegmentHeader) -> bytes:
    group = open_group(frame.first_seq, frame.data)
    return group.check(group.previous, header.epoch_key)


def last_seq_in(folder: Path) -> int:
    """The last event of a journal's files, 0 where there is none; it may not be durable yet. Raises LogDamaged."""
    for path in segment_file.segment_paths(folder)[-1:]:
        reader = SegmentReader(path)
        last_seq = reader.header.first_seq - 1
        for frame in reader.frames():
            last_seq = frame.first_seq + frame.count - 1
        return last_seq
    return 0


def read_groups(folder: Path, after_seq: int = 0) -> Iterator[tuple[SegmentHeader, OpenedGroup, bytes]]:
    """Every sound group that ends above `after_seq`, oldest first, with its segment's header and its bytes.

    Reads files only, so it may run beside a live runtime: it then ends at the last group that was whole.
    The chain is checked only where numbers jump. Raises LogDamaged where the log cannot be read on, never ends before
    its end.
    """
    paths = segment_file.segment_paths(folder)
    firsts = [int(path.stem) for path in paths]
    seq = 0
    link_before: Callable[[], bytes] = bytes
    for index, path in enumerate(paths):
        if index + 1 < len(paths) and firsts[index + 1] <= after_seq + 1:
            continue
        try:
            reader = SegmentReader(path)
        except FileNotFoundError:
            if seq:
                raise LogDamaged(
                    f"{path.name} was pruned while the log was read.", mend="Run the command again."
                ) from None
            continue  # the log begins later than a moment ago
        header = reader.header
        before = header.first_seq - header.lost - 1
        if seq and before != seq and header.previous != link_before():
            raise _cannot_be_read(path, seq + 1, before)
        seq = header.first_seq - 1
        link_before = partial(bytes, header.previous)
        for frame in reader.frames():
            group = open_group(frame.first_seq, frame.data)
            if frame.first_seq != seq + 1 and not group.follows(seq, link_before()):
                raise _cannot_be_read(path, seq + 1, frame.first_seq - 1)
            seq = group.last_seq
            link_before = partial(group.check, group.previous, header.epoch_key)
            if seq > after_seq:
                yield header, group, frame.data
        beyond = reader.sound_frame_after()
        if beyond is not None:
            raise _cannot_be_read(path, seq + 1, beyond.first_seq - 1)


def _cannot_be_read(path: Path, first: int, last: int) -> LogDamaged:
    return LogDamaged(
        f"{path.name}: {told_range(first, last)} cannot be read.",
        mend="Stop the box and run `edge log recover`: it takes what is damaged from the other home.",
    )
