"""When a timer's next tick is due, and which were missed. Pure.

Owned by `edge.runtime.subscriptions`. Within a boot a plain timer counts on CLOCK_BOOTTIME, which no setting of the
wall clock moves; an aligned one follows the wall clock, as its name says. Across boots only the wall clock knows how
much time passed, and only where it can be believed.
"""

from __future__ import annotations

from edge.core.records import record


@record
class Tick:
    """The tick `number`, due at `wall_ns` on the wall clock and `mono_ns` since boot (None: of an earlier boot)."""

    number: int
    wall_ns: int
    mono_ns: int | None


@record
class Due:
    """What to do now: `fire` these, note the `missed` ones that nobody makes up for, come back at `next_mono_ns`."""

    fire: tuple[Tick, ...]
    missed: int
    next_mono_ns: int


def due(
    last: Tick | None,
    every_ns: int,
    missed: str,
    mono_ns: int,
    wall_ns: int,
    *,
    align: bool,
    believed: bool,
    made_up_max: int,
) -> Due:
    """What is due after the tick `last` (None: the timer is new), and when to ask again.

    `missed` is what to do with ticks that nobody saw: "skip" them, fire "once" for all, or "all" up to `made_up_max`.
    `believed` says that the wall clock can be compared with that of the last tick.
    """
    if last is None:
        first_ns = every_ns - wall_ns % every_ns if align else every_ns
        return Due((), 0, mono_ns + first_ns)
    since_ns = _since_ns(last, every_ns, mono_ns, wall_ns, align=align, believed=believed)
    passed = since_ns // every_ns
    if passed < 1:
        return Due((), 0, mono_ns + every_ns - since_ns)
    late_ns = since_ns - passed * every_ns
    # The newest of them is no missed one where it came due just now.
    newest = Tick(last.number + passed, wall_ns - late_ns, mono_ns - late_ns)
    next_ns = mono_ns + every_ns - late_ns
    if passed == 1 or missed == "once":
        return Due((newest,), passed - 1, next_ns)
    if missed == "skip":
        # Whoever was not there skips: the newest is fired only where it is less than half a period old.
        fresh = late_ns * 2 < every_ns
        return Due((newest,) if fresh else (), passed - 1 if fresh else passed, next_ns)
    count = min(passed, made_up_max)
    made = tuple(
        Tick(newest.number - back, newest.wall_ns - back * every_ns, mono_ns - late_ns - back * every_ns)
        for back in range(count - 1, -1, -1)
    )
    return Due(made, passed - count, next_ns)


def _since_ns(last: Tick, every_ns: int, mono_ns: int, wall_ns: int, *, align: bool, believed: bool) -> int:
    """How long ago the last tick was due, as far as anybody can say; never negative."""
    if not align and last.mono_ns is not None:
        return mono_ns - last.mono_ns
    if not believed and last.mono_ns is None:
        return every_ns  # nobody knows how long the box was off: one tick is due, and no more is claimed
    since_ns = wall_ns - last.wall_ns
    if align and since_ns < 0:
        # The clock was set back: the rhythm goes on from where it stands now.
        boundary_ns = wall_ns % every_ns
        if last.mono_ns is not None and mono_ns - last.mono_ns < every_ns:
            return boundary_ns if boundary_ns < every_ns else 0
        return every_ns + boundary_ns
    return max(0, since_ns)
