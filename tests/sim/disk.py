"""A virtual drive under the journal: what was written and not flushed may be gone after a power cut, or torn.

Owned by `tests.sim.world`. It stands between the journal's calls and real files; what the kernel would hold in memory
is in the file, and what the drive had is remembered. The index (LMDB), blobs and renamed files are taken as durable
at once: the beds of tests/faults cut those for real.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass
from typing import Any, Final

_SECTOR_BYTES: Final = 512


@dataclass(slots=True)
class _Unflushed:
    """Bytes that the drive does not have yet: where, and what it has in their place."""

    path: str
    offset: int
    before: bytes


class Disk:
    """Stands in for `os.pwrite` and `os.fdatasync` of files below `folder`."""

    def __init__(self, folder: str, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._pwrite, self._fdatasync = os.pwrite, os.fdatasync
        self._unflushed: list[_Unflushed] = []
        #: Lost by a flush that failed: the kernel calls it clean, the drive never got it.
        self._lost: list[_Unflushed] = []
        #: The next flush fails.
        self.refuses = False
        #: Power fails before the next flush ends.
        self.power_fails = False
        #: A planted bug: flushes that do nothing.
        self.lies = False

    def install(self) -> None:
        """From now on these calls come here."""
        os.pwrite, os.fdatasync = self.pwrite, self.fdatasync  # type: ignore[assignment]

    def remove(self) -> None:
        """The system's own again."""
        os.pwrite, os.fdatasync = self._pwrite, self._fdatasync

    def _ours(self, fd: int) -> str | None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return path if path.startswith(self._folder) else None

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """As `os.pwrite`."""
        path = self._ours(fd)
        if path is not None:
            end = offset + len(data)
            # Written again as a whole it is dirty again.
            covered = [
                e
                for e in self._lost
                if e.path == path and offset <= e.offset and e.offset + len(e.before) <= end
            ]
            self._lost = [each for each in self._lost if each not in covered]
            before = next((e.before for e in covered if e.offset == offset), b"")
            known = os.pread(fd, len(data), offset)
            self._unflushed.append(_Unflushed(path, offset, before + known[len(before) :]))
        return self._pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """As `os.fdatasync`."""
        path = self._ours(fd)
        if path is None:
            self._fdatasync(fd)
            return
        if self.power_fails:
            raise OSError(errno.EIO, "the power fails")
        mine = [each for each in self._unflushed if each.path == path]
        if self.lies:
            return
        self._unflushed = [each for each in self._unflushed if each.path != path]
        if self.refuses:
            self.refuses = False
            self._lost += mine
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def cut(self) -> None:
        """The power fails: what the drive never got is gone, of what it was about to get some pieces are there."""
        for each in reversed([*self._lost, *self._unflushed]):
            with open(each.path, "r+b") as file:
                lost = each in self._lost
                kept = 0.0 if lost else self._chance.choice([0.0, 0.5, 1.0])
                for start in range(0, len(each.before), _SECTOR_BYTES):
                    if self._chance.random() >= kept:
                        file.seek(each.offset + start)
                        file.write(each.before[start : start + _SECTOR_BYTES])
        self._unflushed, self._lost = [], []
        self.power_fails = self.refuses = False
