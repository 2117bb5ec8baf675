"""A box on another processor: an aarch64 Debian in a folder, its programs run by QEMU's user mode.

Used by test_other_processors.py, as root only. `aarch64_root` makes the folder; its mounts are in a namespace of
their own. The box's data lie outside it and are seen in it, so that this machine's own programs can ask the box, stop
it and read its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.process.box import Box

_HERE: Final = Path(__file__).parent
#: Where the Debian is kept between runs: it takes minutes to fetch.
FOLDER: Final = Path(os.environ.get("EDGE_TEST_AARCH64", _HERE.parents[1] / ".venv" / "aarch64"))
_RUNS_AARCH64: Final = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
#: Data in its place, then the program as in a shell of its own.
_ENTER: Final = (
    'mount --bind "$2" "$1/box" && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && root=$1 && shift 2'
    ' && exec chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root sh -c \'cd /checkout && exec "$@"\' sh "$@"'
)


def require() -> None:
    """Skip by name where this computer lacks something; under CI=true that is a failure."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount, and enter another Debian")
    if not _RUNS_AARCH64.exists():
        pytest.skip("the kernel starts no aarch64 programs: apt install qemu-user-static binfmt-support")
    if not (FOLDER / "root.made").exists() and shutil.which("debootstrap") is None:
        pytest.skip("not installed: apt install debootstrap")


def make_root() -> None:
    """The Debian with this checkout in it, made where it is not yet."""
    subprocess.run([str(_HERE / "aarch64_root"), str(FOLDER)], check=True)


class EmulatedBox(Box):
    """A box whose runtime is a program for aarch64; all that asks it, or reads its log, is this machine's own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, 1, **settings)
        self.start_s = 180.0
        (FOLDER / "root" / "box").mkdir(exist_ok=True)

    def command(self, name: str) -> list[str]:
        """The runtime without its workers' lock, see `unlocked_runtime`."""
        assert name == "runtime", "nothing is asked over MQTT there"
        return self.inside("-m", "tests.faults.unlocked_runtime", "--data", "/box")

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End the runtime, to which a whole processor is emulated, with time for its last seal."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(timeout=180)

    def inside(self, *arguments: str) -> list[str]:
        """A command that runs Python there."""
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"]
        return [*enter, str(FOLDER / "root"), str(self.data), ".venv/bin/python", *arguments]

    def edge_there(self, *arguments: str) -> str:
        """What the command line says on that processor, of the same data."""
        command = self.inside("-m", "edge.cli.main", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout
