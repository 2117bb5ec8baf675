"""A little room on the drive that is held for sync: on a full one, receipts are what room is made by.

Nothing is pruned before the centre's receipt is on the drive, so a drive without a block left would stay full for
ever. Owned by the shipper, which holds it while there is room and gives it up when the drive refuses. Best effort:
whoever else writes may be quicker.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from edge.core.limits import KIB

_NAME: Final = "spare"
#: A receipt, its copy for others, the meter and the note of what was set aside, each beside the one before.
SPARE_BYTES: Final = 64 * KIB


class Spare:
    """One file in sync's own folder; its blocks are allocated, never written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    def hold(self) -> None:
        """Hold it where it is not held and there is room."""
        with contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_blocks * 512 >= SPARE_BYTES:
                return
            self._path.parent.mkdir(exist_ok=True, mode=0o750)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(fd, 0, SPARE_BYTES)
            finally:
                os.close(fd)

    def give(self) -> bool:
        """Give it up; False where there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
