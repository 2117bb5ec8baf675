"""Clocks: the machine's and the one of the tests."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge.core.clock import (
    WALL_IMPLAUSIBLE,
    WALL_NS_PLAUSIBLE_MIN,
    WALL_SYNCHRONISED,
    WALL_UNCONFIRMED,
    Clock,
    SystemClock,
    boot_id,
)
from edge.testing.clock import ManualClock

S = 1_000_000_000
YEAR = 365 * 86_400 * S
NOON = 1_767_268_800 * S


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()], ids=["system", "manual"])
def test_readings_never_run_backwards(clock: Clock) -> None:
    """The monotonic reading never falls, and trust is one of the three."""
    first, second = clock.read(), clock.read()
    assert second.mono_ns >= first.mono_ns > 0
    assert second.wall_trust in (WALL_IMPLAUSIBLE, WALL_UNCONFIRMED, WALL_SYNCHRONISED)


def test_a_wall_clock_that_was_never_set_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall time before the plausible day has no trust; the monotonic clock goes on."""
    monkeypatch.setattr(time, "time_ns", lambda: WALL_NS_PLAUSIBLE_MIN - 1)
    reading = SystemClock().read()
    assert reading.wall_trust == WALL_IMPLAUSIBLE
    assert reading.mono_ns > 0


class Machine:
    """A machine's two clocks and timesyncd's mark, all set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, wall_ns: int = NOON) -> None:
        self.mark = folder / "synchronized"
        self.mono_ns, self.wall_ns = 100 * S, wall_ns
        monkeypatch.setattr("edge.core.clock.TIMESYNC_MARK", str(self.mark))
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_ns)
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _: self.mono_ns)

    def go(self, seconds: float) -> None:
        self.mono_ns += round(seconds * S)
        self.wall_ns += round(seconds * S)

    def synchronise(self) -> None:
        self.mark.touch()
        os.utime(self.mark, ns=(self.wall_ns, self.wall_ns))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(monkeypatch, tmp_path_factory.mktemp("timesync"))


def test_synchronisation_is_seen_once_it_happened(machine: Machine) -> None:
    """Trust rises when timesyncd's mark appears, looked up at most every ten seconds."""
    clock = SystemClock()
    assert clock.read().wall_trust == WALL_UNCONFIRMED
    machine.synchronise()
    assert clock.read().wall_trust == WALL_UNCONFIRMED
    machine.go(10)
    assert clock.read().wall_trust == WALL_SYNCHRONISED


@pytest.mark.parametrize("years", [10, -10])
def test_a_clock_that_jumped_is_not_believed_until_it_is_set_again(machine: Machine, years: int) -> None:
    """One of the two times is wrong; only a synchronisation after the jump says which."""
    machine.synchronise()
    clock = SystemClock()
    machine.go(3_600)
    assert clock.read().wall_trust == WALL_SYNCHRONISED
    machine.go(5)
    machine.wall_ns += years * YEAR
    below = machine.wall_ns < WALL_NS_PLAUSIBLE_MIN
    for _ in range(20):
        assert clock.read().wall_trust == (WALL_IMPLAUSIBLE if below else WALL_UNCONFIRMED)
        machine.go(7)
    machine.wall_ns -= years * YEAR
    assert clock.read().wall_trust == WALL_UNCONFIRMED
    machine.go(1)
    machine.synchronise()
    machine.go(10)
    assert clock.read().wall_trust == WALL_SYNCHRONISED


def test_a_clock_that_timesyncd_sets_stays_believed(machine: Machine) -> None:
    """It sets the clock, then touches its mark: whoever looks after both has lost nothing."""
    machine.synchronise()
    clock = SystemClock()
    clock.read()
    machine.go(2_000)
    machine.wall_ns -= 3 * S
    machine.synchronise()
    machine.go(0.1)
    assert clock.read().wall_trust == WALL_SYNCHRONISED


def test_a_clock_that_is_set_from_1970_is_believed(machine: Machine) -> None:
    """A Pi wakes up in 1970, then the network sets the clock."""
    machine.wall_ns = 100 * S
    clock = SystemClock()
    machine.go(30)
    assert clock.read().wall_trust == WALL_IMPLAUSIBLE
    machine.wall_ns = NOON
    machine.synchronise()
    machine.go(0.1)
    assert clock.read().wall_trust == WALL_SYNCHRONISED


def test_a_clock_that_stands_still_is_not_believed(machine: Machine) -> None:
    """Nor for a minute after it has gone on; CLOCK_BOOTTIME is not touched."""
    machine.synchronise()
    machine.go(100)
    clock = SystemClock()
    assert clock.read().wall_trust == WALL_SYNCHRONISED
    for _ in range(30):
        machine.mono_ns += S // 2
        reading = clock.read()
        assert reading.mono_ns == machine.mono_ns
    assert reading.wall_trust == WALL_IMPLAUSIBLE
    machine.go(59)
    assert clock.read().wall_trust == WALL_IMPLAUSIBLE
    machine.go(2)
    assert clock.read().wall_trust == WALL_UNCONFIRMED
    machine.synchronise()
    machine.go(10)
    assert clock.read().wall_trust == WALL_SYNCHRONISED


def test_a_clock_that_is_disciplined_stays_believed(machine: Machine) -> None:
    """Slewed by half a millisecond a second for a day it moves by 43 s, and never jumps."""
    machine.synchronise()
    clock = SystemClock()
    for _ in range(4_000):
        machine.go(20)
        machine.wall_ns += 10_000_000
        assert clock.read().wall_trust == WALL_SYNCHRONISED


def test_a_jump_while_the_runtime_was_away_is_seen(machine: Machine) -> None:
    """The newest reading in the log is of this boot: what the wall clock shows now does not follow from it."""
    machine.synchronise()
    written = SystemClock().read()
    machine.go(60)
    assert SystemClock(written).read().wall_trust == WALL_SYNCHRONISED
    machine.wall_ns += 10 * YEAR
    assert SystemClock().read().wall_trust == WALL_SYNCHRONISED
    assert SystemClock(written).read().wall_trust == WALL_UNCONFIRMED


def test_a_mark_from_the_future_says_that_the_clock_was_set_back(machine: Machine) -> None:
    """Also where no reading of this boot is known."""
    machine.synchronise()
    machine.wall_ns -= 3_600 * S
    assert SystemClock().read().wall_trust == WALL_UNCONFIRMED


def test_the_boot_has_one_id() -> None:
    """The kernel's boot id is 16 bytes and stays the same."""
    assert len(boot_id()) == 16
    assert boot_id() == boot_id()


def test_the_manual_clock_moves_when_told() -> None:
    """Time passes on both clocks together; the wall clock alone may jump."""
    clock = ManualClock()
    before = clock.read()
    clock.advance(5)
    assert (clock.read().mono_ns, clock.read().wall_ns) == (before.mono_ns + 5, before.wall_ns + 5)
    clock.set_wall(0, WALL_IMPLAUSIBLE)
    assert (clock.read().mono_ns, clock.read().wall_trust) == (before.mono_ns + 5, WALL_IMPLAUSIBLE)
