"""A scratch folder and the one process that works in it: both are gone when the command is, however it ends.

Used by `edge run` and `edge playbook test`. Told to stop (SIGINT, SIGTERM, SIGHUP) it ends the process and removes
the folder first. Where it is killed, the kernel ends the process, and the next command that makes a scratch folder
removes what is left. It must never remove a folder that this program did not make, or one that somebody still works
in: who makes one holds a lock on a file in it, which the process and its zygote inherit, so it ends with the last.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from edge.cli.children import ENDING, ends_with_us
from edge.core.errors import EdgeError
from edge.core.settings import Settings, load_settings
from edge.store.blocks import discard

_PREFIXES: Final = ("edge-run-", "edge-test-")
_LOCK: Final = "scratch.lock"
#: How long a process is given to end in order before it is killed, and its workers to be gone after it.
_STOP_S: Final = 5.0
_POLL_S: Final = 0.005


class Scratch:
    """One folder. Made by `scratch`."""

    def __init__(self, folder: Path, lock_fd: int) -> None:
        self.settings: Settings = load_settings(folder)
        self._lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, module: str, *arguments: str, stdin: int, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `python -m module --data FOLDER …`; it ends when this is left, or when this process ends."""
        assert self._process is None, "one process for a scratch folder"
        command = [sys.executable, "-m", module, "--data", str(self.settings.data), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "EDGE_DATA"}
        with _held_back():
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                env=environment,
                start_new_session=True,
                pass_fds=(self._lock_fd,),
                preexec_fn=ends_with_us(signal.SIGKILL),  # noqa: PLW1509 - a command has no threads
            )
        return self._process

    def remove(self) -> None:
        """End the process, then remove the folder and its cache."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            _wait_for_workers(self.settings)
        _remove(self.settings)
        os.close(self._lock_fd)


@contextmanager
def scratch(prefix: str) -> Generator[Scratch]:
    """A scratch folder, until this is left. `prefix` is one of those that are swept."""
    assert prefix in _PREFIXES, prefix
    sweep()
    with _ending_in_order():
        with _held_back():
            made = Scratch(*_make(prefix))
        try:
            yield made
        finally:
            with _held_back():
                made.remove()


def sweep() -> None:
    """Remove the scratch folders whose commands were killed, as far as nobody works in them."""
    below = Path(tempfile.gettempdir())
    for prefix in _PREFIXES:
        for folder in below.glob(f"{prefix}*"):
            with suppress(OSError, EdgeError):
                _sweep_one(folder)


def _sweep_one(folder: Path) -> None:
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        return
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(load_settings(folder))
    finally:
        os.close(fd)


def _make(prefix: str) -> tuple[Path, int]:
    """A new folder and its lock, held."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    unnamed = folder / f"{_LOCK}.new"
    fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)  # held before anybody can find it
    return folder, fd


def _remove(settings: Settings) -> None:
    discard(settings.cache_folder)  # below /dev/shm as a rule; its name comes from the folder's
    shutil.rmtree(settings.data, ignore_errors=True)


def _wait_for_workers(settings: Settings) -> None:
    """Until the last worker of an ended runtime is gone: it must not write into what is being removed."""
    with suppress(FileNotFoundError):
        fd = os.open(settings.workers_lock_path, os.O_RDWR | os.O_CLOEXEC)
        deadline_s = time.monotonic() + _STOP_S
        try:
            while time.monotonic() < deadline_s:
                with suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                time.sleep(_POLL_S)
        finally:
            os.close(fd)


@contextmanager
def _held_back() -> Generator[None]:
    """Signals that end the command come after this, not within."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ending_in_order() -> Generator[None]:
    """Let a signal that ends the command raise, so that what it began is undone; an ignored one stays so (nohup)."""
    before: dict[signal.Signals, Any] = {}
    try:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> NoReturn:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)  # once is enough: what follows is over in seconds
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)  # what a shell says of a process that the signal ended
