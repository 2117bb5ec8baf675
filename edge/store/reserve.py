"""Room on the drive that nobody else can take: for what was accepted to end, and for saying no, on a full drive.

Owned by the runtime's retention, which holds it (`hold`) while there is room; the homes of the log ask for some of
it (`give`) when the drive refuses them. Half lies behind the index's own end, where only it can write; half is a file
that is cut shorter as it is needed. Nothing is written for it: blocks are only allocated. Where a file system cannot
do that, what is left free on it is all there is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from edge.core.limits import KIB, MIB

FILE_NAME: Final = "reserve"
#: From linux/falloc.h: blocks behind the end of a file, which stays as long as it was.
_KEEP_SIZE: Final = 1
#: Given at once at the least: the index and the journal ask seldom, and for much.
_GIFT_BYTES: Final = 4 * MIB
#: A drive with less than this is full; what it refuses with more has another reason.
_FULL_BYTES: Final = 1 * MIB
_libc = ctypes.CDLL(None, use_errno=True)


def allocate(fd: int, offset: int, size_bytes: int, *, behind_end: bool = False) -> None:
    """Have the file system find blocks for a part of a file, without writing. Raises OSError."""
    mode = _KEEP_SIZE if behind_end else 0
    arguments = ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(size_bytes)
    if _libc.fallocate64(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def room_left(folder: Path) -> str:
    """For an error's words: LMDB says "Input/output error" of a drive that is full, too."""
    stat = os.statvfs(folder)
    return f"The drive has {stat.f_bavail * stat.f_frsize // KIB} KB left."


class Reserve:
    """What is held of `size_bytes` in all, on the drive of the data folder and behind the index's file."""

    def __init__(self, folder: Path, index_file: Path, size_bytes: int) -> None:
        self._path, self._folder, self._index_file = folder / FILE_NAME, folder, index_file
        self._half_bytes = size_bytes // 2
        #: Whether the file system can allocate blocks at all.
        self.possible = True

    @property
    def held_bytes(self) -> int:
        """What is held now."""
        return self._file_bytes() + self._ahead_bytes()

    def hold(self) -> None:
        """Take what is missing, where the drive has it to spare."""
        missing = 2 * self._half_bytes - self.held_bytes
        if self._free_bytes() < missing + _FULL_BYTES or not self.possible:
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                self._hold_ahead()
            if self._file_bytes() < self._half_bytes:
                self._hold_file()
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                self.possible = False

    def give(self, wanted_bytes: int) -> bool:
        """Let go of some of the file because the drive refused that much; False where that would not help."""
        held = self._file_bytes()
        if not held or self._free_bytes() >= max(_FULL_BYTES, wanted_bytes):
            return False
        with contextlib.suppress(OSError):
            os.truncate(self._path, max(0, held - max(_GIFT_BYTES, 2 * wanted_bytes)))
            return True
        return False

    # ---- inside ------------------------------------------------------------------------------------------

    def _hold_ahead(self) -> None:
        with self._index_file.open("rb+", buffering=0) as file:
            allocate(file.fileno(), os.fstat(file.fileno()).st_size, self._half_bytes, behind_end=True)

    def _ahead_bytes(self) -> int:
        """What is left behind the index's end: it grows into it."""
        try:
            stat = self._index_file.stat()
        except OSError:
            return 0
        return min(self._half_bytes, max(0, stat.st_blocks * 512 - stat.st_size))

    def _hold_file(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            allocate(fd, 0, self._half_bytes)
        finally:
            os.close(fd)

    def _file_bytes(self) -> int:
        """What the file really takes: on some drives a file is as long as it is said to be, and takes nothing."""
        try:
            stat = self._path.stat()
        except OSError:
            return 0
        return min(stat.st_size, stat.st_blocks * 512)

    def _free_bytes(self) -> int:
        stat = os.statvfs(self._folder)
        return stat.f_bavail * stat.f_frsize
