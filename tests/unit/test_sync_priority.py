"""The order of upload, bundles by bytes, back-off, and what a budget's text means."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import Misconfigured
from edge.core.limits import BACKOFF_S_MAX, BUNDLE_BYTES
from edge.segments.manifest import ROUTINE, URGENT
from edge.sync.budget import Budget, parse
from edge.sync.priority import NEWEST_NS, Waiting, backoff_s, bundle, in_order

SEGMENTS = st.lists(
    st.builds(
        Waiting,
        st.integers(0, 10**6),
        st.sampled_from((ROUTINE, URGENT)),
        st.integers(0, 4 * 10**18),
        st.integers(300, 2 * BUNDLE_BYTES),
    ),
    unique_by=lambda each: each.number,
)


def _waiting(number: int, minutes: int, priority: int = ROUTINE) -> Waiting:
    return Waiting(number, priority, minutes * 60 * 10**9, 1_000)


def test_urgent_then_the_newest_hour_then_the_oldest() -> None:
    """After ten hours away: what is urgent first, then the last hour, then all from its beginning."""
    waiting = [_waiting(n, 15 * n, URGENT if n in (7, 20) else ROUTINE) for n in range(40)]
    said = [each.number for each in in_order(reversed(waiting))]
    assert said == [7, 20, 36, 37, 38, 39, *(n for n in range(36) if n not in (7, 20))]


def test_a_clock_that_jumped_only_shortens_the_newest_hour() -> None:
    """Segments from before a jump of the clock, either way, are no news."""
    waiting = [_waiting(0, 10), _waiting(1, 900_000), _waiting(2, 20), _waiting(3, 30)]
    assert [each.number for each in in_order(waiting)] == [2, 3, 0, 1]


@settings(deadline=None)
@given(SEGMENTS)
def test_every_segment_goes_once_and_each_kind_in_its_order(waiting: list[Waiting]) -> None:
    """Nothing is left out or doubled; urgent ones stand before all others; bundles from the front empty it."""
    ordered = in_order(waiting)
    assert sorted(each.number for each in ordered) == sorted(each.number for each in waiting)
    kinds = [each.priority for each in ordered]
    assert kinds == sorted(kinds, reverse=True)
    left, sent = ordered, 0
    while left:
        taken = bundle(left)
        assert taken == left[: len(taken)]
        assert len(taken) == 1 or sum(each.size_bytes for each in taken) <= BUNDLE_BYTES
        assert len({each.priority for each in taken}) == 1
        left, sent = left[len(taken) :], sent + len(taken)
    assert sent == len(waiting)


def test_the_newest_hour_is_an_hour() -> None:
    """A segment that ended a whole hour before the newest is none of it."""
    hour = NEWEST_NS // (60 * 10**9)
    assert [each.number for each in in_order([_waiting(0, 0), _waiting(1, hour)])] == [1, 0]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0, 600))
def test_back_off_is_bounded_and_heeds_the_centre(failures: int, chance: float, asked_s: float) -> None:
    """Whatever fails however often: never less than the centre asked for, and no more than the bound beyond it."""
    assert asked_s <= backoff_s(failures, chance, asked_s) <= asked_s + BACKOFF_S_MAX


def test_what_a_budget_says() -> None:
    """Rates in bits, amounts in bytes, each at most once, in any order and spelling; what is no bound is named."""
    assert parse("1 Mbit/s", "x") == Budget(125_000)
    assert parse(" 5MB/day,64 kbit/s , 0.5 GB/month", "x") == Budget(8_000, 5_000_000, 500_000_000)
    assert parse("", "x") == Budget()
    assert parse("OFF", "x") == Budget(closed=True)
    assert str(parse("64 kbit/s, 5 MB/day", "x")) == "64 kbit/s, 5 MB/day"
    for wrong in ("fast", "5 MB", "5 Mbit/day", "5 MB/s", "1 kbit/s, 2 kbit/s", "0 kbit/s", "-1 MB/day"):
        with pytest.raises(Misconfigured, match="no bound"):
            parse(wrong, "budget_wifi")
