"""Virtual time: an event loop that never waits, and the clocks of a box whose truth the simulation knows.

Owned by `tests.sim.world`. Between two things that happen the loop's time jumps; nothing reads a machine's clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, Final

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED, Reading

S: Final = 1_000_000_000
#: 2026-01-01T00:00:00Z.
START_WALL_NS: Final = 1_767_225_600 * S


class _NeverWaits(selectors.SelectSelector):
    """A selector that lets the loop's time pass in place of waiting."""

    loop: SimLoop

    def select(self, timeout: float | None = None) -> Any:
        """What is ready; where nothing is, the time has passed."""
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for something that never happens"
            self.loop.now_s += timeout
        return ready


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        selector = _NeverWaits()
        selector.loop = self
        self.now_s = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self.now_s

    async def pass_s(self, seconds: float) -> None:
        """Let so much virtual time pass, and all that is due in it happen."""
        over = self.create_future()
        self.call_later(seconds, over.set_result, None)
        await over


class LifeLoop:
    """The loop as one life of the runtime sees it: what it asked for comes to nothing when it is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self.over = loop, False

    def _within(self, call: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: Any) -> object:
            return None if self.over else call(*arguments)

        return guarded

    def time(self) -> float:
        """As the loop."""
        return self._loop.time()

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> Any:
        """As the loop."""
        return self._loop.call_soon(self._within(call), *arguments)

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: Any) -> Any:
        """As the loop."""
        return self._loop.call_later(delay_s, self._within(call), *arguments)


class BoxClock:
    """A box's clocks (`edge.core.clock.Clock`): true since boot, a wall clock that may be wrong, and trust in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slept_ns = self._booted_ns = 0
        self._error_ns, self._trust = 0, WALL_SYNCHRONISED
        #: How often the box was started where nobody could say how long it had been off, and when last.
        self.boots = 0

    @property
    def true_ns(self) -> int:
        """What passed since the beginning of the world, power or none."""
        return round(self._loop.time() * S) + self._slept_ns

    def read(self) -> Reading:
        """One reading of all clocks."""
        wall_ns = START_WALL_NS + self.true_ns + self._error_ns
        return Reading(self.true_ns - self._booted_ns + S, wall_ns, self._trust)

    def sleep(self, seconds: float) -> None:
        """The box is suspended: CLOCK_BOOTTIME goes on, the loop's time does not."""
        self._slept_ns += round(seconds * S)

    def boot(self, shows: str, off_ns: int) -> None:
        """Power is back; the wall clock `shows` the truth, "1970", or the moment power was lost ("last")."""
        self.boots += 1
        self._booted_ns = self.true_ns
        self._error_ns = {"true": 0, "last": -off_ns, "1970": -START_WALL_NS - self.true_ns}[shows]
        self._trust = WALL_IMPLAUSIBLE if shows == "1970" else WALL_UNCONFIRMED

    def jump(self, seconds: int) -> None:
        """Somebody sets the wall clock; nobody believes it any longer."""
        self._error_ns += seconds * S
        self._trust = (
            WALL_UNCONFIRMED if START_WALL_NS + self._error_ns > START_WALL_NS // 2 else WALL_IMPLAUSIBLE
        )

    def synchronise(self) -> None:
        """The network sets the wall clock."""
        self._error_ns, self._trust = 0, WALL_SYNCHRONISED
