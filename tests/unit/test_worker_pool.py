"""How many claims the pool sends ahead to one process: by what such claims usually take."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from edge.core.codec import encode
from edge.core.errors import StorageFailed
from edge.core.frames import FrameBuffer, pack
from edge.runtime.workers.pool import PIPELINE_CLAIMS_MAX, WorkerPool
from edge.runtime.workers.work import PIPELINE_US_MAX, Work
from edge.worker.claims import Claim, Outcome, reply

DIGEST = bytes(32)
OTHER = bytes([1] * 32)


class Rig:
    """A pool of one process; the test is its zygote and its worker."""

    def __init__(self) -> None:
        self.control, self.zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker: socket.socket | None = None
        self.settled_numbers: list[int] = []
        self.lost_numbers: list[int] = []
        #: What `settled` raises, if anything.
        self.raises: Exception | None = None
        self.without_folder: set[bytes] = set()
        self.pool = WorkerPool(
            self.control, 1, self, cache_folder=self._cache_folder, on_zygote_gone=lambda: None
        )
        self.buffer = FrameBuffer()
        self.number = 0

    def settled(self, claim: Claim, outcomes: list[Outcome]) -> None:
        self.settled_numbers.append(claim.number)
        if self.raises is not None:
            raise self.raises

    def lost(self, claim: Claim, code: str, reason: str) -> None:
        assert code == "storage_failed", reason
        self.lost_numbers.append(claim.number)

    def _cache_folder(self, digest: bytes) -> Path:
        if digest in self.without_folder:
            raise StorageFailed("no room")
        return Path()

    async def start(self, pid: int | None = None) -> None:
        """Fork the process: its socket comes here."""
        self.pool.warm()
        await self.forked(pid)

    async def forked(self, pid: int | None = None) -> None:
        """The zygote forks what it was asked for."""
        _, fds, _, _ = socket.recv_fds(self.zygote, 4_096, 1)
        self.worker = socket.socket(fileno=fds[0])
        self.worker.setblocking(False)
        # Any live process does: nobody is killed here, unless the test brings one.
        self.zygote.send(encode(["forked", 0, pid or os.getpid()]))
        await self.turns()

    async def ended(self) -> None:
        """The process ends, as it was asked to."""
        assert self.worker is not None
        await self.turns()
        assert self.worker.recv(1) == b"", "it is not asked to end"
        self.worker.close()
        self.zygote.send(encode(["exited", os.getpid(), 0]))
        await self.turns()

    def submit(self, count: int, *, author_code: bool = False, digest: bytes = DIGEST) -> None:
        for _ in range(count):
            self.number += 1
            claim = Claim(self.number, digest, None, 1, "x-1", (0,), 0, 1, None, {}, {})
            self.pool.submit(Work(claim, b"blueprint", 10.0, author_code, "f", 64))

    async def turns(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def got(self) -> list[int]:
        """Numbers of the claims that reached the worker since the last look."""
        await self.turns()
        assert self.worker is not None
        try:
            return [message[0] for message in self.buffer.feed(self.worker.recv(1 << 20))]
        except BlockingIOError:
            return []

    async def answer(self, numbers: list[int], took_us: int) -> None:
        assert self.worker is not None
        outcome = Outcome("value", value=encode(1), duration_us=took_us)
        self.worker.send(b"".join(pack(reply(number, [outcome])) for number in numbers))
        await self.turns()

    async def close(self) -> None:
        assert self.worker is not None
        self.pool._by_pid.clear()
        for process in self.pool._slots:
            if process is not None:
                os.close(process.pidfd)
                process.pidfd = -1
        await self.pool.close()
        self.worker.close()
        self.zygote.close()
        await self.turns()


async def test_claims_of_an_unknown_kind_go_one_by_one() -> None:
    """Nobody knows how long the first takes, so nothing waits behind it in the same process."""
    rig = Rig()
    await rig.start()
    rig.submit(3)
    assert await rig.got() == [1]
    await rig.close()


async def test_short_claims_are_sent_ahead_up_to_the_bound() -> None:
    """Once a kind is known to be short, a process gets as many as PIPELINE_CLAIMS_MAX."""
    rig = Rig()
    await rig.start()
    rig.submit(1)
    await rig.answer(await rig.got(), 100)
    rig.submit(PIPELINE_CLAIMS_MAX + 5)
    sent = await rig.got()
    assert sent == list(range(2, 2 + PIPELINE_CLAIMS_MAX))
    await rig.answer(sent[:3], 100)
    assert len(await rig.got()) == 3
    await rig.close()


async def test_together_they_stay_below_the_time_bound() -> None:
    """Claims of a millisecond each are sent ahead only as far as PIPELINE_US_MAX reaches."""
    rig = Rig()
    await rig.start()
    rig.submit(1)
    await rig.answer(await rig.got(), 1_000)
    rig.submit(20)
    assert len(await rig.got()) == PIPELINE_US_MAX // 1_000
    await rig.close()


async def test_a_kind_that_grows_slow_is_sent_ahead_less() -> None:
    """What a claim takes is learned from every answer, not only from the first."""
    rig = Rig()
    await rig.start()
    for took_us in (10, *[40_000] * 30):
        rig.submit(1)
        await rig.answer(await rig.got(), took_us)
    rig.submit(5)
    assert len(await rig.got()) == 1
    assert len(rig.settled_numbers) == 31
    await rig.close()


async def test_a_process_that_ended_already_is_no_error() -> None:
    """A worker that ended by itself just before it is to be killed: its end is on its way, and the pool goes on."""
    rig = Rig()
    with subprocess.Popen(["sleep", "60"]) as process:
        await rig.start(process.pid)
        process.kill()
    for each in rig.pool._slots:
        assert each is not None
        each.kill(("timeout", "too long"))
    await rig.close()


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(5, "the drive"), KeyError("ours")])
async def test_what_an_outcomes_taker_raises_comes_to_the_loops_top(error: Exception) -> None:
    """It is never taken for a worker's nonsense or a socket's fault: the claim would be gone and its run hang."""
    rig = Rig()
    reached: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reached.append(context["exception"]))
    rig.raises = error
    await rig.start()
    rig.submit(1)
    await rig.got()
    await rig.answer([1], took_us=10)
    (found,) = reached
    assert error in (found, found.__cause__)
    assert not isinstance(found, OSError), "an event loop keeps those to itself"
    await rig.close()


async def test_what_stood_behind_a_claim_without_a_folder_goes_on() -> None:
    """A playbook whose folder cannot be made loses its claim; the one behind it has a process of its own."""
    rig = Rig()
    rig.without_folder = {OTHER}
    await rig.start()
    rig.submit(1)
    assert await rig.got() == [1]
    rig.submit(1, author_code=True, digest=OTHER)
    rig.submit(1)
    await rig.answer([1], took_us=10)
    await rig.ended()
    assert rig.lost_numbers == [2]
    await rig.forked()
    assert await rig.got() == [3]
    await rig.close()
