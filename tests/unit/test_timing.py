"""What is left of a wait, by every clock there is: within a boot, over a power cut, by the wall."""

from __future__ import annotations

import pytest

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED, Reading
from edge.core.limits import CLOCK_GRACE_S, WAIT_S_MAX
from edge.core.timing import BOOTTIME, UNKNOWN, WALL, Left, Moment, left_of_length, left_until

S = 1_000_000_000
NOON = 1_767_268_800 * S
YEARS = 10 * 365 * 86_400 * S
ONE, TWO = b"1" * 16, b"2" * 16


def moment(mono_s: int, wall_ns: int = NOON, trust: int = WALL_SYNCHRONISED, boot: bytes = ONE) -> Moment:
    return Moment(boot, Reading(mono_s * S, wall_ns, trust))


@pytest.mark.parametrize("wall_ns", [0, NOON - YEARS, NOON + YEARS, NOON])
@pytest.mark.parametrize("trust", [WALL_IMPLAUSIBLE, WALL_UNCONFIRMED, WALL_SYNCHRONISED])
def test_within_a_boot_the_wall_clock_counts_for_nothing(wall_ns: int, trust: int) -> None:
    """Whatever the wall clock shows or does, stuck included, 60 s are 60 s of CLOCK_BOOTTIME."""
    since = moment(100)
    assert left_of_length(60_000, since, moment(130, wall_ns, trust)) == Left(30_000, BOOTTIME)
    assert left_of_length(60_000, since, moment(160, wall_ns, trust)) == Left(0, BOOTTIME)


def test_over_a_power_cut_the_trusted_wall_difference_counts() -> None:
    """Both readings synchronised: what passed between them is taken off."""
    since = moment(5_000)
    assert left_of_length(600_000, since, moment(10, NOON + 60 * S, boot=TWO)) == Left(540_000, WALL)
    assert left_of_length(600_000, since, moment(10, NOON + YEARS, boot=TWO)) == Left(0, WALL)


def test_a_clock_that_is_not_set_yet_is_given_a_moment() -> None:
    """A Pi wakes up in 1970: timers of the boot before wait for the clock for a while, then it cannot be said."""
    since = moment(5_000)
    early = moment(10, 0, WALL_IMPLAUSIBLE, TWO)
    assert left_of_length(9_999_000, since, early) == Left(None, WALL)
    late = moment(CLOCK_GRACE_S, NOON + 99 * S, WALL_UNCONFIRMED, TWO)
    assert left_of_length(9_999_000, since, late) == Left(0, UNKNOWN)


@pytest.mark.parametrize("trust", [WALL_IMPLAUSIBLE, WALL_UNCONFIRMED])
def test_a_wait_that_began_without_a_clock_cannot_be_told_after_a_cut(trust: int) -> None:
    """What the wall clock showed at its beginning is worth nothing, so there is nothing to wait for."""
    since = moment(5_000, 77, trust)
    assert left_of_length(600_000, since, moment(10, boot=TWO)) == Left(0, UNKNOWN)


def test_a_boot_that_lasted_longer_than_the_wait_says_enough() -> None:
    """It began in an earlier boot, so at least the time since this boot has passed, whatever the clocks show."""
    since = moment(5_000, 77, WALL_IMPLAUSIBLE)
    assert left_of_length(600_000, since, moment(600, 0, WALL_IMPLAUSIBLE, TWO)) == Left(0, BOOTTIME)


@pytest.mark.parametrize("wall_ns", [NOON - YEARS, NOON - 1, NOON + 8 * S])
def test_a_wall_clock_that_contradicts_itself_is_not_believed(wall_ns: int) -> None:
    """Set back beyond the beginning, or less passed than this boot has lasted: it cannot be said."""
    assert left_of_length(600_000, moment(5_000), moment(9, wall_ns, boot=TWO)) == Left(0, UNKNOWN)


def test_an_instant_follows_the_wall_clock() -> None:
    """It is over when the wall clock says so, also where that is set meanwhile."""
    since, until_ms = moment(100), NOON // 1_000_000 + 60_000
    assert left_until(until_ms, since, moment(100)) == Left(60_000, WALL)
    assert left_until(until_ms, since, moment(101, NOON + 59 * S)) == Left(1_000, WALL)
    assert left_until(until_ms, since, moment(101, NOON + YEARS)) == Left(0, WALL)
    assert left_until(until_ms, since, moment(9, NOON + 61 * S, boot=TWO)) == Left(0, WALL)


def test_an_instant_survives_a_clock_that_becomes_worse() -> None:
    """Within a boot, from the better reading on by CLOCK_BOOTTIME; after a cut it waits for the clock."""
    since, until_ms = moment(100), NOON // 1_000_000 + 60_000
    assert left_until(until_ms, since, moment(130, 0, WALL_IMPLAUSIBLE)) == Left(30_000, WALL)
    assert left_until(until_ms, since, moment(9, 0, WALL_IMPLAUSIBLE, TWO)) == Left(None, WALL)
    assert left_until(until_ms, since, moment(CLOCK_GRACE_S, 0, WALL_IMPLAUSIBLE, TWO)) == Left(0, UNKNOWN)


def test_an_instant_waits_for_a_clock_that_was_never_set() -> None:
    """Begun in 1970: looked at again until the clock is set, but not for ever."""
    since = moment(1, 0, WALL_IMPLAUSIBLE)
    assert left_until(NOON // 1_000_000, since, moment(2, 5, WALL_IMPLAUSIBLE)) == Left(None, WALL)
    assert left_until(NOON // 1_000_000, since, moment(3, NOON, WALL_UNCONFIRMED)) == Left(0, WALL)
    late = moment(WAIT_S_MAX + 1, 5, WALL_IMPLAUSIBLE)
    assert left_until(NOON // 1_000_000, since, late) == Left(0, UNKNOWN)
