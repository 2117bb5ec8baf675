"""Give pages back: what a process has mapped of a file counts as its memory, needed or not.

Called by the event log when it opens and after each commit, and by the zygote once everything is imported. The kernel
maps up to sixteen pages around each one read, so a growing LMDB file slowly becomes part of the runtime's own memory
(measured: 2.9 KB for each execution) although nothing of it is needed again. The pages stay in the page cache; only
our claim on them goes.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from edge.core.errors import StorageFailed

_MADV_DONTNEED: Final = 4
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


def release_code() -> None:
    """Let go of the code pages that starting up touched and running may never touch again.

    Only executable mappings: they are never written, so dropping them loses nothing and they are read again from the
    page cache when called. Importing Arrow touches some 10 MB of code that a waiting zygote has no use for.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        lines = maps.readlines()
    for line in lines:
        fields = line.split(maxsplit=5)
        if fields[1] == "r-xp" and len(fields) == 6 and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            release(int(start, 16), int(end, 16) - int(start, 16))


def release_heap() -> None:
    """Let go of the pages of the C heap that hold nothing: what was imported left them between what stays."""
    _libc.malloc_trim(0)
