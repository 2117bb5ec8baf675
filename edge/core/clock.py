"""The only door to time: readings as values, so that nothing pure ever looks at a clock itself.

Daemons own one `SystemClock` and pass readings on; tests own a `ManualClock` (edge.testing). Order in the
log is the sequence number; a reading is a note (design §5).
"""

from __future__ import annotations

import os
import time
from typing import Final, Protocol

from edge.core.records import record

#: Wall time before this day means that the clock was never set since power-on (a Pi wakes up in 1970).
WALL_NS_PLAUSIBLE_MIN = 1_735_689_600 * 1_000_000_000  # 2025-01-01T00:00:00Z
#: systemd-timesyncd touches this file whenever it has synchronised the clock.
TIMESYNC_MARK = "/run/systemd/timesync/synchronized"

WALL_IMPLAUSIBLE = 0
WALL_UNCONFIRMED = 1
WALL_SYNCHRONISED = 2
#: The three, for people.
TRUST_NAMES: Final = ("not believed", "unconfirmed", "synchronised")


@record
class Reading:
    """One look at the clocks.

    `mono_ns` is CLOCK_BOOTTIME in ns (counts on through suspend, restarts at boot), `wall_ns` ns since the
    Unix epoch, `wall_trust` one of WALL_IMPLAUSIBLE (never set, or it does not go on), WALL_UNCONFIRMED,
    WALL_SYNCHRONISED.
    """

    mono_ns: int
    wall_ns: int
    wall_trust: int


class Clock(Protocol):
    """Where readings come from."""

    def read(self) -> Reading:
        """One reading of all clocks."""


class SystemClock:
    """The machine's own clocks, and whether the wall clock is believed.

    timesyncd touches its mark whenever it has set the clock. Once the wall clock moved against CLOCK_BOOTTIME by
    itself (somebody set it, or it stands still), only a touch after that makes it believed again: of two times of
    which one must be wrong nobody knows which. `before` is the newest reading of this boot that was written down, so
    that a move while nobody looked is seen too.
    """

    _RECHECK_NS = 10_000_000_000
    #: Clocks that are merely disciplined run apart by 0.5 ms a second at the most.
    _SET_NS = 1_000_000_000
    #: One that moved twice within this time stands still, or jumps about; it must go on steadily for as long.
    _STEADY_NS = 60_000_000_000

    def __init__(self, before: Reading | None = None) -> None:
        self._synchronised = False
        self._checked_ns = -self._RECHECK_NS
        #: A mark older than this is of before the wall clock moved.
        self._mark_from_ns = 0
        self._moved_ns = -self._STEADY_NS
        self._unsteady_until_ns = 0
        mono_ns, wall_ns = self._both() if before is None else (before.mono_ns, before.wall_ns)
        self._offset_ns, self._looked_ns = wall_ns - mono_ns, mono_ns

    @staticmethod
    def _both() -> tuple[int, int]:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()

    def read(self) -> Reading:
        """One reading of all clocks."""
        mono_ns, wall_ns = self._both()
        if abs(wall_ns - mono_ns - self._offset_ns) > self._SET_NS:
            mono_ns, wall_ns = self._both()  # unless this process merely stood still between the two
            if abs(wall_ns - mono_ns - self._offset_ns) > self._SET_NS:
                self._moved(mono_ns, wall_ns)
        if mono_ns - self._checked_ns >= self._RECHECK_NS:
            self._checked_ns = self._looked_ns = mono_ns
            self._offset_ns = wall_ns - mono_ns  # what it was disciplined by meanwhile is no move
            self._synchronised = self._synchronised or self._marked(wall_ns)
        if wall_ns < WALL_NS_PLAUSIBLE_MIN or mono_ns < self._unsteady_until_ns:
            return Reading(mono_ns, wall_ns, WALL_IMPLAUSIBLE)
        return Reading(mono_ns, wall_ns, WALL_SYNCHRONISED if self._synchronised else WALL_UNCONFIRMED)

    def _moved(self, mono_ns: int, wall_ns: int) -> None:
        self._synchronised = False
        if mono_ns - self._moved_ns < self._STEADY_NS:
            self._unsteady_until_ns = mono_ns + self._STEADY_NS
        self._moved_ns = mono_ns
        self._mark_from_ns = wall_ns - (mono_ns - self._looked_ns)
        self._checked_ns = mono_ns - self._RECHECK_NS

    def _marked(self, wall_ns: int) -> bool:
        try:
            touched_ns = os.stat(TIMESYNC_MARK).st_mtime_ns
        except OSError:
            return False
        # One from the future was touched before the clock was set back.
        return self._mark_from_ns <= touched_ns <= wall_ns + self._SET_NS


def boot_id() -> bytes:
    """The kernel's id of this boot, 16 bytes; monotonic readings compare only within one boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


#: OpenSSL's codes for certificates that would be good at another time: not yet valid, no longer valid.
_OUT_OF_TIME: Final = (9, 10)


def out_of_time(verify_code: int) -> str:
    """What the box's clock has to do with a certificate that OpenSSL refused by this code; "" where nothing.

    A box that woke up in 1970 finds every certificate not valid yet. That mends itself once its clock is set.
    """
    if verify_code not in _OUT_OF_TIME:
        return ""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"this box's clock says {now}: set it (`timedatectl set-ntp true`), or renew the certificate"
