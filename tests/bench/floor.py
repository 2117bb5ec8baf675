"""The floor under every latency: what an echo over the same broker and one flush cost, and nothing else.

Owned by `main`, which takes a few samples between a few executions, over and over, so that whatever else the
machine does falls on both. floor = p50 of the echo + p50 of the flush; the p99 floor is made of their p99.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

#: About what one execution of the three-step playbook puts into the journal.
FRAME_BYTES: Final = 3_500
_FILE_BYTES: Final = 16 * 1024 * 1024


class FlushFloor:
    """One fdatasync of an append into zero-filled room: what the journal does for each group."""

    def __init__(self, folder: Path, frame_bytes: int = FRAME_BYTES) -> None:
        self._path = folder / "floor.zeros"
        self._frame = os.urandom(frame_bytes)
        self._offset = 0
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        zeros = bytes(1024 * 1024)
        for _ in range(_FILE_BYTES // len(zeros)):
            os.write(self._fd, zeros)
        os.fsync(self._fd)

    def sample_us(self, count: int) -> list[float]:
        """So many flushes, in microseconds."""
        made = []
        for _ in range(count):
            if self._offset + len(self._frame) > _FILE_BYTES:
                self._offset = 0
            started_ns = time.monotonic_ns()
            os.pwrite(self._fd, self._frame, self._offset)
            os.fdatasync(self._fd)
            made.append((time.monotonic_ns() - started_ns) / 1000)
            self._offset += len(self._frame)
        return made

    def close(self) -> None:
        """Remove the file."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)
