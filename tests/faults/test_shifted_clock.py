"""Real daemons under a really shifted clock (shifted_clock.c): 1970 at the start, jumps, a stuck clock, a sleep."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.cli.client import RuntimeClient
from edge.core.clock import WALL_IMPLAUSIBLE, WALL_NS_PLAUSIBLE_MIN, WALL_UNCONFIRMED, Reading
from edge.store.journal import read_groups
from tests.process.box import Box

SOURCE = Path(__file__).with_name("shifted_clock.c")
S = 1_000_000_000
YEARS = 10 * 365 * 86_400 * S
WAIT = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: rest, path: rest}
workflow:
  - step: rest
    tool: {kind: wait, seconds: "{{ workload.s }}"}
"""


class Shift:
    """What the daemons' clocks show besides the truth."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            pytest.skip("not installed: gcc (apt install gcc libc6-dev)")
        library, told = folder / "shifted_clock.so", folder / "shift"
        options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
        subprocess.run(["gcc", *options, "-o", str(library), str(SOURCE), "-ldl"], check=True)
        told.write_bytes(bytes(mmap.PAGESIZE))
        with told.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": str(library), "EDGE_SHIFTED_CLOCK": str(told)}

    def to(self, wall_ns: int = 0, boot_ns: int = 0, stuck_ns: int | None = None) -> None:
        """Add so much to the wall clock and to CLOCK_BOOTTIME, or let the wall clock stand still."""
        self._map[:32] = struct.pack("=4q", wall_ns, boot_ns, int(stuck_ns is not None), stuck_ns or 0)


@pytest.fixture
def shift(tmp_path: Path) -> Shift:
    return Shift(tmp_path)


@pytest.fixture
def box(tmp_path: Path, shift: Shift) -> Iterator[Box]:
    """A runtime that is not started yet."""
    made = Box(tmp_path, 1)
    made.environment = shift.environment
    yield made
    made.down()


def up(box: Box) -> None:
    box.start("runtime")
    box.status()


@contextmanager
def resting(box: Box, seconds: float) -> Iterator[RuntimeClient]:
    """An execution that waits, accepted; `answer` of what this gives is its end."""
    with RuntimeClient(box.settings, 60) as runtime:
        runtime.submit("rest", json.dumps({"s": seconds}).encode(), "application/json", None)
        yield runtime


def answer(runtime: RuntimeClient) -> dict[str, Any]:
    return dict(json.loads(runtime.answer()[2])["result"])


def readings(box: Box) -> list[Reading]:
    """The clocks of every group in the log."""
    return [group.context.at for _, group, _ in read_groups(box.settings.journal_folder)]


def test_a_box_that_wakes_up_in_1970_serves(box: Box, shift: Shift) -> None:
    """Requests and waits go their way, and the log says that its wall clock is no good; then the network sets it."""
    shift.to(wall_ns=100 * S - time.time_ns())
    up(box)
    box.register(WAIT)
    with resting(box, 1.5) as runtime:
        shift.to()
        assert answer(runtime)["by"] == "boottime"
    box.down()
    trusts = [at.wall_trust for at in readings(box)]
    assert trusts[0] == WALL_IMPLAUSIBLE
    assert trusts[-1] != WALL_IMPLAUSIBLE
    assert trusts == sorted(trusts)
    assert box.verify().problems == []


@pytest.mark.parametrize("by_ns", [YEARS, -YEARS])
def test_a_jump_of_ten_years_ends_no_wait(box: Box, shift: Shift, by_ns: int) -> None:
    """While it runs and while the runtime is away: waits last as long as they should, and the log's order stands."""
    up(box)
    box.register(WAIT)
    with resting(box, 3) as runtime:
        shift.to(wall_ns=by_ns)
        told = answer(runtime)
    assert told["by"] == "boottime"
    assert 3_000 <= told["waited_ms"] < 60_000
    with resting(box, 3):
        pass
    box.kill("runtime")
    shift.to()
    up(box)
    with resting(box, 4) as runtime:
        answer(runtime)  # the first one ended before it
    words, seen = box.words(), readings(box)
    box.down()
    ends = [event for event in box.events() if event.type == "task.done"]
    assert len(ends) == 3
    assert box.verify().problems == []
    walls = [at.wall_ns for at in seen]
    assert max(walls) - min(walls) > YEARS // 2, "the shim was there"
    assert any(at.wall_trust == (WALL_UNCONFIRMED if by_ns > 0 else at.wall_trust) for at in seen)
    assert by_ns > 0 or min(walls) < WALL_NS_PLAUSIBLE_MIN
    assert "Traceback" not in words


def test_a_wall_clock_that_stands_still_stops_nothing(box: Box, shift: Shift) -> None:
    """What waits is counted by the other clock, and soon the log says that this one is not believed."""
    up(box)
    box.register(WAIT)
    shift.to(stuck_ns=time.time_ns())
    for _ in range(2):
        with resting(box, 1.5) as runtime:
            assert answer(runtime)["by"] == "boottime"
    box.down()
    assert readings(box)[-1].wall_trust == WALL_IMPLAUSIBLE
    assert box.verify().problems == []


def test_a_box_that_slept_is_on_time_again(box: Box, shift: Shift) -> None:
    """An hour of CLOCK_BOOTTIME passed in a moment of CLOCK_MONOTONIC: what was due in it ends with the next look."""
    up(box)
    box.register(WAIT)
    with resting(box, 3_600) as long:
        with resting(box, 0.2) as short:  # by then the long one waits too
            answer(short)
        shift.to(wall_ns=3_600 * S, boot_ns=3_600 * S)
        with resting(box, 0.2) as short:  # so that the next look is not half a minute away
            answer(short)
        told = answer(long)
    assert told["by"] == "boottime"
    assert told["waited_ms"] >= 3_600_000
    assert os.path.exists(box.settings.socket_path), "nothing took the hour for a hang"
