"""Caches in memory whose box is gone: each says whose it is, and is removed by whoever starts next.

Called by the daemon: at a stop a runtime removes its own cache, but one that was killed, and whose data folder was
removed after it, leaves its blocks in `/dev/shm` until the machine starts anew, and memory is what small machines
have least of. Must never look into another user's folder, nor remove one whose data folder is there: that box may
start again, or run. (Where it runs all the same, its drive unmounted, it makes its blocks again: no cache is the
record.)
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from edge.core.settings import Settings, memory_cache
from edge.store.blocks import MARKER, discard

_PATH_BYTES_MAX: Final = 4_096


def sign(settings: Settings) -> None:
    """Write into the cache's marker whose it is, where it lies in memory; others lie in their data folder."""
    folder = settings.cache_folder
    if folder == memory_cache(settings.data):
        with contextlib.suppress(OSError):  # unsigned it stays until the machine starts anew
            (folder / MARKER).write_bytes(os.fsencode(settings.data.resolve()))


def reap(settings: Settings) -> list[Path]:
    """Remove this user's caches whose data folder is gone; which they were."""
    own = memory_cache(settings.data)
    reaped = []
    prefix = own.name.rpartition("-")[0]
    for folder in own.parent.glob(f"{prefix}-*"):
        with contextlib.suppress(OSError):
            if folder != own and _is_orphan(folder):
                discard(folder)
                reaped.append(folder)
    return reaped


def _is_orphan(folder: Path) -> bool:
    found = folder.lstat()
    if folder.is_symlink() or not folder.is_dir() or found.st_uid != os.getuid():
        return False
    with (folder / MARKER).open("rb") as file:
        owner = Path(os.fsdecode(file.read(_PATH_BYTES_MAX)))
    # A name that is not made of the path it holds is not ours to judge.
    return owner.is_absolute() and memory_cache(owner).name == folder.name and not owner.exists()
