"""Give pages back: what a process has mapped of a file counts as its memory, needed or not.

Called by the event log when it opens and after each commit, and by the zygote once everything is imported. The kernel
maps up to sixteen pages around each one read, so a growing LMDB file slowly becomes part of the runtime's own memory
(measured: 2.9 KB for each execution) although nothing of it is needed again. The pages stay in the page cache; only
our claim on them goes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.core.errors import StorageFailed

_MADV_DONTNEED: Final = 4
#: Private mappings of files: code and constants.
_UNWRITABLE: Final = ("r-xp", "r--p")
#: Fields of /proc/self/smaps (man 5 proc_pid_smaps): pages that are no longer the file's.
_ELSEWHERE: Final = ("Anonymous:", "Swap:")
_LAST_FIELD: Final = "VmFlags:"
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def hold_room(path: Path, size_bytes: int) -> None:
    """See that a file has its blocks: written through a map, a full drive is a SIGBUS. Raises StorageFailed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        finally:
            os.close(fd)
    except PermissionError:
        pass  # said in better words by who opens it
    except OSError as error:
        raise StorageFailed(f"There is no room for {path}: {error.strerror}.") from error


def find_mapping(path: Path) -> int | None:
    """Where a file is mapped in this process: the first address, or None."""
    name = str(path.resolve())
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            if line.rstrip("\n").endswith(name):
                return int(line.partition("-")[0], 16)
    return None


def release(address: int, size_bytes: int) -> None:
    """Let go of a shared file mapping's pages; they are read again from the page cache when touched.

    Advice only: where the kernel declines, memory stays as it was.
    """
    _libc.madvise(address, size_bytes, _MADV_DONTNEED)


def release_libraries() -> None:
    """Let go of the pages of programs and libraries that starting up touched and running may never touch again.

    Linking and importing Arrow touches some 20 MB of code, symbols and relocations that a waiting zygote has no use
    for. Only pages that are as in their file: dropping them loses nothing, and they are read again from the page
    cache when touched. Where a page was written (a table of addresses that the linker made read-only afterwards) its
    whole mapping stays.
    """
    for start, end, written in _library_maps():
        if not written:
            release(start, end - start)


def _library_maps() -> Iterator[tuple[int, int, bool]]:
    """Mappings of files that may not be written now: from, to, and whether a page of them was."""
    found: tuple[int, int] | None = None
    written = False
    with open("/proc/self/smaps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            name, *fields = line.split(maxsplit=5)
            if not name.endswith(":"):
                start, _, end = name.partition("-")
                of_file = len(fields) == 5 and fields[4].startswith("/")
                found = (int(start, 16), int(end, 16)) if of_file and fields[0] in _UNWRITABLE else None
                written = False
            elif name in _ELSEWHERE:
                written = written or fields[0] != "0"
            elif name == _LAST_FIELD and found is not None:
                yield *found, written


def release_heap() -> None:
    """Let go of the pages of the C heap that hold nothing: what was imported left them between what stays."""
    _libc.malloc_trim(0)
