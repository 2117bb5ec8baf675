"""What nobody foresaw at the top of a daemon's loop: it ends the process, and says what it was."""

from __future__ import annotations

import asyncio
import os

import pytest

from edge.core.unforeseen import end_by_unforeseen, raise_on


def fails() -> None:
    raise KeyError("ours")


async def fails_later() -> None:
    fails()


@pytest.fixture
async def ended() -> list[int]:
    """The exit codes the process would have ended with."""
    codes: list[int] = []
    end_by_unforeseen(asyncio.get_running_loop(), codes.append)
    return codes


async def test_a_callback_that_raises_ends_the_process(
    ended: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever was called back did half of its work: the process ends, with the whole story in its log."""
    asyncio.get_running_loop().call_soon(fails)
    await asyncio.sleep(0)
    assert ended == [1]
    assert "KeyError: 'ours'" in caplog.text


async def test_a_task_without_an_end_that_ends_is_not_passed_over(ended: list[int]) -> None:
    """A chore that is held by somebody would be missed by nobody: what ended it comes up at once."""
    chore = asyncio.get_running_loop().create_task(fails_later())
    chore.add_done_callback(raise_on)
    for _ in range(3):
        await asyncio.sleep(0)
    assert ended == [1]


async def test_a_cancelled_task_is_no_failure(ended: list[int]) -> None:
    """A chore is cancelled when the process stops."""
    chore = asyncio.get_running_loop().create_task(fails_later())
    chore.add_done_callback(raise_on)
    chore.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert ended == []


async def test_a_connection_that_breaks_is_nobodys_mistake(ended: list[int]) -> None:
    """What the loop itself says of a transport's socket is told, and the process goes on."""
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    transport, protocol = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reader, "rb"))
    context = {"message": "Fatal read error", "exception": OSError(5, "broken"), "transport": transport}
    loop.call_exception_handler({**context, "protocol": protocol})
    os.close(writer)
    transport.close()
    await asyncio.sleep(0)
    assert ended == []


async def test_a_complaint_of_the_loops_is_not_an_error(
    ended: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing was raised nothing was left half done: it is said, and no more."""
    asyncio.get_running_loop().call_exception_handler({"message": "Task was destroyed but it is pending!"})
    assert ended == []
    assert "Task was destroyed" in caplog.text
