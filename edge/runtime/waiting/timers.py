"""The runtime's one clockwork: calls back when moments of CLOCK_BOOTTIME have come.

Owned by the executor, used for waits, pauses and deadlines. One heap, and one timer of the loop for the earliest of
them. It is never the record of anything: whoever arms a timer can tell from the log that it is to be armed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

from edge.core.clock import Clock

#: So often the heap is looked at while anything is armed: the loop's own clock stands still while the box sleeps, and
#: a wall clock that was set may have brought an instant nearer.
LOOK_S: Final = 30.0
#: Calls in one go: thousands of waits may end in one moment, and requests come in between.
_AT_ONCE: Final = 64
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000

Key = TypeVar("Key", bound=Hashable)
#: When, which of all, its key, and what to call: no two are equal before their key.
_Moment = tuple[int, int, Hashable, Callable[[Any], None]]


def _after_s(delay_s: float, call: Callable[[], object]) -> Any:
    return asyncio.get_running_loop().call_later(delay_s, call)


class Timers:
    """Moments of this boot, each under a key; a key has one at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: A hundred thousand waits are held in here, so one tuple is all of a moment.
        self._heap: list[_Moment] = []
        self._armed: dict[Hashable, _Moment] = {}
        self._count = 0
        self._alarm: Any = None
        self._alarm_ns = 0
        self._stopped = False
        #: Calls back after so many seconds; what it gives can be cancelled.
        self.after_s: Callable[[float, Callable[[], object]], Any] = _after_s

    def arm(self, due_ns: int, key: Key, call: Callable[[Key], None]) -> None:
        """Call `call(key)` once CLOCK_BOOTTIME is at `due_ns`, never from inside this; in place of what it had."""
        self._count += 1
        moment = self._armed[key] = (due_ns, self._count, key, call)
        heapq.heappush(self._heap, moment)
        self._wind(due_ns)

    def pause(self, delay_ms: int, call: Callable[[], None]) -> None:
        """Call back after so many milliseconds."""
        self.arm(self._clock.read().mono_ns + delay_ms * _NS_PER_MS, object(), lambda _: call())

    def stop(self) -> None:
        """No moment comes any longer: the runtime ends, and its log is about to be closed."""
        self._stopped = True
        if self._alarm is not None:
            self._alarm.cancel()

    def drop(self, key: Hashable) -> None:
        """Forget what is armed under this key, if anything is."""
        self._armed.pop(key, None)
        if len(self._heap) > 2 * len(self._armed) + 64:
            self._heap = [each for each in self._heap if self._is_armed(each)]
            heapq.heapify(self._heap)

    def look(self) -> int:
        """Call back for moments that have come, the earliest first; how many. What is left over has its turn next."""
        self._alarm = None
        now_ns = self._clock.read().mono_ns
        due: list[_Moment] = []
        while self._heap and self._heap[0][0] <= now_ns and len(due) < _AT_ONCE:
            each = heapq.heappop(self._heap)
            if self._is_armed(each):
                due.append(each)
        for each in due:
            if self._is_armed(each):  # a call before this one may have dropped it
                del self._armed[each[2]]
                each[3](each[2])
        if self._heap:
            self._wind(self._heap[0][0])
        return len(due)

    def _is_armed(self, each: _Moment) -> bool:
        return self._armed.get(each[2]) is each

    def _wind(self, due_ns: int) -> None:
        """See that the loop comes by in time."""
        if self._stopped:
            return
        if self._alarm is not None:
            if due_ns >= self._alarm_ns:
                return
            self._alarm.cancel()
        left_s = max(0.0, (due_ns - self._clock.read().mono_ns) / _NS_PER_S)
        self._alarm_ns = due_ns
        self._alarm = self.after_s(min(left_s, LOOK_S), self.look)

    def __len__(self) -> int:
        return len(self._armed)
