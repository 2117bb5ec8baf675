"""Clocks: the machine's and the one of the tests."""

from __future__ import annotations

import time

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


def test_synchronisation_is_seen_once_it_happened(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Trust rises when timesyncd's mark appears, looked up at most every ten seconds."""
    mark = tmp_path_factory.mktemp("timesync") / "synchronized"
    now_ns = [1_000_000_000]
    monkeypatch.setattr("edge.core.clock.TIMESYNC_MARK", str(mark))
    monkeypatch.setattr(time, "time_ns", lambda: WALL_NS_PLAUSIBLE_MIN + 1)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: now_ns[0])
    clock = SystemClock()
    assert clock.read().wall_trust == WALL_UNCONFIRMED
    mark.touch()
    assert clock.read().wall_trust == WALL_UNCONFIRMED
    now_ns[0] += 10_000_000_000
    assert clock.read().wall_trust == WALL_SYNCHRONISED


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
