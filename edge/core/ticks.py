"""When a timer's next tick is due, and which were missed. Pure.

Owned by `edge.runtime.subscriptions`. What passed since the last tick is judged like a wait (`edge.core.timing`):
within a boot by CLOCK_BOOTTIME, over a power cut by the wall clock where both readings were synchronised. Where the
boundaries of an aligned timer lie says the wall clock; how much time passed within a boot it never says.
"""

from __future__ import annotations

from typing import Final

from edge.core.clock import Reading
from edge.core.records import record
from edge.core.timing import BOOTTIME, NOT_YET, UNKNOWN, WALL, Moment, Passed, passed_since, wall_ns_by

#: While the wall clock may still be set, it is looked at again after this at the latest.
_LOOK_NS: Final = 30_000_000_000


@record
class Rhythm:
    """A tick each `every_ns`, `aligned` to multiples of it since the Unix epoch.

    `missed` is what to do with ticks that nobody saw: "skip" them, fire "once" for all, or "all" up to `made_up_max`.
    """

    every_ns: int
    missed: str = "once"
    aligned: bool = False
    made_up_max: int = 1


@record
class Tick:
    """The tick `number`, `due` at this moment; `by` says how that was judged."""

    number: int
    due: Moment
    by: str = BOOTTIME


@record
class Due:
    """What to do now: `fire` these, note the `missed` ones that nobody makes up for, come back at `next_mono_ns`.

    `last` is the newest that came due, fired or missed: the next count begins with it.
    """

    fire: tuple[Tick, ...]
    missed: int
    next_mono_ns: int
    last: Tick


def anchor(rhythm: Rhythm, now: Moment) -> Tick:
    """The tick 0 of a timer that never ticked: it counts from here, or from the boundary before."""
    late_ns = now.at.wall_ns % rhythm.every_ns if rhythm.aligned else 0
    return Tick(0, _before(now, late_ns))


def due(last: Tick, rhythm: Rhythm, now: Moment) -> Due:
    """What is due after the tick `last`, and when to ask again."""
    every_ns = rhythm.every_ns
    passed = passed_since(last.due, now)
    if passed.by == NOT_YET and passed.ns < every_ns:
        # Nobody is too early who waits for the clock to be set, and this boot alone does not make a period yet.
        return Due((), 0, now.at.mono_ns + min(every_ns - passed.ns, _LOOK_NS), last)
    count, late_ns, left_ns = _counted(last, rhythm, passed, now)
    if count < 1:
        return Due((), 0, now.at.mono_ns + left_ns, last)
    by = UNKNOWN if passed.by == NOT_YET else passed.by
    newest = Tick(last.number + count, _before(now, late_ns), by)
    next_ns = now.at.mono_ns + left_ns
    if count == 1 or rhythm.missed == "once":
        return Due((newest,), count - 1, next_ns, newest)
    if rhythm.missed == "skip":
        # Whoever was not there skips: the newest is fired only where it is less than half a period old.
        fresh = late_ns * 2 < every_ns
        return Due((newest,) if fresh else (), count - 1 if fresh else count, next_ns, newest)
    made = min(count, rhythm.made_up_max)
    ticks = tuple(
        Tick(newest.number - back, _before(now, late_ns + back * every_ns), by)
        for back in range(made - 1, -1, -1)
    )
    return Due(ticks, count - made, next_ns, newest)


def _counted(last: Tick, rhythm: Rhythm, passed: Passed, now: Moment) -> tuple[int, int, int]:
    """`(ticks that came due, how old the newest is, how long to the next)`, the latter two in ns."""
    every_ns = rhythm.every_ns
    wall_ns = wall_ns_by(last.due, now) if rhythm.aligned else None
    if passed.by not in (BOOTTIME, WALL):
        # Nobody knows how long the box was off: one tick is due, and no more is claimed.
        late_ns = 0 if wall_ns is None else wall_ns % every_ns
        return 1, late_ns, every_ns - late_ns
    if wall_ns is None:
        count, late_ns = divmod(passed.ns, every_ns)
        return count, late_ns, every_ns - late_ns
    # Where the last one was, as the clock has it now; half a period later the next may come, however it was set.
    free_ns = wall_ns - passed.ns + every_ns // 2
    count = max(0, wall_ns // every_ns - free_ns // every_ns)
    left_ns = (max(wall_ns, free_ns) // every_ns + 1) * every_ns - wall_ns
    return count, wall_ns % every_ns, left_ns


def _before(now: Moment, by_ns: int) -> Moment:
    at = now.at
    return Moment(now.boot_id, Reading(at.mono_ns - by_ns, at.wall_ns - by_ns, at.wall_trust))
