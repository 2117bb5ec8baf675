"""Timers as the source of a subscription: ticks, and what an absence or a set clock makes of them."""

from __future__ import annotations

from pathlib import Path

from edge.core.subscription_events import (
    TicksMissed,
)
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from tests.unit.subscription_rig import of_kind, opened, outputs, timer


async def test_a_timer_ticks_and_makes_up_once_for_an_absence(tmp_path: Path) -> None:
    """Each tick is one event and one execution; after a power cut the wall clock says how many were missed."""
    clock = ManualClock()
    box = await opened(tmp_path / "one", clock=clock)
    await box.subscribe(timer())
    for _ in range(3):
        await box.pass_time(10)
    assert [output["n"] for output in outputs(box)] == [1, 2, 3]
    assert outputs(box)[0]["scheduled"].endswith(":10.000Z")
    await box.close()
    later = ManualClock()
    later.advance(3_600 * 10**9)
    after = Box(tmp_path / "one", clock=later, boot_id=b"another boot id.")
    await after.settle()
    ticks = [output["n"] for output in outputs(after)]
    assert ticks[:3] == [1, 2, 3]
    assert len(ticks) == 4
    missed = of_kind(after, TicksMissed)[0].body
    assert isinstance(missed, TicksMissed)
    assert ticks[3] == 3 + missed.count + 1
    await after.pass_time(10)
    assert outputs(after)[-1]["n"] == ticks[3] + 1
    await after.close()


async def test_a_timer_keeps_its_rhythm_when_the_wall_clock_jumps(tmp_path: Path) -> None:
    """Within a boot only the time since boot counts, and a restart of the runtime changes nothing."""
    clock = ManualClock()
    box = await opened(tmp_path, clock=clock)
    await box.subscribe(timer())
    await box.pass_time(10)
    clock.set_wall(clock.now.wall_ns + 86_400 * 10**9)
    await box.pass_time(5)
    await box.close()
    after = Box(tmp_path, clock=clock)
    clock.set_wall(clock.now.wall_ns - 172_800 * 10**9)
    await after.pass_time(4.9)
    assert [output["n"] for output in outputs(after)] == [1]
    await after.pass_time(0.2)
    assert [output["n"] for output in outputs(after)] == [1, 2]
    await after.close()
