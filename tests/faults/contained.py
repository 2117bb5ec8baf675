"""A Debian of its own with a systemd of its own, for test_booted_units.py: systemd-nspawn, no network but its own.

Its files are a copy of what `debian_root` makes; its mounts are in a mount namespace, its processes in one control
group made for it, and both are gone afterwards. Nothing of this machine's services, network or files is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

_HERE: Final = Path(__file__).parent
_CHECKOUT: Final = _HERE.parents[1]
#: Where Debian is kept between runs: it takes minutes to fetch.
FOLDER: Final = Path(os.environ.get("EDGE_TEST_DEBIAN", _CHECKOUT / ".venv" / "debian"))
_GROUPS: Final = Path("/sys/fs/cgroup")
_START_S: Final = 120.0
_AGAIN: Final = 133
#: Puts itself into the group it is given and sees only the second version of control groups, then becomes nspawn:
#: where a machine mounts both versions side by side, its own mounts stay as they are.
_ENTER: Final = (
    'echo $$ > "$1/cgroup.procs" && mkdir -p /run/systemd/nspawn && mount -t tmpfs none /run/systemd/nspawn'
    " && { [ -e /sys/fs/cgroup/cgroup.procs ] || mount -t cgroup2 none /sys/fs/cgroup; }"
    ' && shift && exec systemd-nspawn "$@"'
)


def require() -> None:
    """Skip by name where this computer lacks something; under CI=true that is a failure."""
    wanted = {"systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
    if os.geteuid() != 0:
        pytest.skip("only root may mount, and start a systemd of its own")
    if not (FOLDER / "root.made").exists():
        wanted["debootstrap"] = "debootstrap"
    if missing := [package for name, package in wanted.items() if shutil.which(name) is None]:
        pytest.skip(f"not installed: apt install --no-install-recommends {' '.join(missing)}")


class Failed(AssertionError):
    """A command ended with another code than it should; says all it said."""


class Contained:
    """One Debian that runs. `start` returns once it has started all it starts."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._words = folder / "console.log"
        both = _GROUPS / "unified"
        self._group = (both if both.exists() else _GROUPS) / f"noetl-units-{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Copy Debian, and switch it on."""
        subprocess.run([str(_HERE / "debian_root"), str(FOLDER)], check=True, env=_with_python())
        subprocess.run(["cp", "-a", "--reflink=auto", str(FOLDER / "root"), str(self.root)], check=True)
        self._boot()

    def _boot(self) -> None:
        self._drop_group()
        self._group.mkdir()
        # Its own filter of system calls knows nothing of what workers lock themselves in with.
        let = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
        options = [
            "--boot",
            f"--system-call-filter={let}",
            "--private-network",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--quiet",
        ]
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh"]
        with self._words.open("wb") as words:
            self._nspawn = subprocess.Popen(
                [*command, str(self._group), *options, f"--directory={self.root}"],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
            )
        self._wait_up()

    def end(self) -> None:
        """Gone: processes, control groups, files."""
        if self._nspawn is not None:
            if (leader := self._leader()) is not None:
                os.kill(leader, signal.SIGKILL)  # the first of its processes takes all others along
            else:
                self._nspawn.kill()
            self._nspawn.wait(timeout=60)
        self._drop_group()
        shutil.rmtree(self.root, ignore_errors=True)

    def _drop_group(self) -> None:
        for folder, _, _ in os.walk(self._group, topdown=False):
            os.rmdir(folder)

    def _leader(self) -> int | None:
        """The process that is number 1 inside, and sees our copy as its root: never one of this machine's own."""
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                status = Path(f"/proc/{child}/status").read_text()
                (named,) = (line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
                if named[1:] == ["1"] and os.path.samefile(f"/proc/{child}/root", self.root):
                    return child
        return None

    def do(self, command: str, *, code: int | None = 0, give: str = "", within_s: float = 120.0) -> str:
        """What a shell command of root says inside, both its outputs; any `code` where it is None."""
        leader = self._leader()
        if leader is None:
            raise Failed(f"{command}: nothing runs yet to run it in")
        enter = ["nsenter", "--target", str(leader), "--all", "--root", "--wd"]
        clean = [
            "env",
            "-i",
            "HOME=/root",
            "LANG=C.UTF-8",
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        done = subprocess.run(
            [*enter, *clean, "sh", "-c", f"cd /root; {command}"],
            input=give,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=within_s,
            check=False,
        )
        if code is not None and done.returncode != code:
            raise Failed(f"{command}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def until(self, command: str, within_s: float = 120.0) -> str:
        """What the command says once it succeeds."""
        last, until_s = "", time.monotonic() + within_s
        while time.monotonic() < until_s:
            try:
                return self.do(command)
            except Failed as failed:
                last = str(failed)
            time.sleep(0.1)  # polls another machine's processes, which cannot tell us
        raise Failed(f"not within {within_s:.0f} s: {last}")

    def put(self, path: str, text: str) -> None:
        """Write a file inside."""
        self.do(f"mkdir -p $(dirname {path}) && cat > {path}", give=text)

    def _wait_up(self) -> None:
        """Return when it has started all it starts."""
        until_s = time.monotonic() + _START_S
        while time.monotonic() < until_s:
            assert self._nspawn is not None
            assert self._nspawn.poll() is None, self._words.read_text(errors="replace")[-2000:]
            with contextlib.suppress(Failed, subprocess.TimeoutExpired):
                if self.do("systemctl show --property=Version", within_s=10):
                    self.do("timeout 60 systemctl is-system-running --wait", code=None)
                    return
            time.sleep(0.1)  # a machine that starts
        raise Failed(f"it does not start: {self._words.read_text(errors='replace')[-2000:]}")

    def reboot(self) -> None:
        """As a person would; nspawn ends then, and asks by this code to be started again."""
        self.do("systemctl reboot", code=None)
        assert self._nspawn is not None
        assert self._nspawn.wait(timeout=_START_S) == _AGAIN, self._words.read_text(errors="replace")[-2000:]
        self._boot()

    def bring(self) -> None:
        """This checkout, as it is now, below /root/checkout."""
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=_CHECKOUT, check=True, capture_output=True).stdout
        place = self.root / "root" / "checkout"
        place.mkdir()
        packed = ["tar", "--create", "--null", "--files-from=-"]
        made = subprocess.run(packed, cwd=_CHECKOUT, check=True, capture_output=True, input=files).stdout
        subprocess.run(["tar", "--extract", "--no-same-owner"], cwd=place, check=True, input=made)


def _with_python() -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable}
