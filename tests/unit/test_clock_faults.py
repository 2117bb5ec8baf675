"""Every fault of a clock against every mechanism that counts time, on the real engine (edge/core/DESIGN.md).

Each mechanism has 60 s to go when the fault strikes. `over` says whether its time has come.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED
from edge.core.limits import CLOCK_GRACE_S
from edge.runtime.waiting.timers import LOOK_S
from edge.testing.box import BOOT_ID, Box, NeverAlarm
from edge.testing.clock import START_WALL_NS, ManualClock
from edge.testing.plain import playbook
from playbooks.subscription import Subscription
from tests.unit.subscription_rig import opened, outputs, subscription, timer

S = 1_000_000_000
YEARS_NS = 10 * 365 * 86_400 * S
OTHER_BOOT = b"another boot id."
WAIT = {"name": "pause", "kind": "wait"}


class Mechanism:
    """Something that takes 60 s."""

    async def begin(self, box: Box) -> None:
        """It starts to count."""

    async def over(self, box: Box) -> bool:
        """Whether its time has come."""
        await box.settle()
        return bool(box.answers)


class Execution(Mechanism):
    """An execution that ends after 60 s, one way or another; `document` is how."""

    def __init__(self, step: dict[str, Any], deadline_ms: int | None = None) -> None:
        self.step, self.deadline_ms = step, deadline_ms

    async def begin(self, box: Box) -> None:
        await box.register(playbook([{"step": "s", **self.step}]))
        box.submit("t", deadline_ms=self.deadline_ms)
        await box.settle()


class Ids(Mechanism):
    """The window in which an id repeats."""

    async def begin(self, box: Box) -> None:
        given: Subscription = subscription(dedup={"enabled": True, "window_secs": 60})
        number = await box.subscribe(given)
        box.message(number, "a/x", b"1", headers={"message-id": "M"})
        await box.settle()

    async def over(self, box: Box) -> bool:
        intake = box.subscriptions.find("in/s")
        return intake.window.find("M", box.clock.read().mono_ns) is None


class Ticks(Mechanism):
    """The next tick of a timer."""

    async def begin(self, box: Box) -> None:
        await box.subscribe(timer(every="60s"))

    async def over(self, box: Box) -> bool:
        box.subscriptions.look()
        await box.settle()
        return bool(outputs(box))


class Breaker(Mechanism):
    """An open circuit."""

    async def begin(self, box: Box) -> None:
        box.engine.executor.circuits.over(0, [["host:443", False, 1, 60_000]])
        await box.gate.flushed()

    async def over(self, box: Box) -> bool:
        return box.engine.executor.circuits.refused_ms("host:443") == 0


MECHANISMS: dict[str, Callable[[], Mechanism]] = {
    "wait": lambda: Execution({"tool": {**WAIT, "seconds": 60}}),
    "callback": lambda: Execution({"tool": {**WAIT, "callback": True, "timeout": "60s"}}),
    "execution deadline": lambda: Execution({"tool": {**WAIT, "duration": "5d"}}, 60_000),
    "step deadline": lambda: Execution(
        {"tool": {**WAIT, "duration": "5d"}, "spec": {"policy": {"lifecycle": {"deadline_s": 60}}}}
    ),
    "ids": Ids,
    "ticks": Ticks,
    "breaker": Breaker,
}


class Fault:
    """What a wall clock shows from a moment on: set by so much, with so much trust, or standing still."""

    def __init__(self, by_ns: int = 0, to_ns: int | None = None, trust: int = WALL_SYNCHRONISED) -> None:
        self.by_ns, self.to_ns, self.trust = by_ns, to_ns, trust
        self.stuck = False

    def strike(self, clock: ManualClock) -> None:
        clock.set_wall(self.to_ns if self.to_ns is not None else clock.now.wall_ns + self.by_ns, self.trust)


FAULTS: dict[str, Fault] = {
    "ten years ahead": Fault(YEARS_NS),
    "ten years ahead, unconfirmed": Fault(YEARS_NS, trust=WALL_UNCONFIRMED),
    "ten years back": Fault(-YEARS_NS),
    "1970": Fault(to_ns=5 * S, trust=WALL_IMPLAUSIBLE),
}


async def pass_time(box: Box, seconds: float, *, stuck_at: int | None = None) -> None:
    """Time passes; a stuck wall clock stays where it is."""
    clock = box.clock
    assert isinstance(clock, ManualClock)
    await box.pass_time(seconds)
    if stuck_at is not None:
        clock.set_wall(stuck_at, WALL_IMPLAUSIBLE)


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
@pytest.mark.parametrize("fault", [*sorted(FAULTS), "stuck"])
async def test_within_a_boot_no_fault_moves_anything(tmp_path: Path, fault: str, mechanism: str) -> None:
    """While it runs, and again while the runtime is away: over after 60 s of CLOCK_BOOTTIME, not before or after."""
    clock = ManualClock()
    box = await opened(tmp_path / "box", clock=clock)
    counts = MECHANISMS[mechanism]()
    await counts.begin(box)
    stuck = clock.now.wall_ns if fault == "stuck" else None
    if stuck is None:
        FAULTS[fault].strike(clock)
    await pass_time(box, 20, stuck_at=stuck)
    assert not await counts.over(box)
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    if stuck is None:
        FAULTS[fault].strike(clock)
    clock.advance(20 * S)
    box = Box(picture, clock=clock)
    assert not await counts.over(box)
    await pass_time(box, 19, stuck_at=stuck)
    assert not await counts.over(box)
    await pass_time(box, 1, stuck_at=stuck)
    assert await counts.over(box)
    await box.close()


async def after_cut(
    tmp_path: Path, mechanism: str, wall_ns: int, trust: int
) -> tuple[Box, Mechanism, ManualClock]:
    """The next boot, one second old, with this wall clock; 60 s were to go at START_WALL_NS."""
    box = await opened(tmp_path / "box")
    counts = MECHANISMS[mechanism]()
    await counts.begin(box)
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    clock = ManualClock()
    clock.set_wall(wall_ns, trust)
    return Box(picture, clock=clock, boot_id=OTHER_BOOT), counts, clock


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
async def test_over_a_power_cut_the_synchronised_clock_counts(tmp_path: Path, mechanism: str) -> None:
    """What passed without power is taken off."""
    box, counts, _ = await after_cut(tmp_path, mechanism, START_WALL_NS + 30 * S, WALL_SYNCHRONISED)
    await pass_time(box, 29)
    assert not await counts.over(box)
    await pass_time(box, 1)
    assert await counts.over(box)
    await box.close()


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
@pytest.mark.parametrize(
    ("wall_ns", "trust"), [(5 * S, WALL_IMPLAUSIBLE), (START_WALL_NS + 9, WALL_UNCONFIRMED)]
)
async def test_over_a_power_cut_a_clock_that_is_not_set_is_waited_for(
    tmp_path: Path, mechanism: str, wall_ns: int, trust: int
) -> None:
    """Nothing but a breaker is early; set within its moment, the clock is believed after all."""
    box, counts, clock = await after_cut(tmp_path, mechanism, wall_ns, trust)
    await pass_time(box, 20)
    if mechanism == "breaker":
        assert await counts.over(box), "a probe does no harm"
    else:
        assert not await counts.over(box)
        clock.set_wall(START_WALL_NS + 50 * S, WALL_SYNCHRONISED)
        await pass_time(box, 9)
        # An id counts from the start of this boot where no clock could say at the start: longer, never shorter.
        assert not await counts.over(box)
        await pass_time(box, 31)
        assert await counts.over(box)
    await box.close()


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
async def test_over_a_power_cut_what_no_clock_says_counts_as_passed(tmp_path: Path, mechanism: str) -> None:
    """Over when this boot alone has lasted so long, at the latest; a long one after the clock had its moment."""
    box, counts, _ = await after_cut(tmp_path, mechanism, 5 * S, WALL_IMPLAUSIBLE)
    await pass_time(box, min(60, CLOCK_GRACE_S))
    assert await counts.over(box)
    await box.close()


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
async def test_over_a_power_cut_a_clock_set_ahead_ends_all(tmp_path: Path, mechanism: str) -> None:
    """Ten years ahead and synchronised, it is believed: all is over, and waits say that it was the wall clock."""
    wall_ns = START_WALL_NS + YEARS_NS
    box, counts, _ = await after_cut(tmp_path, mechanism, wall_ns, WALL_SYNCHRONISED)
    assert await counts.over(box)
    if mechanism == "wait":
        assert box.document()["result"]["by"] == "wall"
    await box.close()


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
async def test_over_a_power_cut_a_clock_set_back_contradicts_itself(tmp_path: Path, mechanism: str) -> None:
    """Ten years back, or stuck where it was: no clock can say, so it is over and says so; an id is kept."""
    for wall_ns in (START_WALL_NS - YEARS_NS, START_WALL_NS):
        folder = tmp_path / str(wall_ns)
        box, counts, _ = await after_cut(folder, mechanism, wall_ns, WALL_SYNCHRONISED)
        assert await counts.over(box) is (mechanism != "ids")
        if mechanism == "wait":
            assert box.document()["result"]["by"] == "after_power_loss"
        await pass_time(box, 60)
        assert await counts.over(box)
        await box.close()


async def test_after_a_suspend_everything_is_on_time_again(tmp_path: Path) -> None:
    """The loop's own clock stood still, so it comes by every 30 s of being awake, whatever is armed."""
    alarms: list[tuple[float, Callable[[], object]]] = []
    box = await opened(tmp_path)
    timers = box.engine.executor.timers

    def after_s(delay_s: float, call: Callable[[], object]) -> NeverAlarm:
        alarms.append((delay_s, call))
        return NeverAlarm()

    timers.after_s = after_s
    await Execution({"tool": {**WAIT, "duration": "1h"}}).begin(box)
    assert alarms[-1][0] == LOOK_S
    assert isinstance(box.clock, ManualClock)
    box.clock.advance(7_200 * S)
    alarms[-1][1]()
    await box.settle()
    assert box.document()["result"] == {"by": "boottime", "waited_ms": 7_200_000}
    await box.close()


async def test_an_instant_is_the_last_good_clocks(tmp_path: Path) -> None:
    """`until` follows a clock that is believed as it was; one that jumped and is not goes on from where it was."""
    for trust, seconds in ((WALL_UNCONFIRMED, 60), (WALL_IMPLAUSIBLE, 60), (WALL_SYNCHRONISED, 30)):
        clock = ManualClock()
        box = await opened(tmp_path / str(trust), clock=clock)
        await Execution({"tool": {**WAIT, "until": START_WALL_NS // S + 60}}).begin(box)
        clock.set_wall(START_WALL_NS + 30 * S, trust)
        await box.pass_time(seconds - 1)
        assert box.answers == []
        await box.pass_time(1)
        assert box.document()["result"]["by"] == "wall"
        await box.close()


async def test_an_instant_that_waits_out_of_memory_hears_of_a_clock_that_is_believed_anew(
    tmp_path: Path,
) -> None:
    """The jump itself wakes it too early to believe; the synchronisation after it counts."""
    clock = ManualClock()
    box = await opened(tmp_path, clock=clock)
    await Execution({"tool": {**WAIT, "until": START_WALL_NS // S + 86_400}}).begin(box)
    assert len(box.engine.executor.parking) == 1
    clock.set_wall(START_WALL_NS + 86_399 * S, WALL_UNCONFIRMED)
    await box.pass_time(1)
    assert box.answers == []
    clock.set_wall(clock.now.wall_ns, WALL_SYNCHRONISED)
    await box.pass_time(1)
    assert len(box.answers) == 1
    await box.close()


async def test_a_clock_that_was_set_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where it stands still, and so moves at every look."""
    clock = ManualClock()
    box = await opened(tmp_path, clock=clock)
    assert box.gate.now().boot_id == BOOT_ID
    clock.set_wall(START_WALL_NS + YEARS_NS, WALL_UNCONFIRMED)
    await box.pass_time(5)
    assert caplog.messages == ["the wall clock was set by +315360000 s and is unconfirmed now"]
    for _ in range(5):
        await pass_time(box, 5, stuck_at=START_WALL_NS)
    assert len(caplog.messages) == 2
    await box.close()
