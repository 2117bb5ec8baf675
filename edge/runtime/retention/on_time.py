"""How long the box has been on since something was written: what ages are counted in. Pure.

Used by retention. The wall clock is not asked: it may be set by ten years, and what is pruned by that is gone. Time
that the box was off does not count, and what cannot be known counts as nothing, so nothing goes too early.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edge.core.timing import Moment

_NS_PER_S: Final = 1_000_000_000


class OnTime:
    """Ages as of one moment, from the last clock readings of the boots that the log knows."""

    def __init__(self, readings: Iterable[tuple[bytes, int]], now: Moment) -> None:
        """`readings` are `(boot id, CLOCK_BOOTTIME in ns)` as they stand in the log, oldest first."""
        self._now = now
        self._last_ns: dict[bytes, int] = {}
        for boot_id, mono_ns in readings:
            self._last_ns[boot_id] = max(mono_ns, self._last_ns.get(boot_id, 0))
        self._last_ns.pop(now.boot_id, None)

    def age_s(self, boot_id: bytes, mono_ns: int) -> int:
        """Seconds of box-on time since that reading, at least."""
        if boot_id == self._now.boot_id:
            return (self._now.at.mono_ns - mono_ns) // _NS_PER_S
        boots = list(self._last_ns)
        place = boots.index(boot_id) if boot_id in self._last_ns else -1
        passed_ns = max(0, self._last_ns[boot_id] - mono_ns) if place >= 0 else 0
        between_ns = sum(self._last_ns[boot] for boot in boots[place + 1 :])
        return (passed_ns + between_ns + self._now.at.mono_ns) // _NS_PER_S
