"""Time that passes only when nothing else is left to do: hours of waiting rehearsed in no time.

Owned by the stage. Takes the place of the machine's clocks and of the event loop's timers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge.core.clock import WALL_SYNCHRONISED, Reading

#: 2026-01-01T00:00:00Z: every rehearsal begins there, so that it ends the same way each time.
START_WALL_NS: Final = 1_767_225_600 * 1_000_000_000
_NS_PER_S: Final = 1_000_000_000


class Alarm:
    """One call to come; as much of asyncio.TimerHandle as is used."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Let it not come."""
        self.call = None


class VirtualTime:
    """A clock (`edge.core.clock.Clock`) and the alarms set by it."""

    def __init__(self) -> None:
        self.now = Reading(_NS_PER_S, START_WALL_NS, WALL_SYNCHRONISED)
        self._alarms: list[tuple[int, int, Alarm]] = []
        self._count = 0

    def read(self) -> Reading:
        """One reading of all clocks."""
        return self.now

    def after_s(self, delay_s: float, call: Callable[[], object]) -> Alarm:
        """Call back once so much time has passed."""
        alarm = Alarm(call)
        self._count += 1
        due_ns = self.now.mono_ns + max(0, round(delay_s * _NS_PER_S))
        heapq.heappush(self._alarms, (due_ns, self._count, alarm))
        return alarm

    def after_ms(self, delay_ms: int, call: Callable[[], object]) -> object:
        """As `after_s`."""
        return self.after_s(delay_ms / 1_000, call)

    def pass_to_next(self) -> bool:
        """Let time pass to the next alarm and call back; False where none is set."""
        while self._alarms:
            due_ns, _, alarm = heapq.heappop(self._alarms)
            if alarm.call is None:
                continue
            passed_ns = max(0, due_ns - self.now.mono_ns)
            self.now = replace(
                self.now, mono_ns=self.now.mono_ns + passed_ns, wall_ns=self.now.wall_ns + passed_ns
            )
            alarm.call()
            return True
        return False
