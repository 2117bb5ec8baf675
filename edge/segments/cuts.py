"""Where a log was cut into segments: one record for each, in one file beside the queue, `sealed.cuts`.

    log id 8 | number 8 | last event 8 | id 32 | link 32
    of the one before: last event 8 | id 32 | link 32 | CRC-32 of all these 4         little-endian, 164 bytes

Each record also holds the cut before it: one that rots is known by the next.

A cut by time is in no journal. Who knows the cuts can seal a segment again that was lost or delivered, under its
number, with its bytes; and goes on after the last one, whatever became of the queue. Written by
`edge.segments.sealing`, each before its segment is named; read by whoever asks how far the log is sealed. It must
never be replaced but by `forget_before`.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from edge.core.codec import decode
from edge.core.errors import LogDamaged, StorageFailed
from edge.core.records import record
from edge.store.segment_file import flush_folder
from edge.store.whole_file import write_whole

SUFFIX: Final = ".cuts"
OLD_HEAD_FILE: Final = "head"
"""Where a box kept its newest cut before there was this file; it lay in the queue itself."""
_RECORD: Final = struct.Struct("<8sQQ32s32sQ32s32s")
RECORD_BYTES: Final = _RECORD.size + 4
#: Below that nothing is forgotten: some 1,600 cuts, half a month at one a quarter of an hour.
_KEPT_BYTES: Final = 256 * 1024


@record
class Cut:
    """Segment `number`: its id, its last event and the chain's link after that."""

    log_id: bytes
    number: int
    id: bytes
    last_seq: int
    link: bytes


class Cuts:
    """The cuts of the segments in a folder. Reads the file anew each time: another process writes it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the queue of sealed segments; the file lies beside it."""
        self._folder = folder
        self.path = folder.with_name(folder.name + SUFFIX)

    def all(self) -> dict[int, Cut]:
        """Every cut by number, in order; of two with one number the later record. Raises LogDamaged.

        A record that a power cut tore is as if it had never been: its segment was not named yet.
        """
        found: dict[int, Cut] = {}
        before: dict[int, Cut] = {}
        for previous, cut in _read(self.path):
            found[cut.number] = cut
            if previous is not None:
                before[previous.number] = previous
        found = before | found
        return {number: found[number] for number in sorted(found)}

    def __iter__(self) -> Iterator[Cut]:
        """Every record as it was noted, one at a time: a daemon looks for one among thousands. Raises LogDamaged."""
        return (cut for _, cut in _read(self.path))

    def add(self, cuts: Iterable[tuple[Cut | None, Cut]]) -> None:
        """Append cuts, each with the one before it; durable when this returns.

        Raises StorageFailed; then the file ends as it did.
        """
        data = b"".join(_packed(before, cut) for before, cut in cuts)
        if not data:
            return
        try:
            new = not self.path.exists()
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                size = os.fstat(fd).st_size
                end = size - size % RECORD_BYTES
                try:
                    if os.pwrite(fd, data, end) != len(data):
                        raise OSError(28, "No space left on device")
                    os.fdatasync(fd)
                except OSError:
                    os.ftruncate(fd, end)
                    raise
            finally:
                os.close(fd)
            if new:
                flush_folder(self.path.parent)
        except OSError as error:
            raise StorageFailed(f"{self.path} could not be written: {error.strerror}.") from error

    def forget_before(self, first_seq: int) -> None:
        """Let go of most cuts below the journal's first event, once there are very many. Raises StorageFailed.

        The last of them stays: it says where the first one that can be sealed again goes on from.
        """
        if not self.path.exists() or self.path.stat().st_size < _KEPT_BYTES:
            return
        cuts = list(self.all().values())
        below = sum(cut.last_seq < first_seq for cut in cuts)
        if 2 * below > len(cuts):
            kept = cuts[below - 1 :]
            write_whole(self.path, b"".join(map(_packed, (None, *kept[:-1]), kept)))


def read_head(folder: Path) -> Cut | None:
    """What was sealed last into a folder, by its cuts; None where nothing was. Raises LogDamaged."""
    newest: Cut | None = None
    for cut in Cuts(folder):
        if newest is None or cut.number >= newest.number:
            newest = cut
    return newest or old_head(folder)


def old_head(folder: Path) -> Cut | None:
    """The newest cut of a box that kept no others. Raises LogDamaged."""
    path = folder / OLD_HEAD_FILE
    try:
        log_id, number, segment, last_seq, link = decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LogDamaged(
            f"{path} cannot be read: {error}.", mend="Remove it where the newest segment is there."
        ) from error
    return Cut(log_id, number, segment, last_seq, link)


_NONE: Final = (0, bytes(32), bytes(32))


def _packed(before: Cut | None, cut: Cut) -> bytes:
    earlier = (before.last_seq, before.id, before.link) if before is not None else _NONE
    data = _RECORD.pack(cut.log_id, cut.number, cut.last_seq, cut.id, cut.link, *earlier)
    return data + zlib.crc32(data).to_bytes(4, "little")


def _read(path: Path) -> Iterator[tuple[Cut | None, Cut]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LogDamaged(
            f"{path} cannot be read: {error.strerror}.", mend="Look at the drive: `dmesg` says more."
        ) from error
    for at in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        body, crc = data[at : at + _RECORD.size], data[at + _RECORD.size : at + RECORD_BYTES]
        if zlib.crc32(body).to_bytes(4, "little") == crc:
            log_id, number, last_seq, segment, link, *earlier = _RECORD.unpack(body)
            before_seq, before_id, before_link = earlier
            before = Cut(log_id, number - 1, before_id, before_seq, before_link) if before_seq else None
            yield before, Cut(log_id, number, segment, last_seq, link)
