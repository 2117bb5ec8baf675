"""A clock that moves only when told: `edge.core.clock.Clock` for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edge.core.clock import WALL_SYNCHRONISED, Reading

#: 2026-01-01T00:00:00Z; any plausible instant does.
START_WALL_NS: Final = 1_767_225_600 * 1_000_000_000


class ManualClock:
    """Starts at one second after boot, at `START_WALL_NS`, synchronised."""

    def __init__(self) -> None:
        self.now = Reading(1_000_000_000, START_WALL_NS, WALL_SYNCHRONISED)

    def read(self) -> Reading:
        """One reading of all clocks."""
        return self.now

    def advance(self, by_ns: int) -> None:
        """Let time pass on both clocks."""
        assert by_ns >= 0, "time does not run backwards here; use set_wall"
        self.now = replace(self.now, mono_ns=self.now.mono_ns + by_ns, wall_ns=self.now.wall_ns + by_ns)

    def set_wall(self, wall_ns: int, wall_trust: int = WALL_SYNCHRONISED) -> None:
        """Let the wall clock jump, as it does when it is set; the other one goes on."""
        self.now = replace(self.now, wall_ns=wall_ns, wall_trust=wall_trust)
