"""Small secret files of a box: random bytes that only their owner may read, made at the first need.

Called by whoever owns the secret. A file that is there is never overwritten, and one that is odd is never used.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge.core.errors import Misconfigured, StorageFailed
from edge.store.segment_file import flush_folder


def read_or_make_key(path: Path, size_bytes: int) -> bytes:
    """The key in that file, made there (0600, durable) where there is none. Raises Misconfigured, StorageFailed."""
    try:
        with open(path, "rb") as file:
            key = file.read(size_bytes + 1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        return _make(path, size_bytes)
    except OSError as error:
        raise StorageFailed(f"The key in {path} cannot be read: {error.strerror}.") from error
    if len(key) != size_bytes:
        raise Misconfigured(
            f"{path} is no key of {size_bytes} bytes.",
            mend="Put the right file back, or remove it: a new one is made, and what the old one made is void.",
        )
    if mode & 0o077:
        raise Misconfigured(f"{path} may be read by others.", mend=f"Run chmod 600 {path}.")
    return key


def _make(path: Path, size_bytes: int) -> bytes:
    key = os.urandom(size_bytes)
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, key)
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(path)
        flush_folder(path.parent)
    except OSError as error:
        raise StorageFailed(f"A key could not be written to {path}: {error.strerror}.") from error
    return key
