"""Ticks of timers under clocks that jump, stand still, lose and regain trust, over power cuts of any length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.core.clock import WALL_SYNCHRONISED, Reading
from edge.core.limits import CLOCK_GRACE_S
from edge.core.ticks import Due, Rhythm, Tick, anchor, due
from edge.core.timing import Moment

S = 1_000_000_000
START = 1_767_225_600 * S
#: `(seconds that pass, how far the wall clock is set, trust from then on, whether the box was off meanwhile)`.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3_000),
        st.one_of(st.just(0), st.integers(-(10**9), 10**9)),
        st.sampled_from([0, 1, 2, 2]),
        st.integers(0, 5).map(lambda n: n == 0),
    ),
    max_size=60,
)


@given(
    every_s=st.integers(1, 1_000),
    missed=st.sampled_from(["skip", "once", "all"]),
    align=st.booleans(),
    steps=STEPS,
)
def test_ticks_are_numbered_on_and_never_twice(
    every_s: int, missed: str, steps: list[tuple[int, int, int, bool]], *, align: bool
) -> None:
    """Whatever the clocks do: numbers rise, what is skipped is counted, and the next moment lies ahead."""
    rhythm = Rhythm(every_s * S, missed, align, 5)
    now = Moment(b"0", Reading(S, START, WALL_SYNCHRONISED))
    last = anchor(rhythm, now)
    for count, (passed_s, jump_s, trust, off) in enumerate(steps):
        now = moved(now, passed_s, jump_s, trust, str(count).encode() if off else None)
        found = due(last, rhythm, now)
        check_due(found, last, rhythm, now)
        if last.due.boot_id == now.boot_id and not align:
            assert (found.last.due.at.mono_ns - last.due.at.mono_ns) % rhythm.every_ns == 0, (
                "the rhythm is kept"
            )
        last = found.last


def moved(now: Moment, passed_s: int, jump_s: int, trust: int, boot: bytes | None) -> Moment:
    """What the clocks show then."""
    mono_ns = now.at.mono_ns + passed_s * S if boot is None else S
    wall_ns = max(0, now.at.wall_ns + (passed_s + jump_s) * S)
    return Moment(boot or now.boot_id, Reading(mono_ns, wall_ns, trust))


def check_due(found: Due, last: Tick, rhythm: Rhythm, now: Moment) -> None:
    """One answer of `due`."""
    every_ns, mono_ns = rhythm.every_ns, now.at.mono_ns
    assert mono_ns < found.next_mono_ns <= mono_ns + every_ns * 3 // 2
    numbers = [tick.number for tick in found.fire]
    assert numbers == sorted(set(numbers))
    assert all(number > last.number for number in numbers)
    assert len(numbers) <= (5 if rhythm.missed == "all" else 1)
    assert found.last.number - last.number == len(numbers) + found.missed
    if last.due.boot_id == now.boot_id:
        passed_ns = mono_ns - last.due.at.mono_ns
        assert found.last.number - last.number <= passed_ns / every_ns + 1, "more ticks than time"
        if numbers:
            assert passed_ns >= every_ns // 2, "twice in one period"


@given(
    every_s=st.integers(1, 1_000),
    align=st.booleans(),
    jumps=st.lists(st.integers(-(10**9), 10**9), max_size=20),
)
def test_a_jump_makes_no_ticks(every_s: int, jumps: list[int], *, align: bool) -> None:
    """In ten periods of time there are ten ticks, one more or less for each time an aligned timer is shifted."""
    rhythm = Rhythm(every_s * S, "all", align, 1_000)
    now = Moment(b"0", Reading(S, START, WALL_SYNCHRONISED))
    last = first = anchor(rhythm, now)
    for jump_s in [*jumps, 0]:
        now = moved(now, 10 * every_s, jump_s, WALL_SYNCHRONISED, None)
        last = due(last, rhythm, now).last
    periods = 10 * (len(jumps) + 1)
    assert abs(last.number - first.number - periods) <= (len(jumps) + 1 if align else 0)


@given(
    every_s=st.integers(1, 100_000),
    up_s=st.integers(1, 2_000),
    off_s=st.integers(0, 10**6),
    trust=st.integers(0, 2),
)
def test_over_a_power_cut_nothing_is_claimed_that_no_clock_says(
    every_s: int, up_s: int, off_s: int, trust: int
) -> None:
    """Synchronised before and after: as many as passed. Else one, once the clock had its time to be set."""
    rhythm = Rhythm(every_s * S, "all", False, 100)
    last = Tick(7, Moment(b"0", Reading(900 * S, START, WALL_SYNCHRONISED)))
    now = Moment(b"1", Reading(up_s * S, START + (off_s + up_s) * S, trust))
    found = due(last, rhythm, now)
    if trust == WALL_SYNCHRONISED:
        assert found.last.number == 7 + (off_s + up_s) // every_s
    elif up_s < every_s and up_s < CLOCK_GRACE_S:
        assert (found.fire, found.missed) == ((), 0)
    else:
        assert ([tick.number for tick in found.fire], found.missed) == ([8], 0)
