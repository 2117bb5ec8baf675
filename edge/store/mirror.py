"""The journal's mirror: the same files with the same bytes in a second place, for drives that tear whole blocks.

Owned by the journal, which hands on each group that it has flushed itself: the two places are never written at once,
so a block torn under one leaves the other as it was. A group counts as durable once both have it.

The mirror may be missing, full or slow, and the box goes on without it: what was accepted is in the journal. It says
so (`problem`, and in the service's log), and the mirror comes back by itself: at each new segment and at each start
it is brought up to date. It must never be taken for the journal: where it has more, the journal has lost its end, and
`edge log recover` takes that from here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from edge.core.chain import open_group
from edge.core.errors import LogDamaged, Misconfigured, StorageFailed
from edge.core.limits import KIB, MIRROR_PATIENCE_S
from edge.store import segment_file
from edge.store.segment_file import SegmentHeader, SegmentReader

logger = logging.getLogger(__name__)

_PIECE_BYTES: Final = 64 * KIB


class Mirror:
    """The second place. `problem` says why it is not written now, "" where it is."""

    def __init__(self, folder: Path, patience_s: float = MIRROR_PATIENCE_S) -> None:
        self.folder = folder
        self.problem = ""
        self._patience_s = patience_s
        self._file: _File | None = None
        self._thread: _Worker | None = None
        #: Held by what makes files. What was given up on may still be at it: then nobody else begins.
        self._making = threading.Lock()

    @property
    def there(self) -> bool:
        """Whether there is anything of a log in it."""
        with contextlib.suppress(OSError):
            return end_of(self.folder) is not None
        return False

    def require_no_longer(self, log_id: bytes, last_seq: int) -> bool:
        """See that the journal, which ends at `last_seq`, has all that is here; False where its end cannot be read.

        Raises LogDamaged, Misconfigured.
        """
        try:
            segment_file.name_again(self.folder)
            end = end_of(self.folder)
        except OSError:
            return False  # not there: `follow` says so
        if end is None:
            return False
        if end.log_id != log_id:
            raise another_logs(self.folder)
        if end.last_seq > last_seq:
            raise LogDamaged(
                f"The journal ends at event {last_seq}, its mirror at {end.last_seq}: the journal lost its end.",
                mend="Run `edge log recover`: it takes what is damaged from the other home.",
            )
        return end.is_newest

    def follow(self, journal: Path) -> None:
        """Bring it up to date with the journal's files as they are, and go on in the last one. Never raises."""
        self.close()
        self._do(lambda: self._follow(journal))

    def begin(self, header: SegmentHeader, size_bytes: int, journal: Path) -> None:
        """Begin a segment that the journal has begun; where the mirror is away, bring it back. Never raises."""
        if self.problem:
            self.follow(journal)
        else:
            self._do(lambda: self._begin(header, size_bytes, journal))

    def write(self, frame: bytes, offset: int) -> None:
        """Write a frame that the journal has flushed, and flush it. Never raises."""
        file = self._file
        if not self.problem and file is not None:
            self._do(lambda: self._write(file, frame, offset))

    def prepare(self, size_bytes: int) -> None:
        """Make room for the next segment ahead, beside all else."""
        if not self.problem:
            threading.Thread(
                target=self._prepare, args=(size_bytes,), name="mirror-spare", daemon=True
            ).start()

    def close(self) -> None:
        """Let go of the file."""
        if self._thread is not None:
            self._thread.end()
        self._thread = self._file = None

    def _do(self, job: Callable[[], _File | None]) -> None:
        """Run a job on the mirror's thread, so that a drive that hangs does not take the journal along."""
        self._thread = self._thread or _Worker()
        try:
            opened = self._thread.run(job, self._patience_s)
        except TimeoutError:
            self._lose(f"it took more than {self._patience_s:g} s")
        except OSError as error:
            self._lose(error.strerror or str(error))
        except StorageFailed as error:
            self._lose(error.message)
        else:
            self._file = opened or self._file
            if self.problem:
                logger.warning("The journal's mirror in %s is written again.", self.folder)
            self.problem = ""

    def _lose(self, problem: str) -> None:
        # Its thread may hang in a call: it keeps its file open, and nothing here makes use of either any more.
        self._thread = self._file = None
        if not self.problem:
            logger.critical(
                "The journal's mirror in %s is not written any more: %s. The box goes on with the journal alone, and "
                "tries the mirror again with each new segment.",
                self.folder,
                problem,
            )
        self.problem = problem

    # ---- jobs ------------------------------------------------------------------------------------------

    def _write(self, file: _File, frame: bytes, offset: int) -> None:
        if os.pwrite(file.fd, frame, offset) != len(frame):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(file.fd)

    def _prepare(self, size_bytes: int) -> None:
        # What goes wrong here is tried again, and said, when the segment begins.
        with contextlib.suppress(StorageFailed, OSError):
            if not (self.folder / segment_file.SPARE).exists():
                made = self.folder / segment_file.SPARE_PART
                segment_file.prepare(made, size_bytes)
                made.rename(self.folder / segment_file.SPARE)

    def _begin(self, header: SegmentHeader, size_bytes: int, journal: Path) -> _File:
        with self._alone():
            spare = self.folder / segment_file.SPARE
            if not spare.exists() or spare.stat().st_size != size_bytes:
                segment_file.prepare(spare, size_bytes)
            fd, _ = segment_file.create(spare, self.folder, header)
            self._drop_pruned(journal)
            return _File(fd)

    def _follow(self, journal: Path) -> _File:
        with self._alone():
            self.folder.mkdir(exist_ok=True, mode=0o750)
            paths = segment_file.segment_paths(journal)
            end = end_of(self.folder)
            if end is not None and end.log_id != SegmentReader(paths[-1]).header.log_id:
                raise OSError(errno.EEXIST, "it holds the files of another log")
            # Only the newest that is there may lack its end: what is newer is copied in order, each whole or not.
            newest = max((path.name for path in segment_file.segment_paths(self.folder)), default="")
            for path in paths:
                copy = self.folder / path.name
                if not copy.exists() or copy.stat().st_size != path.stat().st_size:
                    _copy(path, copy)
                elif path == paths[-1] or (path.name == newest and _is_whole(path)):
                    patch(path, copy)
            self._drop_pruned(journal)
            return _File(os.open(self.folder / paths[-1].name, os.O_RDWR | os.O_CLOEXEC))

    def _drop_pruned(self, journal: Path) -> None:
        """What the journal pruned goes here, too. Of a journal that is empty nothing is believed."""
        first = next(iter(segment_file.segment_paths(journal)), None)
        for path in segment_file.segment_paths(self.folder):
            if first is not None and path.name < first.name:
                path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._making.acquire(blocking=False):
            raise OSError(errno.EBUSY, "it is still being brought up to date")
        try:
            yield
        finally:
            self._making.release()


def another_logs(folder: Path | None) -> Misconfigured:
    """What to say of a mirror that is not this log's: nothing of it may be changed."""
    return Misconfigured(
        f"The mirror in {folder} is another log's.",
        mend="Name another folder (journal_mirror in edge.toml), or take away what is in this one.",
    )


def restore(journal: Path, folder: Path) -> int:
    """Make a mirror the same as a journal that is whole; how many files were not. Raises StorageFailed."""
    changed = 0
    paths = segment_file.segment_paths(journal)
    names = {path.name for path in paths}
    try:
        folder.mkdir(exist_ok=True, mode=0o750)
        for path in segment_file.segment_paths(folder):
            if path.name not in names:  # mending put what it held into files of other names
                path.unlink()
                changed += 1
        for path in paths:
            copy = folder / path.name
            if not copy.exists() or copy.stat().st_size != path.stat().st_size:
                _copy(path, copy)
                changed += 1
            else:
                changed += bool(patch(path, copy))
    except OSError as error:
        raise StorageFailed(f"The mirror in {folder} cannot be written: {error.strerror}.") from error
    return changed


def _copy(path: Path, copy: Path) -> None:
    made = copy.with_name("copied.part")
    with made.open("wb", buffering=0) as file:
        for piece in _pieces(path):
            if file.write(piece) != len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    made.rename(copy)
    segment_file.flush_folder(copy.parent)


def _is_whole(path: Path) -> bool:
    try:
        reader = SegmentReader(path)
    except LogDamaged:
        return False
    for _ in reader.frames():
        pass
    return reader.tail_is_clean()


def patch(path: Path, copy: Path) -> int:
    """Make the bytes of a copy those of a file of the same size, in place; how many pieces differed. OSError."""
    changed = 0
    fd = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
    try:
        for place, piece in enumerate(_pieces(path)):
            if os.pread(fd, len(piece), place * _PIECE_BYTES) != piece:
                os.pwrite(fd, piece, place * _PIECE_BYTES)
                changed += 1
        if changed:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    return changed


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


class End(NamedTuple):
    """Where a mirror ends. `is_newest` is False where a newer file of it cannot be read."""

    log_id: bytes
    last_seq: int
    is_newest: bool


def end_of(folder: Path) -> End | None:
    """The end of a mirror, None where it holds nothing that can be read. Raises OSError."""
    paths = segment_file.segment_paths(folder)
    for path in reversed(paths):
        try:
            reader = SegmentReader(path)
        except LogDamaged:
            continue
        last_seq = reader.header.first_seq - 1
        for frame in reader.all_frames():
            last_seq = frame.first_seq + frame.count - 1
        return End(reader.header.log_id, last_seq, path == paths[-1])
    return None


def groups(folder: Path, from_seq: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
    """Sound groups of a mirror that end at or above a number, as recovery takes them: oldest first."""
    paths = segment_file.segment_paths(folder)
    for place, path in enumerate(paths):
        if place + 1 < len(paths) and int(paths[place + 1].stem) <= from_seq:
            continue
        try:
            reader = SegmentReader(path)
        except LogDamaged:
            continue
        for frame in reader.all_frames():
            if frame.first_seq + frame.count > from_seq:
                yield frame.first_seq, reader.header.epoch_key, frame.data


def differences(journal: Path, folder: Path, last_seq: int) -> tuple[list[str], int]:
    """Compare a mirror with a journal that was verified up to `last_seq`: `(what is wrong, where the mirror ends)`.

    It may lack the end: then it was away. Files only, so a runtime may be writing both.
    """
    found: list[str] = []
    own, other = segment_file.log_id_of(journal), segment_file.log_id_of(folder)
    if own is not None and other is not None and own != other:
        return [another_logs(folder).message], 0
    copies = groups(folder)
    copy = next(copies, None)
    ends = 0
    for path in segment_file.segment_paths(journal):
        try:
            reader = SegmentReader(path)
        except LogDamaged:
            continue  # named when the journal was verified
        lacks: list[int] = []
        for frame in reader.all_frames():
            while copy is not None and copy[0] < frame.first_seq:
                copy = next(copies, None)
            if frame.first_seq + frame.count - 1 > last_seq:
                break
            if copy is None:
                return found, ends
            if copy != (frame.first_seq, reader.header.epoch_key, frame.data):
                lacks.append(frame.first_seq)
            ends = open_group(frame.first_seq, frame.data).last_seq
        if lacks:
            found.append(
                f"The mirror's {path.name} lacks or changed {len(lacks)} groups, first at event {lacks[0]}."
            )
    return found, ends


class _File:
    """A file that is open as long as somebody uses it: here, or in a call that hangs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class _Worker:
    """A thread that runs one job at a time for somebody who waits so long and no longer."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="mirror", daemon=True).start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def run(self, job: Callable[[], _File | None], patience_s: float) -> _File | None:
        """What a job returns. Raises what it raised (OSError, StorageFailed), TimeoutError after so long."""
        ended = threading.Event()
        outcome: list[_File | OSError | StorageFailed | None] = []

        def work() -> None:
            try:
                outcome.append(job())
            except (OSError, StorageFailed) as error:
                outcome.append(error)
            finally:
                ended.set()

        self._jobs.put(work)
        if not ended.wait(patience_s):
            self.end()
            raise TimeoutError
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    def end(self) -> None:
        """Let it end once it is idle."""
        self._jobs.put(None)
