"""Timers as the source of a subscription: ticks, and what an absence or a set clock makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED
from edge.core.limits import CLOCK_GRACE_S
from edge.core.subscription_events import MessageReceived, TicksMissed
from edge.testing.box import Box
from edge.testing.clock import START_WALL_NS, ManualClock
from tests.unit.subscription_rig import of_kind, opened, outputs, timer

S = 1_000_000_000
OTHER_BOOT = b"another boot id."
YEARS = 10 * 365 * 86_400


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
    later.set_wall(START_WALL_NS + 3_600 * S)
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


def numbers(box: Box) -> list[int]:
    """The ticks that were carried out."""
    return [output["n"] for output in outputs(box)]


async def test_it_waits_for_the_clock_after_a_power_cut(tmp_path: Path) -> None:
    """Woken in 1970 nobody knows whether the hour is over: it gives the clock its moment, and is not early."""
    box = await opened(tmp_path)
    await box.subscribe(timer(every="1h"))
    await box.pass_time(3_600)
    await box.close()
    clock = ManualClock()
    clock.set_wall(0, WALL_IMPLAUSIBLE)
    after = Box(tmp_path, clock=clock, boot_id=OTHER_BOOT)
    await after.settle()
    await after.pass_time(100)
    assert numbers(after) == [1]
    clock.set_wall(START_WALL_NS + 3_600 * S + 1_800 * S)
    after.subscriptions.look()
    await after.pass_time(1_799)
    assert numbers(after) == [1]
    await after.pass_time(1)
    assert numbers(after) == [1, 2]
    await after.close()


async def test_a_clock_that_is_never_set_makes_one_tick_of_the_absence(tmp_path: Path) -> None:
    """Once its moment is over one tick is due, and the event says that no clock could say."""
    box = await opened(tmp_path)
    await box.subscribe(timer(every="1h", missed="all"))
    await box.pass_time(3_600)
    await box.close()
    clock = ManualClock()
    clock.set_wall(0, WALL_IMPLAUSIBLE)
    after = Box(tmp_path, clock=clock, boot_id=OTHER_BOOT)
    await after.settle()
    for _ in range(CLOCK_GRACE_S // 30):
        assert numbers(after) == [1]
        await after.pass_time(30)
    assert numbers(after) == [1, 2]
    tick = of_kind(after, MessageReceived)[-1].body
    assert isinstance(tick, MessageReceived)
    assert tick.tick is not None
    assert tick.tick[4:] == [WALL_IMPLAUSIBLE, "unknown"]
    await after.pass_time(3_600)
    assert numbers(after) == [1, 2, 3]
    await after.close()


@pytest.mark.parametrize("years", [10, -10])
@pytest.mark.parametrize("trust", [WALL_UNCONFIRMED, WALL_SYNCHRONISED])
async def test_an_aligned_timer_is_shifted_by_a_set_clock_and_makes_up_for_nothing(
    tmp_path: Path, years: int, trust: int
) -> None:
    """Ten years either way: no tick is missed, none made up; its boundaries are a new clock's that is believed."""
    clock = ManualClock()
    box = await opened(tmp_path, clock=clock)
    await box.subscribe(timer(align=True, missed="all"))
    await box.pass_time(10)
    clock.set_wall(START_WALL_NS + years * 365 * 86_400 * S + 13 * S, trust)
    box.subscriptions.look()
    left_s = 7.0 if trust == WALL_SYNCHRONISED else 10.0
    await box.pass_time(left_s - 0.1)
    assert numbers(box) == [1]
    await box.pass_time(0.2)
    assert numbers(box) == [1, 2]
    await box.pass_time(10)
    assert numbers(box) == [1, 2, 3]
    assert of_kind(box, TicksMissed) == []
    await box.close()


async def test_an_aligned_timer_goes_on_without_a_clock(tmp_path: Path) -> None:
    """From the last good reading, and where there was none, by the time since boot alone."""
    for wall_ns in (START_WALL_NS, 5 * S):
        clock = ManualClock()
        clock.set_wall(wall_ns, WALL_IMPLAUSIBLE if wall_ns == 5 * S else WALL_UNCONFIRMED)
        box = await opened(tmp_path / str(wall_ns), clock=clock)
        await box.subscribe(timer(align=True))
        await box.pass_time(10)
        clock.set_wall(7 * S, WALL_IMPLAUSIBLE)
        for _ in range(5):
            await box.pass_time(10)
        assert numbers(box) == [1, 2, 3, 4, 5, 6]
        await box.close()


async def test_ticks_that_are_skipped_are_named_once(tmp_path: Path) -> None:
    """Off for an hour and half a period: nothing is fired; what was skipped is counted once, also by a restart."""
    box = await opened(tmp_path)
    await box.subscribe(timer(missed="skip"))
    await box.pass_time(10)
    await box.close()
    for _ in range(2):
        clock = ManualClock()
        clock.set_wall(START_WALL_NS + 3_616 * S)
        box = Box(tmp_path, clock=clock, boot_id=OTHER_BOOT)
        await box.settle()
        box.subscriptions.look()
        await box.settle()
        assert [event.body for event in of_kind(box, TicksMissed)] == [TicksMissed(360)]
        await box.close()
    assert numbers(box) == [1]


async def test_a_restart_keeps_the_boot_a_tick_is_of(tmp_path: Path) -> None:
    """Noted in a later boot, the last tick is still one of the boot before: what passed since is the wall clock's."""
    box = await opened(tmp_path)
    number = await box.subscribe(timer(every="1h"))
    await box.pass_time(3_600)
    await box.close()
    clock = ManualClock()
    clock.set_wall(START_WALL_NS + 3_600 * S + 3_000 * S)
    for _ in range(2):
        box = Box(tmp_path, clock=clock, boot_id=OTHER_BOOT)
        box.subscriptions.pause(box.subscriptions.find("in/s"), "ops", lambda state: None)
        await box.settle()
        box.subscriptions.resume(box.subscriptions.find("in/s"), "ops", lambda state: None)
        await box.settle()
        assert (numbers(box), number > 0) == ([1], True)
        if not clock.now.mono_ns > S:
            clock.advance(1)
            await box.close()
    await box.pass_time(600)
    assert numbers(box) == [1, 2]
    await box.close()
