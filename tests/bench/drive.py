"""A block device of its own for the data folder, so that every byte reaching the drive is counted.

A sparse file as loop device with ext4 on it: needs root and loop devices. `/proc/<pid>/io` would not do: it
counts whole folios and misses the file system's journal. Always unmounted and detached again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.core.limits import SEGMENT_BYTES
from tests.bench import journal
from tests.bench.counters import SECTOR_BYTES, sectors_written

_IMAGE_BYTES: Final = 1024**3
_TOOLS: Final = ("losetup", "mkfs.ext4", "mount", "umount")


class NoDrive(Exception):
    """No device of our own can be had; says why."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A mounted file system and its device's name (`loop0`)."""

    folder: Path
    device: str

    def settle(self) -> None:
        """Bring everything written so far to the device."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        _run("sync", "--file-system", str(self.folder))


@dataclass(frozen=True, slots=True)
class DriveMark:
    """Counters at one moment."""

    sectors: int
    prepared: int
    journal_bytes: int


def mark(drive: Drive, journal_folder: Path) -> DriveMark:
    """Settle, then read the counters."""
    drive.settle()
    return DriveMark(
        sectors_written(drive.device),
        journal.prepared_files(journal_folder),
        journal.written_bytes(journal_folder),
    )


def bytes_between(before: DriveMark, after: DriveMark) -> tuple[int, int]:
    """`(bytes with zero-filling charged by use, bytes as counted)` that reached the device.

    The journal fills its next file with zeros all at once, seldom. A short run meets that by luck; so what it
    filled is taken out, and as much put in as it used up.
    """
    counted = (after.sectors - before.sectors) * SECTOR_BYTES
    filled = (after.prepared - before.prepared) * SEGMENT_BYTES
    used = after.journal_bytes - before.journal_bytes
    return counted - filled + used, counted


@contextmanager
def loop_drive(folder: Path, options: str = "") -> Iterator[Drive]:
    """A loop device with ext4, mounted below `folder` with such options. Raises NoDrive."""
    if os.geteuid() != 0:
        raise NoDrive("not root")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NoDrive(f"not installed: {', '.join(missing)}")
    image, mount = folder / "drive.img", folder / "drive"
    mount.mkdir()
    with contextlib.ExitStack() as undo:
        undo.callback(image.unlink, missing_ok=True)
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        device = _run("losetup", "--find", "--show", str(image))
        undo.callback(_detach, device)
        # Lazy initialisation would go on writing in the background while we count.
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", device)
        undo.callback(_unmount, mount)
        _run("mount", "-t", "ext4", "-o", options or "defaults", device, str(mount))
        yield Drive(mount, Path(device).name)


def _unmount(mount: Path) -> None:
    for _ in range(50):
        if not os.path.ismount(mount):
            return
        with contextlib.suppress(NoDrive):
            _run("umount", str(mount))
            return
        time.sleep(0.1)
    _run("umount", "--lazy", str(mount))


def _detach(device: str) -> None:
    _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise NoDrive(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()
