"""Worker processes as the runtime sees them: asked for, bound, fed, timed, killed, replaced.

Owned by the runtime's loop. A slot holds one process at a time. A process that has run a playbook's own code
is bound to that playbook (and its memory limit) until it ends: landlock and seccomp cannot be loosened and
Python's globals leak (design §4, Statelessness). Built-in kinds share processes, and only they are queued
behind one another in a process, because they end soon.

It decides nothing about executions: it hands outcomes and losses to its `Claims` callbacks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from edge.core.codec import encode
from edge.core.errors import StorageFailed
from edge.runtime.workers.process import WorkerProcess, described_end
from edge.runtime.workers.work import PIPELINE_US_MAX, Binding, Work
from edge.worker.claims import Claim, Outcome
from edge.worker.zygote import recv_message

logger = logging.getLogger(__name__)

#: Built-in claims sent ahead to a process that still works on an earlier one: hides the way to and fro, and
#: lets both sides say more at once (16 instead of 8: a tenth more executions per second).
PIPELINE_CLAIMS_MAX: Final = 16
#: Kinds of claims whose usual time is remembered.
_TYPICAL_MAX: Final = 1_024
_SWEEP_S: Final = 0.02
#: After these a new process takes over: landlock rules hold on to a deleted folder; and memory once filled to its
#: limit stays in pieces that count.
_RETIRING: Final = frozenset({"cache_folder_gone", "memory_exceeded"})
_SHARED_MEMORY_MB: Final = 256


class Claims(Protocol):
    """Who is told how a claim ended; exactly one of these is called for each."""

    def settled(self, claim: Claim, outcomes: list[Outcome]) -> None:
        """The worker answered."""

    def lost(self, claim: Claim, code: str, reason: str) -> None:
        """The worker died or was killed while it worked on the claim."""


class WorkerPool:
    """All slots, the queue in front of them, and the zygote behind them."""

    def __init__(
        self,
        control: socket.socket,
        slots: int,
        claims: Claims,
        *,
        cache_folder: Callable[[bytes], Path],
        on_zygote_gone: Callable[[], None],
    ) -> None:
        self._control, self._claims = control, claims
        self._cache_folder, self._on_zygote_gone = cache_folder, on_zygote_gone
        self._loop = asyncio.get_running_loop()
        self._slots: list[WorkerProcess | None] = [None] * slots
        self._by_pid: dict[int, WorkerProcess] = {}
        self._waiting: deque[Work] = deque()
        self._typical_us: dict[tuple[bytes, tuple[int, ...]], int] = {}
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._hear_zygote)

    @property
    def busy(self) -> bool:
        """True while a claim is under way or waits for a worker."""
        return bool(self._waiting) or any(process and process.under_way for process in self._slots)

    def pids(self) -> list[int]:
        """Process ids of the live workers."""
        return [process.pid for process in self._slots if process is not None and process.pid]

    def warm(self) -> None:
        """Fork shared workers into empty slots, so that the first request does not wait for one."""
        for slot, process in enumerate(self._slots):
            if process is None:
                self._fork(slot, None)

    def submit(self, work: Work) -> None:
        """Queue a claim; it is sent as soon as a process may take it."""
        claim = work.claim
        work.typical_us = self._typical_us.get((claim.digest, claim.steps), PIPELINE_US_MAX)
        self._waiting.append(work)
        if len(self._waiting) == 1:  # else the one in front waits for a process, and this one behind it
            self._pump()

    # ---- choosing a process ------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._waiting and not self._closing:
            work = self._waiting[0]
            process = self._choose(work)
            if process is None:
                self._make_way(work)
                return
            self._waiting.popleft()
            self._send(process, work)

    def _choose(self, work: Work) -> WorkerProcess | None:
        chosen, fewest = None, PIPELINE_CLAIMS_MAX
        for process in self._slots:
            if process is not None and len(process.under_way) < fewest and process.takes(work):
                chosen, fewest = process, len(process.under_way)
        return chosen

    def _make_way(self, work: Work) -> None:
        """Nobody may take it now: fork into an empty slot, or end an idle process of another binding."""
        binding = work.binding
        if any(p is not None and p.transport is None and p.binding == binding for p in self._slots):
            return
        for slot, process in enumerate(self._slots):
            if process is None:
                self._fork(slot, work)
                return
        for process in self._slots:
            if process is not None and process.transport and not process.under_way and not process.retiring:
                process.retiring = True
                process.transport.close()
                return

    def _send(self, process: WorkerProcess, work: Work) -> None:
        claim = work.claim
        blueprint = None if claim.digest in process.seen else work.blueprint
        process.seen.add(claim.digest)
        message = claim.message()
        message[2], message[-1] = blueprint, work.circuits
        assert process.outbox is not None
        if not process.under_way:
            self._start_clock(work)
        # One that has nothing to do starts at once, while what led to this claim is encoded and written down.
        process.outbox.send(message)
        process.under_way.append(work)
        process.under_way_us += work.typical_us

    # ---- a process's life ----------------------------------------------------------------------------

    def _fork(self, slot: int, work: Work | None) -> None:
        binding = work.binding if work is not None else None
        if work is not None and not self._has_folder(work):
            return
        process = WorkerProcess(slot, binding, self)
        self._slots[slot] = process
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if binding is None:
            binding = Binding("", _SHARED_MEMORY_MB)
        message = encode([slot, binding.folder, binding.memory_mb, binding.access.parts(), binding.pure])
        try:
            socket.send_fds(self._control, [message], [theirs.fileno()])
        except OSError:
            ours.close()
            self._on_zygote_gone()
            return
        finally:
            theirs.close()
        task = self._loop.create_task(self._connect(process, ours))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _has_folder(self, work: Work) -> bool:
        """Whether the playbook's cache folder is there for the process; where it cannot be, the claim is lost."""
        try:
            self._cache_folder(work.claim.digest)
        except StorageFailed as error:
            self._waiting.remove(work)
            self._loop.call_soon(self._lost_unbegun, work, error)
            return False
        return True

    def _lost_unbegun(self, work: Work, error: StorageFailed) -> None:
        self._claims.lost(work.claim, error.problem_code, error.message)
        self._pump()  # what stood behind it may go elsewhere

    async def _connect(self, process: WorkerProcess, ours: socket.socket) -> None:
        await self._loop.create_connection(lambda: process, sock=ours)
        self._pump()

    def _hear_zygote(self) -> None:
        while True:
            try:
                message: list[Any] = recv_message(self._control)
            except BlockingIOError:
                return
            except OSError:
                message = []
            if not message:
                self._loop.remove_reader(self._control.fileno())
                if not self._closing:
                    self._on_zygote_gone()
                return
            if message[0] == "forked":
                self._forked(message[1], message[2])
            elif message[0] == "exited":
                self._exited(message[1], message[2])

    def _forked(self, slot: int, pid: int) -> None:
        process = self._slots[slot]
        assert process is not None, "a fork was reported for an empty slot"
        process.pid = pid
        self._by_pid[pid] = process
        try:
            process.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return  # it ended already; its exit is the next message
        if process.reason is not None:
            process.kill(process.reason)

    def _exited(self, pid: int, status: int) -> None:
        process = self._by_pid.pop(pid)
        process.status = status
        if process.pidfd >= 0:
            os.close(process.pidfd)
            process.pidfd = -1
        self.ended(process)

    def ended(self, process: WorkerProcess) -> None:
        """Both its socket and its process are gone: settle what it had, free its slot."""
        if not process.closed or process.status is None:
            return
        self._slots[process.slot] = None
        code, reason = process.reason or ("worker_lost", described_end(process.status))
        had = list(process.under_way)
        process.under_way.clear()
        if not had and not process.served and not process.retiring and self._waiting and not self._closing:
            # It could not even start; without this the same claim would fork for ever.
            had = [self._waiting.popleft()]
        if process.retiring and process.reason is None:
            self._waiting.extendleft(reversed(had))
        elif had:
            logger.warning("worker %d ended (%s) on %s", process.pid, reason, had[0].claim.execution_id)
            # Claims behind the first were never begun: they go back in front, and no attempt is counted.
            self._waiting.extendleft(reversed(had[1:]))
            self._claims.lost(had[0].claim, code, reason)
        if not self._closing:
            self._pump()

    def replied(self, process: WorkerProcess, outcomes: list[Outcome], spent: bool) -> None:
        """A worker answered its oldest claim. What the outcomes' taker raises is nothing of the worker's."""
        work = process.under_way.popleft()
        process.under_way_us -= work.typical_us
        process.served = True
        self._learn(work, sum([outcome.duration_us for outcome in outcomes]))
        if process.under_way:
            self._start_clock(process.under_way[0])
        self._mind_end(process, (outcomes[-1].problem or {}).get("code"), spent=spent)
        self._claims.settled(work.claim, outcomes)
        if self._waiting:
            self._pump()

    def _learn(self, work: Work, took_us: int) -> None:
        """Remember how long this kind of claim usually takes; one hiccup changes little."""
        kind = (work.claim.digest, work.claim.steps)
        known_us = self._typical_us.get(kind)
        if known_us is None:
            if len(self._typical_us) >= _TYPICAL_MAX:
                self._typical_us.clear()
            known_us = took_us
        self._typical_us[kind] = known_us + (took_us - known_us) // 8

    def _mind_end(self, process: WorkerProcess, code: str | None, *, spent: bool) -> None:
        if code == "blueprint_unknown":
            process.seen.clear()
        elif (spent or code in _RETIRING) and not process.under_way:
            process.retiring = True
            assert process.transport is not None
            process.transport.close()

    # ---- time limits ---------------------------------------------------------------------------------

    def _start_clock(self, work: Work) -> None:
        work.started_s = self._loop.time()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now_s = self._loop.time()
        working = [process for process in self._slots if process is not None and process.under_way]
        for process in working:
            work = process.under_way[0]
            if now_s - work.started_s > work.timeout_s:
                process.kill(("timeout", f"it ran longer than {work.timeout_s:g} s"))
        if working:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    async def close(self) -> None:
        """End all workers; what they worked on stays unsettled and is resumed by the next runtime."""
        self._closing = True
        self._loop.remove_reader(self._control.fileno())
        for process in self._slots:
            if process is not None:
                process.kill(("worker_lost", "the runtime is stopping"))
        self._control.close()
