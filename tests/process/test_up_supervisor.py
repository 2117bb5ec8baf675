"""The supervisor of `edge up` over real processes: what cannot be started is tried again, no failure passed over."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from edge.cli.up import _Supervisor
from edge.core.settings import load_settings


def supervisor(tmp_path: Path) -> _Supervisor:
    return _Supervisor(load_settings(tmp_path), 0, "info")


async def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine had no process to give, or the program was not there: it says so and comes back to it."""
    made = supervisor(tmp_path)
    refuses = [sys.executable, "-c", "raise SystemExit(2)"]
    commands = [[str(tmp_path / "nothing")], [str(tmp_path / "nothing")], refuses]
    async with asyncio.timeout(30):
        await made._keep("runtime", lambda: commands.pop(0))
    said = capsys.readouterr().err
    assert said.count("runtime cannot be started (No such file or directory); it starts again in") == 2
    assert "runtime cannot start (see above); all stop" in said


async def test_a_supervisor_that_fails_over_one_process_ends_and_says_why(tmp_path: Path) -> None:
    """A mistake of its own over one of them would leave that one down for good, and nobody would know."""
    made = supervisor(tmp_path)
    (tmp_path / "run").mkdir()

    async def fails() -> None:
        raise KeyError("ours")

    task = asyncio.get_running_loop().create_task(fails())
    await asyncio.wait([task])
    with pytest.raises(KeyError, match="ours"):
        await made._end([task])
