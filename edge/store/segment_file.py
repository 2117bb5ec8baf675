"""One journal file: its header, its frames, its zero-filled room. Bytes only; knows nothing of events.

Called by `edge.store.journal` for writing and by verification for reading. A frame is
`magic(4) length(4) crc(4) first_seq(8) count(2)` little-endian, then `length` bytes. The checksum is seeded
with the log id, the segment's first sequence number and its epoch key, so that neither a frame left over from a
recycled file's earlier life nor one that somebody put into a payload can pass for one of this life.

Why zero-filled ahead: overwriting costs one flush and 4.4 KB to the drive for a 200 B event, growing
the file two flushes and 17 KB (measured on ext4, research/feasibility §2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.core.chain import EPOCH_KEY_BYTES
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged, StorageFailed, not_allowed
from edge.core.events import FORMAT_VERSION
from edge.core.limits import KIB, SEGMENT_BYTES

_FRAME: Final = struct.Struct("<4sIIQH")
FRAME_OVERHEAD_BYTES: Final = _FRAME.size
_HEADER_MAGIC: Final = b"NEh1"
_GROUP_MAGIC: Final = b"NEg1"
SUFFIX: Final = ".journal"
#: The file that becomes the next segment. Groups are written into it only under a segment's name.
SPARE: Final = "next.spare"
#: The same while it is filled with zeros.
SPARE_PART: Final = "next.spare.part"
_ZEROS: Final = bytes(256 * KIB)
#: A header frame takes some 110 bytes.
_HEADER_ROOM_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """First frame of a segment: what is needed to read the rest alone.

    `previous` is the chain's link before `first_seq`; `epoch_key` salts the bodies in this segment. `lost` is how
    many sequence numbers just before `first_seq` are lost and named as lost: the chain goes on from `previous` all
    the same.
    """

    log_id: bytes
    first_seq: int
    previous: bytes
    epoch_key: bytes
    lost: int = 0

    def encode(self) -> bytes:
        """CBOR array, led by the format version; `lost` stands at its end where there is a loss."""
        parts = [FORMAT_VERSION, self.log_id, self.first_seq, self.previous, self.epoch_key]
        return encode([*parts, self.lost] if self.lost else parts)

    @classmethod
    def decode(cls, data: bytes) -> SegmentHeader:
        """The header from its bytes. Raises ValueError where they are not of a known version."""
        parts = decode(data)
        if not isinstance(parts, list) or len(parts) not in (5, 6) or parts[0] != FORMAT_VERSION:
            raise ValueError("the segment has a format that this release does not know")
        made = cls(*parts[1:])
        if len(made.epoch_key) != EPOCH_KEY_BYTES:
            raise ValueError("the segment's epoch key is cut short")
        return made

    @property
    def seed(self) -> int:
        """Start value of every checksum in this segment.

        The epoch key is in it because log id and sequence numbers are public: nobody outside can write a
        payload that looks like a frame when a torn group is searched for what follows it.
        """
        return zlib.crc32(
            self.epoch_key, zlib.crc32(self.first_seq.to_bytes(8, "little"), zlib.crc32(self.log_id))
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One group as it stands in the file; `end` is the offset just after it."""

    first_seq: int
    count: int
    data: bytes
    offset: int
    end: int


def segment_name(first_seq: int) -> str:
    """The file's name; names sort as their sequence numbers do."""
    return f"{first_seq:020d}{SUFFIX}"


def segment_paths(folder: Path) -> list[Path]:
    """All segments of a journal, oldest first; none where there is no folder. Raises Misconfigured."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise not_allowed(folder) from error
    return sorted(folder / name for name in names if name.endswith(SUFFIX) and name[: -len(SUFFIX)].isdigit())


def files_bytes(folder: Path) -> int:
    """What the files of a folder and of those below it take. One that goes meanwhile counts as nothing."""
    size_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size_bytes += os.stat(f"{parent}/{name}").st_size
    return size_bytes


def header_of(path: Path) -> SegmentHeader:
    """A segment's header without the rest of it. Raises LogDamaged; FileNotFoundError where it is gone."""
    with path.open("rb", buffering=0) as file:
        start = file.read(_HEADER_ROOM_BYTES)
    try:
        return _header_in(start, path.name)[0]
    except ValueError as error:
        raise LogDamaged(f"The header of {path.name} cannot be read: {error}.") from error


def _header_in(start: bytes, name: str) -> tuple[SegmentHeader, int]:
    """Header of the segment of that name from the bytes it begins with, and where it ends. Raises ValueError."""
    if len(start) < _FRAME.size:
        raise ValueError(f"the file was cut to {len(start)} bytes")
    magic, length, crc, first_seq, _ = _FRAME.unpack_from(start)
    data = start[_FRAME.size : _FRAME.size + length]
    if magic != _HEADER_MAGIC or zlib.crc32(data) != crc:
        raise ValueError("its checksum is wrong")
    header = SegmentHeader.decode(data)
    if header.first_seq != first_seq or segment_name(first_seq) != name:
        raise ValueError("it belongs to another file")
    return header, _FRAME.size + length


def group_frame(header: SegmentHeader, first_seq: int, count: int, data: bytes) -> bytes:
    """A group as the bytes to write."""
    crc = zlib.crc32(data, zlib.crc32(struct.pack("<QH", first_seq, count), header.seed))
    return _FRAME.pack(_GROUP_MAGIC, len(data), crc, first_seq, count) + data


def header_frame(header: SegmentHeader) -> bytes:
    """A segment's first frame as the bytes to write."""
    data = header.encode()
    return _FRAME.pack(_HEADER_MAGIC, len(data), zlib.crc32(data), header.first_seq, 0) + data


def prepare(path: Path, size_bytes: int = SEGMENT_BYTES) -> None:
    """Write a file of zeros and flush it, over what a file of that name held. Raises StorageFailed.

    A file that is there already keeps its blocks: nothing has to be found room for. Leaves nothing half made.

    All of it is written, though it be a segment that was pruned or blocks that were only allocated. A frame of an
    earlier life would not be believed (the seed), but only zeros behind the last frame tell an end in order from a
    torn write (`tail_is_clean`), and only blocks that were written are overwritten at the price of one flush.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            left = size_bytes
            while left:
                left -= os.write(fd, _ZEROS[: min(left, len(_ZEROS))])
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        with contextlib.suppress(OSError):  # a drive that fails may fail here too: the first error is told
            path.unlink(missing_ok=True)
        raise StorageFailed(
            f"No room could be made for the journal in {path.parent}: {error.strerror}."
        ) from error


def create(spare: Path, folder: Path, header: SegmentHeader) -> tuple[int, int]:
    """Turn a prepared file into a segment: `(file descriptor, offset of the first group)`."""
    frame = header_frame(header)
    try:
        fd = os.open(spare, os.O_RDWR | os.O_CLOEXEC)
        if os.pwrite(fd, frame, 0) != len(frame):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(fd)
        os.rename(spare, folder / segment_name(header.first_seq))
        flush_folder(folder)
    except OSError as error:
        raise StorageFailed(
            f"The journal in {folder} could not start a segment: {error.strerror}."
        ) from error
    return fd, len(frame)


def log_id_of(folder: Path) -> bytes | None:
    """The log that a journal or mirror is of, None where no header can be read. Raises OSError."""
    for path in reversed(segment_paths(folder)):
        with contextlib.suppress(LogDamaged):
            return header_of(path).log_id
    return None


def nameless(folder: Path) -> SegmentReader | None:
    """The newest segment where it lost its name and lies in the spare file, None where nothing of the kind does.

    Its rename was flushed before its first group was written. But that stands in the file system's own journal, and a
    flash block that is torn there takes with it what was durable, of journal and mirror alike where both are on one
    drive (`tests/faults/test_power_cuts.py`: 60 events told, lost from both). A spare that holds a sound group tells.
    Reads only, and beside a live runtime finds nothing: groups are not written under this name. Raises OSError.
    """
    paths = segment_paths(folder)
    # It was made under the one name and waited under the other: both renames may be undone.
    found = (_nameless(folder / name, paths[-1:]) for name in (SPARE, SPARE_PART))
    return next((reader for reader in found if reader is not None), None)


def _nameless(spare: Path, newest: list[Path]) -> SegmentReader | None:
    try:
        with spare.open("rb", buffering=0) as file:
            magic, _, _, first_seq, _ = _FRAME.unpack(file.read(_FRAME.size).ljust(_FRAME.size, b"\0"))
        if magic != _HEADER_MAGIC or any(first_seq <= int(path.stem) for path in newest):
            return None
        reader = SegmentReader(spare, name=segment_name(first_seq))
        logs = {header_of(path).log_id for path in newest}
    except (LogDamaged, FileNotFoundError):
        return None
    return reader if next(reader.frames(), None) is not None and logs <= {reader.header.log_id} else None


def name_again(folder: Path) -> str:
    """Give the newest segment its name where it lost it: which, "" for none. Raises OSError.

    For whoever has the folder alone: the file may be the next segment's.
    """
    reader = nameless(folder)
    if reader is None:
        return ""
    name = segment_name(reader.header.first_seq)
    os.rename(reader.path, folder / name)
    flush_folder(folder)
    return name


def rewrite(path: Path, data: bytes, size_bytes: int) -> int:
    """Put a segment's bytes into a new file, zeros behind, in place of the old one; durable. Its file descriptor.

    Raises OSError, StorageFailed; then the old file is as it was.
    """
    made = path.with_name("rewritten.part")
    prepare(made, size_bytes)
    fd = os.open(made, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.pwrite(fd, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
        os.rename(made, path)
        flush_folder(path.parent)
    except OSError:
        os.close(fd)
        raise
    return fd


def flush_folder(folder: Path) -> None:
    """Make the folder's own entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_whole(path: Path) -> bytes:
    """A file's bytes. FileNotFoundError where the name leads elsewhere by the end: the file is another's by then."""
    with path.open("rb", buffering=0) as file:
        data = file.readall()
        if os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return data


class SegmentReader:
    """Reads one segment from front to back."""

    def __init__(self, path: Path, header: SegmentHeader | None = None, name: str = "") -> None:
        """Raises LogDamaged where the header cannot be read, Misconfigured where the file may not be.

        FileNotFoundError where it is gone, or goes while it is read: it was pruned. A `header` known from elsewhere
        is taken in place of one that cannot be read. `name` is the segment's where it lies under another one.
        """
        self.path = path
        #: False where the file's own header cannot be read.
        self.own_header = True
        try:
            self._bytes = _read_whole(path)
        except PermissionError as error:
            raise not_allowed(path) from error
        try:
            self.header, self.start = _header_in(self._bytes, name or path.name)
        except ValueError as error:
            if header is None:
                raise LogDamaged(
                    f"The header of {path.name} cannot be read: {error}.",
                    mend="Run `edge log recover`: it takes what is damaged from the other home.",
                ) from error
            self.header, self.start, self.own_header = header, 0, False
        #: Offset where the last sound frame ended, once `frames` has been exhausted.
        self.end = self.start
        #: Where that frame begins; 0, with the header, where there is none.
        self.last_offset = 0

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return len(self._bytes)

    def read(self, start: int, end: int) -> bytes:
        """Bytes of the file as they were when it was opened."""
        return self._bytes[start:end]

    def frames(self) -> Iterator[Frame]:
        """Sound frames in order, up to the first place that holds none."""
        offset = self.end = self.start
        while (frame := self._frame_at(offset)) is not None:
            yield frame
            offset = self.end = frame.end
            self.last_offset = frame.offset

    def all_frames(self) -> Iterator[Frame]:
        """Sound frames in order, those behind damage as well."""
        yield from self.frames()
        while (frame := self.sound_frame_after()) is not None:
            while frame is not None:
                yield frame
                self.end = frame.end
                frame = self._frame_at(self.end)

    def _frame_at(self, offset: int) -> Frame | None:
        if offset + _FRAME.size > len(self._bytes):
            return None
        magic, length, crc, first_seq, count = _FRAME.unpack_from(self._bytes, offset)
        end = offset + _FRAME.size + length
        if magic != _GROUP_MAGIC or end > len(self._bytes):
            return None
        data = self._bytes[offset + _FRAME.size : end]
        if zlib.crc32(data, zlib.crc32(struct.pack("<QH", first_seq, count), self.header.seed)) != crc:
            return None
        return Frame(first_seq, count, data, offset, end)

    def tail_is_clean(self) -> bool:
        """True where only zeros follow the last sound frame."""
        return not any(self._bytes[self.end :].lstrip(b"\x00"))

    def sound_frame_after(self) -> Frame | None:
        """A sound frame beyond the first unsound place: then that place is damage, not a torn tail."""
        offset = self._bytes.find(_GROUP_MAGIC, self.end + 1)
        while offset >= 0:
            frame = self._frame_at(offset)
            if frame is not None:
                return frame
            offset = self._bytes.find(_GROUP_MAGIC, offset + 1)
        return None
