"""Small files that are replaced whole: beside, flushed, named, and the folder flushed.

Used for what stands in one file and must never be half there: receipts, heads, segments, enrolments. What has rules
of its own (a key that is never overwritten, a blob that makes room) writes itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edge.core.errors import StorageFailed
from edge.store.segment_file import flush_folder


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside, flush it, put it in place; durable when this returns. Raises StorageFailed."""
    part = path.with_name(f"{path.name}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)  # on a full drive its room is wanted
        raise StorageFailed(f"{path} could not be written: {error.strerror}.") from error
