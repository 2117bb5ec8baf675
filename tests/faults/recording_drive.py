"""A drive that remembers every write and flush, and what a power cut at any moment could have left on it.

`Drive` makes a small file system on a file that recording_drive.c serves, below the test's own folder; `Record` reads
what was done to it; `Cuts` makes the images. Root and FUSE are needed: the tests that use this skip without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple, Self

import pytest

from edge.core.limits import MIB

SOURCE = Path(__file__).with_name("recording_drive.c")
#: What the drive made of the writes that no flush followed: it kept all, none, some, or pieces of some.
KEPT = ("all", "none", "some", "pieces")
_SECTOR_BYTES = 512
_HEAD_BYTES = 24
_SIZE_BYTES = {"ext4": 64 * MIB, "xfs": 300 * MIB}
_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4"],
    "xfs": ["mkfs.xfs", "-q"],
}


def require_drives() -> None:
    """Skip where no file system can be mounted or the drive cannot be built."""
    missing = [
        name for name in ("gcc", "pkg-config", "fusermount3", "mkfs.ext4") if shutil.which(name) is None
    ]
    if missing or subprocess.run(["pkg-config", "--exists", "fuse3"], check=False).returncode:
        pytest.skip(
            f"not installed: {' '.join(missing)} fuse3 libfuse3-dev (apt install gcc pkg-config fuse3 …)"
        )
    if os.geteuid() or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        pytest.skip("only root may mount, and the kernel must have FUSE and loop devices")


def build(folder: Path) -> Path:
    """The program that serves the drive, made in a folder."""
    require_drives()
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True
    ).stdout.split()
    made = folder / "recording_drive"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(made), str(SOURCE), *flags], check=True)
    return made


@contextmanager
def mounted(image: Path, at: Path, kind: str, options: str = "noatime") -> Iterator[bool]:
    """An image's file system at a folder; whether it could be mounted. It is gone afterwards, whatever happens."""
    at.mkdir(exist_ok=True)
    # Any new mount namespace of this machine takes a copy of every mount along, which keeps the image before this one
    # mounted for as long: XFS knows it by its UUID and would refuse the next.
    options += ",nouuid" * (kind == "xfs")
    command = ["mount", "-t", kind, "-o", f"loop,{options}", str(image), str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"not mounted: {done.stderr.strip()}")  # shown where a test fails of it
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            _unmount(at)


def _unmount(at: Path) -> None:
    for _ in range(100):
        if subprocess.run(["umount", str(at)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)  # something killed a moment ago may still hold a file
    subprocess.run(["umount", "-l", str(at)], check=True)


class Drive:
    """The drive with a file system on it; a context manager. `folder` is the file system, `say` where words go."""

    def __init__(self, program: Path, place: Path, kind: str = "ext4") -> None:
        self._program, self._kind = program, kind
        self.image, self.record = place / "image", place / "record"
        self.base = place / "base"
        self._served, self.folder = place / "served", place / "files"
        self.say = self._served / "say"

    def __enter__(self) -> Self:
        self._served.mkdir()
        with self.image.open("wb") as file:
            file.truncate(_SIZE_BYTES[self._kind])
        subprocess.run([*_MAKE[self._kind], str(self.image)], check=True)
        copy(self.image, self.base)
        self._process = subprocess.Popen(
            [str(self._program), str(self.image), str(self.record), str(self._served)]
        )
        try:
            while not self.say.exists():
                assert self._process.poll() is None, "the drive did not come up"
                time.sleep(0.01)  # polls a process that has no way to say when it serves
            self._mount = mounted(self._served / "drive", self.folder, self._kind)
            assert self._mount.__enter__(), "the drive's file system cannot be mounted"
        except BaseException:
            self._end()
            raise
        return self

    def order(self, words: str) -> None:
        """Tell the drive how to behave."""
        fd = os.open(self.say, os.O_WRONLY)
        try:
            os.write(fd, words.encode())
        finally:
            os.close(fd)

    def __exit__(self, *given: object) -> None:
        try:
            self._mount.__exit__(None, None, None)
        finally:
            self._end()

    def _end(self) -> None:
        _unmount(self._served)
        self._process.wait(timeout=20)


def copy(image: Path, to: Path) -> None:
    """A copy of an image, with its holes."""
    subprocess.run(["cp", "--sparse=always", str(image), str(to)], check=True)


class Done(NamedTuple):
    """One thing done to the drive: `kind` is "w" write, "f" flush, "s" word."""

    kind: str
    offset: int
    data: bytes


def read_record(path: Path) -> list[Done]:
    """All that was done, in order."""
    raw = path.read_bytes()
    found, at = [], 0
    while at < len(raw):
        offset = int.from_bytes(raw[at + 8 : at + 16], "little")
        length = int.from_bytes(raw[at + 16 : at + 24], "little")
        at += _HEAD_BYTES
        found.append(Done(chr(raw[at - _HEAD_BYTES]), offset, raw[at : at + length]))
        at += length
    return found


class Cuts:
    """Images that a cut could have left, for places in the record that only grow."""

    def __init__(self, done: list[Done], base: Path, place: Path, *, flushes_count: bool = True) -> None:
        """`flushes_count` False: the drive says yes to a flush and keeps what it likes."""
        self._done, self._flushes_count = done, flushes_count
        self._safe, self._place = place / "safe", place
        #: The newest one, under a name of its own: somebody's new mount namespace may hold the file system of the one
        #: before, and a mount of the same file would show that, as it was, whatever the file holds now.
        self.image = place / "cut-0"
        copy(base, self._safe)
        self._at = 0
        self._volatile: list[Done] = []
        #: The log's id, the highest event that a client was told of before the cut, and all of them.
        self.log_id = ""
        self.told = 0
        self.told_all: set[int] = set()
        #: All words that were said before the cut, in order.
        self.words: list[str] = []

    def cut(self, at: int, kept: str, chance: Random, ruined_bytes: int = 0) -> Path:
        """The image after a cut before `done[at]`. `ruined_bytes`: the flash block of the last write is lost too."""
        with self._safe.open("r+b") as safe:
            while self._at < at:
                self._go_on(safe.fileno())
        self.image.unlink(missing_ok=True)
        self.image = self._place / f"cut-{at}-{int(self.image.name.rpartition('-')[2]) + 1}"
        copy(self._safe, self.image)
        with self.image.open("r+b") as image:
            for write in self._volatile:
                _keep(image.fileno(), write, kept, chance)
            if ruined_bytes and self._volatile:
                start = self._volatile[-1].offset // ruined_bytes * ruined_bytes
                os.pwrite(image.fileno(), b"\xff" * ruined_bytes, start)
        return self.image

    def _go_on(self, safe: int) -> None:
        one = self._done[self._at]
        self._at += 1
        if one.kind == "w":
            self._volatile.append(one)
            if not self._flushes_count and len(self._volatile) > 64:
                first = self._volatile.pop(0)
                os.pwrite(safe, first.data, first.offset)
        elif one.kind == "f" and self._flushes_count:
            for write in self._volatile:
                os.pwrite(safe, write.data, write.offset)
            self._volatile.clear()
        elif one.kind == "s":
            for line in one.data.decode().splitlines():
                self._heard(line)

    def _heard(self, line: str) -> None:
        self.words.append(line)
        if line.startswith("log "):
            self.log_id = line.split()[1]
        elif line.startswith("told "):
            self.told_all.add(int(line[5:]))
            self.told = max(self.told, int(line[5:]))


def _keep(image: int, write: Done, kept: str, chance: Random) -> None:
    if kept == "none" or (kept != "all" and chance.random() < 0.5):
        return
    if kept == "pieces" and chance.random() < 0.3:
        for start in range(0, len(write.data), _SECTOR_BYTES):
            if chance.random() < 0.5:
                os.pwrite(image, write.data[start : start + _SECTOR_BYTES], write.offset + start)
    else:
        os.pwrite(image, write.data, write.offset)
