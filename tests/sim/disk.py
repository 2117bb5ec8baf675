"""A virtual drive under the journal: what was written and not flushed may be gone after a power cut, or torn.

Owned by `tests.sim.world`. It stands between the journal's calls and real files; what the kernel would hold in memory
is in the file, and what the drive had is remembered. The index (LMDB), blobs and names of files are taken as durable
at once: the beds of tests/faults cut those for real.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass
from typing import Any, Final

_SECTOR_BYTES: Final = 512


@dataclass(slots=True, eq=False)
class _Unflushed:
    """Bytes that the drive does not have yet: of which file (held open by `fd`), where, and what it has there."""

    inode: int
    fd: int
    offset: int
    before: bytes


class Disk:
    """Stands in for `os.pwrite`, `os.fdatasync` and `os.fsync` of files below `folder`."""

    def __init__(self, folder: str, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._pwrite, self._fdatasync, self._fsync = os.pwrite, os.fdatasync, os.fsync
        self._unflushed: list[_Unflushed] = []
        #: Lost by a flush that failed: the kernel calls it clean, the drive never got it.
        self._lost: list[_Unflushed] = []
        #: The next flush fails.
        self.refuses = False
        #: Power fails before the next flush ends.
        self.power_fails = False

    def install(self) -> None:
        """From now on these calls come here."""
        os.pwrite, os.fdatasync, os.fsync = self.pwrite, self.fdatasync, self.fsync  # type: ignore[assignment]

    def remove(self) -> None:
        """The system's own again."""
        os.pwrite, os.fdatasync, os.fsync = self._pwrite, self._fdatasync, self._fsync
        self._forget([*self._unflushed, *self._lost])
        self._unflushed, self._lost = [], []

    def _ours(self, fd: int) -> int | None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return os.fstat(fd).st_ino if path.startswith(self._folder) and os.path.isfile(path) else None

    @staticmethod
    def _forget(these: list[_Unflushed]) -> None:
        for each in these:
            os.close(each.fd)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """As `os.pwrite`."""
        inode = self._ours(fd)
        if inode is not None:
            end = offset + len(data)
            before = bytearray(os.pread(fd, len(data), offset))
            for each in list(self._lost):
                # Written again as a whole it is dirty again, and the drive still has what it had.
                if each.inode == inode and offset <= each.offset and each.offset + len(each.before) <= end:
                    at = each.offset - offset
                    before[at : at + len(each.before)] = each.before
                    self._lost.remove(each)
                    os.close(each.fd)
            self._unflushed.append(_Unflushed(inode, os.dup(fd), offset, bytes(before)))
        return self._pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """As `os.fdatasync`."""
        inode = self._ours(fd)
        if inode is None:
            self._fdatasync(fd)
            return
        if self.power_fails:
            raise OSError(errno.EIO, "the power fails")
        mine = [each for each in self._unflushed if each.inode == inode]
        self._unflushed = [each for each in self._unflushed if each.inode != inode]
        if self.refuses:
            self.refuses = False
            self._lost += mine
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._forget(mine)

    def fsync(self, fd: int) -> None:
        """As `os.fsync`."""
        if self._ours(fd) is None:
            self._fsync(fd)
        else:
            self.fdatasync(fd)

    def cut(self) -> None:
        """The power fails: what the drive never got is gone, of what it was about to get some pieces are there."""
        for each in reversed([*self._lost, *self._unflushed]):
            kept = 0.0 if each in self._lost else self._chance.choice([0.0, 0.5, 1.0])
            for start in range(0, len(each.before), _SECTOR_BYTES):
                if self._chance.random() >= kept:
                    self._pwrite(each.fd, each.before[start : start + _SECTOR_BYTES], each.offset + start)
        self._forget([*self._unflushed, *self._lost])
        self._unflushed, self._lost = [], []
        self.power_fails = self.refuses = False
