"""How long a wait still has to go, from readings of clocks: within one boot, over a power cut, by the wall.

Pure; called by the runtime when it begins a wait, takes one up again or looks whether it is over. Within a boot only
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
#: The clocks cannot say: what the playbook wants for that decides.
UNKNOWN: Final = "unknown"

_NS_PER_MS: Final = 1_000_000


@record
class Moment:
    """Clocks at one moment of one boot; `boot_id` has 16 bytes."""

    boot_id: bytes
    at: Reading


@record
class Left:
    """`left_ms` to go, judged `by` BOOTTIME or WALL; by UNKNOWN it cannot be said.

    `left_ms` is None while the wall clock may still be set: look again in a moment.
    """

    left_ms: int | None
    by: str


def left_of_length(length_ms: int, since: Moment, now: Moment) -> Left:
    """What is left of a wait of `length_ms` that began at `since`."""
    if since.boot_id == now.boot_id:
        passed_ms = (now.at.mono_ns - since.at.mono_ns) // _NS_PER_MS
        return Left(max(0, length_ms - passed_ms), BOOTTIME)
    up_ms = now.at.mono_ns // _NS_PER_MS
    if up_ms >= length_ms:  # it began in an earlier boot, and this one alone has lasted longer
        return Left(0, BOOTTIME)
    if since.at.wall_trust == WALL_SYNCHRONISED:
        if now.at.wall_trust == WALL_SYNCHRONISED:
            passed_ms = (now.at.wall_ns - since.at.wall_ns) // _NS_PER_MS
            # Less than this boot has lasted, or before the wait began: one of the readings was wrong.
            return Left(max(0, length_ms - passed_ms), WALL) if passed_ms >= up_ms else Left(0, UNKNOWN)
        if up_ms < CLOCK_GRACE_S * 1_000:
            return Left(None, WALL)
    return Left(0, UNKNOWN)


def left_until(until_ms: int, since: Moment, now: Moment) -> Left:
    """What is left of a wait for the instant `until_ms` (since the Unix epoch) that began at `since`."""
    same_boot = since.boot_id == now.boot_id
    if now.at.wall_trust >= since.at.wall_trust and now.at.wall_trust != WALL_IMPLAUSIBLE:
        wall_ns = now.at.wall_ns
    elif same_boot and since.at.wall_trust != WALL_IMPLAUSIBLE:
        # The wall clock has become worse than it was when the wait began; the other one went on.
        wall_ns = since.at.wall_ns + now.at.mono_ns - since.at.mono_ns
    else:
        waited_ns = now.at.mono_ns - (since.at.mono_ns if same_boot else 0)
        patience_s = WAIT_S_MAX if same_boot else CLOCK_GRACE_S
        return Left(None, WALL) if waited_ns < patience_s * 1_000 * _NS_PER_MS else Left(0, UNKNOWN)
    return Left(max(0, until_ms - wall_ns // _NS_PER_MS), WALL)
