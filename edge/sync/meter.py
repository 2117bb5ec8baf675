"""The meter at the box's upstream door: may so many bytes go now, over this link, and what went.

Owned by `edge-sync`, one for a data folder. It keeps the day's and the month's bytes in one small file that survives
restarts and power cuts. The file says more than was spent, never less: a share of the bound is written down as spent
ahead, and the next time only when that is used up. So a card sees some 64 writes at most in a day whose budget is
used whole, none where no such bound is set; and whatever is killed, the budget is never overrun.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.core.clock import Clock, Reading
from edge.core.codec import decode, encode
from edge.core.limits import BUDGET_SHARE, BURST_BYTES
from edge.core.records import record
from edge.core.settings import Settings
from edge.store.whole_file import write_whole
from edge.sync.budget import (
    DAY_NS,
    LINKS,
    MONTH_NS,
    S_NS,
    Bucket,
    Budget,
    Period,
    calendar_of,
    gone_on,
    left_bytes,
    parse,
    until_next_ns,
)

logger = logging.getLogger(__name__)

FILE_NAME: Final = "spent"
_VERSION: Final = 1
#: Waiting for a new day, the time that the box was on is written down so often: a power cut forgets no more of it.
_KEEP_NS: Final = 3_600 * S_NS


@record
class Left:
    """What the budget says of a link: bytes that may go still today and this month; None: as many as you like."""

    day_bytes: int | None
    month_bytes: int | None


def budgets_of(settings: Settings) -> dict[str, Budget]:
    """The budget of each class of link, from the settings. Raises Misconfigured."""
    given = (settings.budget_ethernet, settings.budget_wifi, settings.budget_metered)
    return {link: parse(text, f"budget_{link}") for link, text in zip(LINKS, given, strict=True)}


class Meter:
    """See the module. `folder` holds its file; `clock` is read at each question."""

    def __init__(self, budgets: Mapping[str, Budget], folder: Path, clock: Clock, boot: bytes) -> None:
        self._budgets, self._path, self._clock, self._boot = budgets, folder / FILE_NAME, clock, boot
        now = clock.read()
        self._at_ns = self._kept_ns = now.mono_ns
        self._buckets = {
            link: Bucket(budget.bytes_per_s, max(BURST_BYTES, budget.bytes_per_s), now.mono_ns)
            for link, budget in budgets.items()
            if budget.bytes_per_s
        }
        #: For each link its day and its month, as they are.
        self._periods = {link: (Period(), Period()) for link in budgets}
        on_ns = self._read(now.mono_ns)
        #: What the file says was spent, which is never less.
        self._noted = {
            link: (day.spent_bytes, month.spent_bytes) for link, (day, month) in self._periods.items()
        }
        self._go_on(now, on_ns)

    def wait_s(self, link: str, size_bytes: int, *, urgent: bool = False) -> float:
        """Seconds until so many bytes may go over a link, 0.0 where they may now; what it takes to be asked again."""
        budget, now = self._budgets[link], self._look()
        if budget.closed:
            return DAY_NS / S_NS
        day, month = self._periods[link]
        waits = [self._buckets[link].wait_ns(size_bytes)] if link in self._buckets else [0]
        for bound, period, length_ns, calendar in zip(
            (budget.day_bytes, budget.month_bytes),
            (day, month),
            (DAY_NS, MONTH_NS),
            calendar_of(now),
            strict=True,
        ):
            # What is larger than a whole day's bound goes when a day is untouched: never is no answer.
            wanted = min(size_bytes, left_bytes(bound, 0, urgent=urgent))
            if bound and wanted > left_bytes(bound, period.spent_bytes, urgent=urgent):
                waits.append(max(until_next_ns(period, now, calendar, length_ns), S_NS))
        return max(waits) / S_NS

    def spend(self, link: str, size_bytes: int) -> None:
        """So many bytes are about to go over a link. Raises StorageFailed where that cannot be written down."""
        budget = self._budgets[link]
        self._look()
        if link in self._buckets:
            self._buckets[link].take(size_bytes)
        day, month = (
            replace(each, spent_bytes=each.spent_bytes + size_bytes) for each in self._periods[link]
        )
        self._periods[link] = day, month
        bounds = (budget.day_bytes, day.spent_bytes), (budget.month_bytes, month.spent_bytes)
        if any(
            bound and spent > noted for (bound, spent), noted in zip(bounds, self._noted[link], strict=True)
        ):
            ahead = [max(spent, min(spent + bound // BUDGET_SHARE, bound)) for bound, spent in bounds]
            self._noted[link] = ahead[0], ahead[1]
            self._write()

    def most_bytes(self, link: str, *, urgent: bool = False) -> int:
        """The most that could ever go at once over a link: a day's or month's whole bound."""
        budget = self._budgets[link]
        bounds = [
            left_bytes(each, 0, urgent=urgent) for each in (budget.day_bytes, budget.month_bytes) if each
        ]
        return min(bounds, default=1 << 62)

    def room_bytes(self, link: str, *, urgent: bool = False) -> int:
        """What may go over a link still today and this month, whatever the rate."""
        self._look()
        budget, (day, month) = self._budgets[link], self._periods[link]
        bounds = (budget.day_bytes, day), (budget.month_bytes, month)
        left = [left_bytes(bound, period.spent_bytes, urgent=urgent) for bound, period in bounds if bound]
        return min(left, default=1 << 62)

    def left(self, link: str) -> Left:
        """For people: what may go still."""
        self._look()
        budget, (day, month) = self._budgets[link], self._periods[link]
        return Left(
            left_bytes(budget.day_bytes, day.spent_bytes, urgent=True) if budget.day_bytes else None,
            left_bytes(budget.month_bytes, month.spent_bytes, urgent=True) if budget.month_bytes else None,
        )

    def keep(self) -> None:
        """To be called while the budget is waited for: time that went on is written down now and then."""
        if self._look().mono_ns - self._kept_ns >= _KEEP_NS:
            self._write()

    def close(self) -> None:
        """Write down what was really spent, where any bound needs it: the process stops."""
        bounded = any(budget.day_bytes or budget.month_bytes for budget in self._budgets.values())
        self._look()
        exact = {link: (day.spent_bytes, month.spent_bytes) for link, (day, month) in self._periods.items()}
        if bounded and exact != self._noted:
            self._noted = exact
            self._write()

    def _look(self) -> Reading:
        now = self._clock.read()
        self._go_on(now, max(now.mono_ns - self._at_ns, 0))
        self._at_ns = now.mono_ns
        return now

    def _go_on(self, now: Reading, on_ns: int) -> None:
        calendars = calendar_of(now)
        for bucket in self._buckets.values():
            bucket.fill(now.mono_ns)
        for link, (day, month) in self._periods.items():
            made = gone_on(day, on_ns, calendars[0], DAY_NS), gone_on(month, on_ns, calendars[1], MONTH_NS)
            noted = self._noted[link]
            # A new period begins with nothing written ahead.
            self._noted[link] = (
                noted[0] if made[0].spent_bytes >= day.spent_bytes else 0,
                noted[1] if made[1].spent_bytes >= month.spent_bytes else 0,
            )
            self._periods[link] = made

    def _write(self) -> None:
        self._kept_ns = self._at_ns
        said = {
            link: [
                [period.calendar, period.on_ns, noted]
                for period, noted in zip(periods, self._noted[link], strict=True)
            ]
            for link, periods in self._periods.items()
        }
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        write_whole(self._path, encode([_VERSION, self._boot, self._at_ns, said]))

    def _read(self, mono_ns: int) -> int:
        """Take up what was written down; the time that the box was on since then, as far as anybody knows."""
        try:
            version, boot, noted_ns, said = decode(self._path.read_bytes())
            if version != _VERSION:
                raise ValueError("it is of another release")
            for link, (day, month) in said.items():
                if link in self._periods:
                    self._periods[link] = _period(day), _period(month)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.warning(
                "%s cannot be read (%s): the day's and month's bytes count from 0", self._path, error
            )
            return 0
        same = boot == self._boot and type(noted_ns) is int
        return max(mono_ns - noted_ns, 0) if same else mono_ns


def _period(said: Any) -> Period:
    calendar, on_ns, spent_bytes = said
    if (
        not (calendar is None or type(calendar) is int)
        or type(on_ns) is not int
        or type(spent_bytes) is not int
    ):
        raise ValueError("its counts are no numbers")
    return Period(calendar, on_ns, spent_bytes)
