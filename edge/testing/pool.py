"""A worker pool in this process: `edge.runtime.dispatch.ports.Pool` without fork, socket or time limit.

Claims queue until `run` takes them, one at a time, in order: a test decides what happens when. By default a
claim is carried out by the real worker loop (`edge.worker.loop`), not locked in, so only code that a test
wrote itself may run here. `answer` replaces that.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.core.errors import CacheMiss
from edge.core.frames import FrameBuffer, pack
from edge.core.records import record
from edge.runtime.workers.pool import Claims
from edge.runtime.workers.work import Work
from edge.worker.claims import MISS, Outcome, read_reply
from edge.worker.loop import run as serve

_RECEIVE_BYTES: Final = 1 << 20
#: A claim and its reply lie in the socket's buffer, since both ends are on one thread.
_BUFFER_BYTES: Final = 4 << 20


@record
class Lost:
    """The worker died over the claim."""

    code: str = "worker_lost"
    reason: str = "its worker was ended by signal 9 (SIGKILL)"


Answer = Callable[[Work], "list[Outcome] | Lost"]
"""How one claim ends."""


class FakePool:
    """Queued claims, and what became of them."""

    def __init__(self, claims: Claims, cache_root: Path, answer: Answer | None = None) -> None:
        self._claims, self._cache_root = claims, cache_root
        self.answer: Answer = answer if answer is not None else self.work
        self.waiting: deque[Work] = deque()
        #: Every claim ever submitted, oldest first.
        self.submitted: list[Work] = []

    def submit(self, work: Work) -> None:
        """Queue a claim."""
        self.submitted.append(work)
        self.waiting.append(work)

    def run(self) -> bool:
        """Carry out the oldest claim and report it. False where there is none."""
        if not self.waiting:
            return False
        work = self.waiting.popleft()
        ended = self.answer(work)
        if isinstance(ended, Lost):
            self._claims.lost(work.claim, ended.code, ended.reason)
        else:
            self._claims.settled(work.claim, ended)
        return True

    def work(self, work: Work) -> list[Outcome]:
        """Carry out one claim with the real worker loop; its outcomes. Reports nothing."""
        message = work.claim.message()
        message[2], message[-1] = work.blueprint, work.circuits
        try:
            root_fd = os.open(self._cache_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            # A real worker holds on to the deleted folder and finds nothing in it.
            gone = CacheMiss("The playbook's cache folder is gone.", code="cache_folder_gone")
            return [Outcome(MISS, problem=gone.problem())]
        ours, theirs = socket.socketpair()
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                end.settimeout(10)
            ours.sendall(pack(message))
            ours.shutdown(socket.SHUT_WR)
            serve(theirs, root_fd, bound=False)
            buffer = FrameBuffer()
            while True:
                for reply in buffer.feed(ours.recv(_RECEIVE_BYTES)):
                    number, outcomes, _ = read_reply(reply)
                    assert number == work.claim.number
                    return outcomes
        finally:
            ours.close()
            theirs.close()
            os.close(root_fd)
