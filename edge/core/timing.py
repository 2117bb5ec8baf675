"""How much time passed between two readings of clocks: within one boot, over a power cut, by the wall.

Pure; the one rule for waits, deadlines, breakers, ids that repeat and timers of subscriptions. Within a boot only
CLOCK_BOOTTIME counts, whatever the wall clock does. It never guesses: where the clocks cannot say, it says so.
"""

from __future__ import annotations

from typing import Final

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, Reading
from edge.core.limits import CLOCK_GRACE_S, WAIT_S_MAX
from edge.core.records import record

#: How a wait was judged to be over, or not yet.
BOOTTIME: Final = "boottime"
WALL: Final = "wall"
#: The wall clock may still be set: look again in a moment.
NOT_YET: Final = "not yet"
#: The clocks cannot say: what the playbook wants for that decides.
UNKNOWN: Final = "unknown"

_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000


@record
class Moment:
    """Clocks at one moment of one boot; `boot_id` has 16 bytes."""

    boot_id: bytes
    at: Reading


@record
class Passed:
    """`ns` went by, judged `by` BOOTTIME or WALL; by NOT_YET or UNKNOWN it was so much at the least."""

    ns: int
    by: str


@record
class Left:
    """`left_ms` to go, judged `by` BOOTTIME or WALL; by UNKNOWN it cannot be said.

    `left_ms` is None while the wall clock may still be set: look again in a moment.
    """

    left_ms: int | None
    by: str


def passed_since(since: Moment, now: Moment) -> Passed:
    """What passed from `since` to `now`, which may be a later boot."""
    if since.boot_id == now.boot_id:
        return Passed(max(0, now.at.mono_ns - since.at.mono_ns), BOOTTIME)
    up_ns = now.at.mono_ns  # it was in an earlier boot, so at least what this one has lasted
    if since.at.wall_trust == WALL_SYNCHRONISED:
        if now.at.wall_trust == WALL_SYNCHRONISED:
            passed_ns = now.at.wall_ns - since.at.wall_ns
            # Less than this boot has lasted, or before it began: one of the readings was wrong.
            return Passed(passed_ns, WALL) if passed_ns >= up_ns else Passed(up_ns, UNKNOWN)
        if up_ns < CLOCK_GRACE_S * _NS_PER_S:
            return Passed(up_ns, NOT_YET)
    return Passed(up_ns, UNKNOWN)


def left_of_length(length_ms: int, since: Moment, now: Moment) -> Left:
    """What is left of a wait of `length_ms` that began at `since`."""
    if since.boot_id != now.boot_id and now.at.mono_ns // _NS_PER_MS >= length_ms:
        return Left(0, BOOTTIME)  # it began in an earlier boot, and this one alone has lasted longer
    passed = passed_since(since, now)
    if passed.by == NOT_YET:
        return Left(None, WALL)
    if passed.by == UNKNOWN:
        return Left(0, UNKNOWN)
    return Left(max(0, length_ms - passed.ns // _NS_PER_MS), passed.by)


def wall_ns_by(since: Moment, now: Moment) -> int | None:
    """The instant that `now` is, in ns since the Unix epoch, by the better reading; None where neither is any good.

    Where the wall clock has become worse than it was at `since`, the other one went on from there.
    """
    if now.at.wall_trust >= since.at.wall_trust and now.at.wall_trust != WALL_IMPLAUSIBLE:
        return now.at.wall_ns
    if since.boot_id == now.boot_id and since.at.wall_trust != WALL_IMPLAUSIBLE:
        return since.at.wall_ns + now.at.mono_ns - since.at.mono_ns
    return None


def left_until(until_ms: int, since: Moment, now: Moment) -> Left:
    """What is left of a wait for the instant `until_ms` (since the Unix epoch) that began at `since`."""
    wall_ns = wall_ns_by(since, now)
    if wall_ns is not None:
        return Left(max(0, until_ms - wall_ns // _NS_PER_MS), WALL)
    same_boot = since.boot_id == now.boot_id
    waited_ns = now.at.mono_ns - (since.at.mono_ns if same_boot else 0)
    patience_s = WAIT_S_MAX if same_boot else CLOCK_GRACE_S
    return Left(None, WALL) if waited_ns < patience_s * _NS_PER_S else Left(0, UNKNOWN)
