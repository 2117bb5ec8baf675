"""The only door to time: readings as values, so that nothing pure ever looks at a clock itself.

Daemons own one `SystemClock` and pass readings on; tests own a `ManualClock` (edge.testing). Order in the
log is the sequence number; a reading is a note (design §5).
"""

from __future__ import annotations

import os
import time
from typing import Protocol

from edge.core.records import record

#: Wall time before this day means that the clock was never set since power-on (a Pi wakes up in 1970).
WALL_NS_PLAUSIBLE_MIN = 1_735_689_600 * 1_000_000_000  # 2025-01-01T00:00:00Z
#: systemd-timesyncd leaves this file once it has synchronised since boot.
TIMESYNC_MARK = "/run/systemd/timesync/synchronized"

WALL_IMPLAUSIBLE = 0
WALL_UNCONFIRMED = 1
WALL_SYNCHRONISED = 2


@record
class Reading:
    """One look at the clocks.

    `mono_ns` is CLOCK_BOOTTIME in ns (counts on through suspend, restarts at boot), `wall_ns` ns since the
    Unix epoch, `wall_trust` one of WALL_IMPLAUSIBLE, WALL_UNCONFIRMED, WALL_SYNCHRONISED.
    """

    mono_ns: int
    wall_ns: int
    wall_trust: int


class Clock(Protocol):
    """Where readings come from."""

    def read(self) -> Reading:
        """One reading of all clocks."""


class SystemClock:
    """The machine's own clocks. Whether the wall clock is synchronised is looked up every ten seconds."""

    _RECHECK_NS = 10_000_000_000

    def __init__(self) -> None:
        self._synchronised = False
        self._checked_ns = -self._RECHECK_NS

    def read(self) -> Reading:
        """One reading of all clocks."""
        wall_ns = time.time_ns()
        mono_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if wall_ns < WALL_NS_PLAUSIBLE_MIN:
            return Reading(mono_ns, wall_ns, WALL_IMPLAUSIBLE)
        if not self._synchronised and mono_ns - self._checked_ns >= self._RECHECK_NS:
            self._checked_ns = mono_ns
            self._synchronised = os.path.exists(TIMESYNC_MARK)
        return Reading(mono_ns, wall_ns, WALL_SYNCHRONISED if self._synchronised else WALL_UNCONFIRMED)


def boot_id() -> bytes:
    """The kernel's id of this boot, 16 bytes; monotonic readings compare only within one boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))
