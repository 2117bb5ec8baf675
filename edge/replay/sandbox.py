"""The workers of a re-run: processes of the box's own kind, locked in the same way, that are granted nothing.

Owned by who runs executions again. Claims go out one at a time and are waited for: there is no event loop and no
scheduler here. A worker has no network, no clock and no chance for pure blocks (`edge.worker.sandbox`); what would
reach outside is no task of the blueprints that are sent (`edge.replay.shield`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from edge.core.access import NOTHING
from edge.core.codec import decode, encode
from edge.core.errors import Unavailable
from edge.core.frames import FrameBuffer, pack
from edge.core.limits import CACHE_BUDGET_BYTES
from edge.core.records import record
from edge.store.blocks import Blocks
from edge.worker.claims import Claim, Outcome, read_reply

_RECEIVE_BYTES: Final = 256 * 1024
_MESSAGE_BYTES: Final = 64 * 1024
#: So many processes are kept for playbooks whose code they ran; each holds its own memory.
_WORKERS_MAX: Final = 8
_START_S: Final = 60.0
_SHARED_MEMORY_MB: Final = 256
_PREFIX: Final = "edge-replay-"
#: Held by who owns a folder, for as long as that process lives.
_LOCK: Final = "owner"


@record
class Binding:
    """What a worker's process is bound to until it ends (as `edge.runtime.workers.work.Binding`, without grants)."""

    folder: str
    memory_mb: int
    pure: bool


SHARED: Final = Binding("", _SHARED_MEMORY_MB, pure=False)
"""For kinds that run no author's code."""


@dataclass(slots=True)
class _Worker:
    socket: socket.socket
    pid: int
    pidfd: int
    seen: set[bytes] = field(default_factory=set)
    buffer: FrameBuffer = field(default_factory=FrameBuffer)


class WorkerLost(Exception):
    """A worker ended, or did not answer in time; `args[0]` says which."""


class Sandbox:
    """A zygote with its workers and a cache of their own, in a folder that goes with it.

    `hash_seed` is the recorded order in which blocks saw sets of texts, None for any.
    """

    def __init__(self, hash_seed: int | None = None) -> None:
        # In memory where that can be: a cache is nothing to be kept.
        memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
        place = memory if memory.is_dir() else Path(tempfile.gettempdir())
        _sweep(place)
        made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=place))
        self._owned = (made / _LOCK).open("wb")
        fcntl.flock(self._owned, fcntl.LOCK_EX)
        self.folder = made.rename(place / made.name[1:])  # only now may anybody sweep it
        self.blocks = Blocks(self.folder / "cache", CACHE_BUDGET_BYTES)
        self._workers: OrderedDict[Binding, _Worker] = OrderedDict()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_START_S)
        environment = dict(os.environ)
        environment["PYTHONHASHSEED"] = "random" if hash_seed is None else str(hash_seed)
        try:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "edge.replay", str(theirs.fileno()), str(self.folder / "cache")],
                env=environment,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        finally:
            theirs.close()
        if self._told() != ["ready"]:
            self.close()
            raise Unavailable("The process that blocks are run again in did not start.")

    def run(self, claim: Claim, blueprint: bytes, binding: Binding, timeout_s: float) -> list[Outcome]:
        """Carry out one claim; its outcomes. Raises WorkerLost."""
        worker = self._workers.get(binding)
        if worker is None:
            worker = self._workers[binding] = self._fork(binding)
        self._workers.move_to_end(binding)
        message = claim.message()
        message[2] = None if claim.digest in worker.seen else blueprint
        worker.seen.add(claim.digest)
        worker.socket.settimeout(timeout_s)
        try:
            worker.socket.sendall(pack(message))
            _, outcomes, spent = read_reply(self._answer(worker))
        except (TimeoutError, ConnectionError, ValueError) as error:
            self.drop(binding)
            said = f"no answer in {timeout_s:g} s" if isinstance(error, TimeoutError) else "its worker ended"
            raise WorkerLost(said) from error
        if spent:
            self.drop(binding)
        return outcomes

    @staticmethod
    def _answer(worker: _Worker) -> list[Any]:
        while True:
            data = worker.socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionError
            messages = worker.buffer.feed(data)
            if messages:
                return messages[0]

    def _fork(self, binding: Binding) -> _Worker:
        while len(self._workers) >= _WORKERS_MAX:
            self.drop(next(iter(self._workers)))
        ours, theirs = socket.socketpair()
        order = encode([0, binding.folder, binding.memory_mb, NOTHING.parts(), binding.pure])
        try:
            socket.send_fds(self._control, [order], [theirs.fileno()])
            while (told := self._told())[:1] != ["forked"]:
                if not told:
                    raise Unavailable("The process that blocks are run again in ended.")
        finally:
            theirs.close()
        return _Worker(ours, told[2], os.pidfd_open(told[2]))

    def _told(self) -> list[Any]:
        """The zygote's next word; empty where it is gone."""
        try:
            data = self._control.recv(_MESSAGE_BYTES)
        except (TimeoutError, ConnectionError):
            return []
        return list(decode(data)) if data else []

    def processes(self) -> list[int]:
        """The ids of its processes, for who measures them."""
        return [self._zygote.pid, *(worker.pid for worker in self._workers.values())]

    def drop(self, binding: Binding) -> None:
        """End a worker: the next claim of its binding gets a fresh process."""
        worker = self._workers.pop(binding, None)
        if worker is not None:
            worker.socket.close()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            os.close(worker.pidfd)

    def close(self) -> None:
        """End every process, and remove the folder."""
        for binding in list(self._workers):
            self.drop(binding)
        self._control.close()
        self._zygote.kill()
        self._zygote.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _sweep(place: Path) -> None:
    """Remove what others of this user left behind when they were killed: nobody holds their locks any longer."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, held, or gone this moment
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                with (folder / _LOCK).open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
