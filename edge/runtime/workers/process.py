"""One worker process as the runtime sees it: from the fork request to the report of its end.

Owned by the pool, which chooses what it gets. It reads what the worker says and hands answers on; what is no answer
of a worker's ends the process. Must never take a mistake of who takes the answers for one of the worker's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, cast

from edge.core.frames import FrameBuffer, FrameOutbox
from edge.core.unforeseen import NotTheSockets
from edge.runtime.workers.work import PIPELINE_US_MAX, Binding, Work
from edge.worker.claims import Outcome, read_reply

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Who is told what came of a process (`edge.runtime.workers.pool.WorkerPool`)."""

    def replied(self, process: WorkerProcess, outcomes: list[Outcome], spent: bool) -> None:
        """It answered its oldest claim."""

    def ended(self, process: WorkerProcess) -> None:
        """Its socket is gone; its own end may have been reported by now."""


@dataclass(slots=True, eq=False)
class WorkerProcess(asyncio.Protocol):
    """One worker process, from the fork request to the report of its end."""

    slot: int
    binding: Binding | None
    owner: Owner
    pid: int = 0
    pidfd: int = -1
    transport: asyncio.WriteTransport | None = None
    outbox: FrameOutbox | None = None
    under_way: deque[Work] = field(default_factory=deque)
    under_way_us: int = 0
    seen: set[bytes] = field(default_factory=set)
    buffer: FrameBuffer = field(default_factory=FrameBuffer)
    reason: tuple[str, str] | None = None
    closed: bool = False
    status: int | None = None
    retiring: bool = False
    served: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclasses
        self.outbox = FrameOutbox(self.write, asyncio.get_running_loop().call_soon)

    def write(self, data: bytes) -> None:
        """Write frames; what a process that is going does not get, it is asked again of another."""
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        try:
            messages = self.buffer.feed(data)
        except ValueError as error:
            self._talks_nonsense(error)
            return
        for message in messages:
            try:
                number, outcomes, spent = read_reply(message)
                self._check_holds(number)
            except ValueError as error:
                self._talks_nonsense(error)
                return
            try:
                self.owner.replied(self, outcomes, spent)
            except OSError as error:
                raise NotTheSockets("An outcome could not be taken") from error

    def _check_holds(self, number: int) -> None:
        if not self.under_way or self.under_way[0].claim.number != number:
            raise ValueError("it answered a claim that it does not hold")

    def _talks_nonsense(self, error: ValueError) -> None:
        logger.error("worker %d talks nonsense: %s", self.pid, error)
        self.kill(("worker_lost", "its worker broke the protocol"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self.closed = True
        self.owner.ended(self)

    def kill(self, reason: tuple[str, str]) -> None:
        """End the process now; what it works on is lost for this reason."""
        self.reason = self.reason or reason
        if self.pidfd >= 0 and self.status is None:
            # It may have ended by itself, and the zygote's word of it be on its way.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def takes(self, work: Work) -> bool:
        """True where this process may run the claim now, if it has not too many already."""
        if self.transport is None or self.closed or self.retiring or self.reason is not None:
            return False
        if work.author_code:
            return self.binding == work.binding and not self.under_way
        bound = self.binding
        if bound is not None and (bound.folder != work.folder or bound.access or bound.pure):
            return False
        if not self.under_way:
            return True
        # Author code is always alone in its process.
        return not self.under_way[0].author_code and self.under_way_us + work.typical_us <= PIPELINE_US_MAX


def described_end(status: int) -> str:
    """How a process ended, by what `waitpid` said; signals of the real-time range have no names."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        named = next((f" ({each.name})" for each in signal.Signals if each == number), "")
        return f"its worker was ended by signal {number}{named}"
    return f"its worker exited with code {os.WEXITSTATUS(status)}"
