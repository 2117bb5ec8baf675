"""The thread that writes: what becomes of a job whose loop has ended before it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge.core.errors import StorageFailed
from edge.runtime.commit.threads import JobThread


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_that_ends_after_its_loop_is_no_error(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """A runtime that ends by another error leaves jobs behind: they run, tell nobody, and no traceback is written."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    may_end, told = threading.Event(), []

    def job() -> None:
        may_end.wait()
        if fails:
            raise StorageFailed("The drive refused.")

    async def begin() -> JobThread:
        made = JobThread("journal", told.append)
        made.run(job, lambda: told.append("done"))
        return made

    thread = asyncio.run(begin())
    may_end.set()
    asyncio.run(thread.end())
    assert (raised, told) == ([], [])
