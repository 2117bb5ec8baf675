"""Give mapped file pages back: what a process has mapped of a file counts as its memory, needed or not.

Called by the event log after each commit. The kernel maps up to sixteen pages around each one read, so a growing
LMDB file slowly becomes part of the runtime's own memory (measured: 2.9 KB for each execution) although nothing of
it is needed again. The pages stay in the page cache; only our claim on them goes.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


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
