"""How many bytes may go over a link: what a person allows, a bucket for the rate, periods for the day and the month.

Pure: times come as arguments. `edge.sync.meter` keeps the counts on the drive, the daemon asks it before it sends.

The rate holds by the monotonic clock alone. A day is the calendar's (UTC) where the wall clock is synchronised, else
24 hours of the box being on, which is never shorter: no clock that jumps opens a day anew, forwards or back. What is
not believed never ends a period, and a period that began unbelieved takes the first day of the calendar that is
believed, without a new start. A month goes by the same rules, with 31 days.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Final

from edge.core.clock import WALL_SYNCHRONISED, Reading
from edge.core.errors import Misconfigured
from edge.core.limits import BUDGET_SHARE
from edge.core.records import record

ETHERNET: Final = "ethernet"
WIFI: Final = "wifi"
METERED: Final = "metered"
LINKS: Final = (ETHERNET, WIFI, METERED)
"""Classes of link, each with a budget of its own."""

S_NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * S_NS
MONTH_NS: Final = 31 * DAY_NS


@record
class Budget:
    """Bytes a second, a day, a month; 0 is no bound. `closed`: nothing goes over this link at all."""

    bytes_per_s: int = 0
    day_bytes: int = 0
    month_bytes: int = 0
    closed: bool = False

    def __str__(self) -> str:
        """As a person would write it."""
        if self.closed:
            return "off"
        said = [f"{self.bytes_per_s * 8 / 1e3:g} kbit/s"] if self.bytes_per_s else []
        said += [f"{self.day_bytes / 1e6:g} MB/day"] if self.day_bytes else []
        said += [f"{self.month_bytes / 1e6:g} MB/month"] if self.month_bytes else []
        return ", ".join(said) or "no bound"


_BITS: Final = {"bit/s": 1, "kbit/s": 1_000, "mbit/s": 1_000_000, "gbit/s": 1_000_000_000}
_BYTES: Final = {"b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*/\s*(s|day|month)")


def parse(text: str, where: str) -> Budget:
    """A budget as `edge.toml` has it: `"64 kbit/s, 5 MB/day, 60 MB/month"`, "" for no bound, or "off".

    Raises Misconfigured.
    """
    low = text.strip().lower()
    if low == "off":
        return Budget(closed=True)
    bounds: dict[str, int] = {}
    for part in filter(None, map(str.strip, low.split(","))):
        found = _PART.fullmatch(part)
        number, unit, per = found.groups() if found else ("0", "", "")
        scale = _BITS.get(f"{unit}/s", 0) / 8 if per == "s" else float(_BYTES.get(unit, 0))
        bounds_for = int(float(number) * scale)
        if bounds_for < 1 or per in bounds:
            raise Misconfigured(
                f"{where} is {text!r}, and {part!r} in it is no bound.",
                mend='Write it like "64 kbit/s, 5 MB/day, 60 MB/month"; "off" for nothing; "" for no bound.',
            )
        bounds[per] = bounds_for
    return Budget(bounds.get("s", 0), bounds.get("day", 0), bounds.get("month", 0))


@dataclass(slots=True)
class Bucket:
    """A rate as a bucket: filled by time, emptied by bytes, empty at first, so that starting anew gives nothing away.

    Counted in whole byte-nanoseconds: what went out is never more than rate × time, not by one byte, but for what was
    saved up in a pause (`burst_bytes` at most).
    """

    bytes_per_s: int
    burst_bytes: int
    at_ns: int
    _level: int = 0

    def fill(self, mono_ns: int) -> None:
        """Time went on."""
        since_ns, self.at_ns = max(mono_ns - self.at_ns, 0), mono_ns
        self._level = min(self._level + self.bytes_per_s * since_ns, self.burst_bytes * S_NS)

    def take(self, size_bytes: int) -> None:
        """So many bytes went out. More than there were is a debt, which is paid before anything else goes."""
        self._level -= size_bytes * S_NS

    def wait_ns(self, size_bytes: int) -> int:
        """How long until so many bytes may go, 0 where they may now; more than it holds wait until it is full."""
        lacks = min(size_bytes, self.burst_bytes) * S_NS - self._level
        return -(-lacks // self.bytes_per_s) if lacks > 0 else 0


@record
class Period:
    """A day or month: the calendar's number of it, None where no clock was believed; time on since; bytes."""

    calendar: int | None = None
    on_ns: int = 0
    spent_bytes: int = 0


def gone_on(period: Period, on_ns: int, calendar: int | None, length_ns: int) -> Period:
    """The period after the box was on for `on_ns` more; `calendar` is the one now by a believed clock, else None."""
    on_ns += period.on_ns
    if calendar is not None:
        if period.calendar is None:
            return Period(calendar, on_ns, period.spent_bytes)
        if calendar > period.calendar:
            return Period(calendar)
        if calendar == period.calendar:
            return replace(period, on_ns=on_ns)
    return Period(calendar) if on_ns >= length_ns else replace(period, on_ns=on_ns)


def calendar_of(reading: Reading) -> tuple[int | None, int | None]:
    """The day and the month by a clock, None for both where it is not synchronised."""
    if reading.wall_trust != WALL_SYNCHRONISED:
        return None, None
    day = reading.wall_ns // DAY_NS
    utc = time.gmtime(day * 86_400)
    return day, utc.tm_year * 12 + utc.tm_mon - 1


def until_next_ns(period: Period, reading: Reading, calendar: int | None, length_ns: int) -> int:
    """How long at most until the period ends; a month by the calendar is looked at again after a day."""
    if calendar is not None and calendar == period.calendar:
        return DAY_NS - reading.wall_ns % DAY_NS
    return max(length_ns - period.on_ns, 0)


def left_bytes(bound_bytes: int, spent_bytes: int, *, urgent: bool) -> int:
    """What may go still of a day's or month's bound: a small share of it waits for what is urgent."""
    kept = 0 if urgent else bound_bytes // BUDGET_SHARE
    return max(bound_bytes - kept - spent_bytes, 0)
