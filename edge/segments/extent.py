"""What a manifest says of the events under it: numbers, clocks, boots.

Called where segments are made and where they are checked. Pure.
"""

from __future__ import annotations

from edge.core.chain import OpenedGroup


class Extent:
    """What a manifest says of the events in it, gathered group by group."""

    def __init__(self) -> None:
        self._first_seq = self._last_seq = self._events = self._groups = 0
        self._wall_ns: list[int] = []
        self._trust: set[int] = set()
        self._boots: list[bytes] = []

    def add(self, group: OpenedGroup) -> None:
        """One group more, in order."""
        self._first_seq = self._first_seq or group.first_seq
        self._last_seq = group.last_seq
        self._events += len(group.parts) // 2
        self._groups += 1
        self._wall_ns.append(group.context.at.wall_ns)
        self._trust.add(group.context.at.wall_trust)
        if group.context.boot_id not in self._boots[-1:]:
            self._boots.append(group.context.boot_id)

    def fields(self) -> dict[str, int]:
        """By the manifest's names."""
        return {
            "first_seq": self._first_seq,
            "last_seq": self._last_seq,
            "events": self._events,
            "groups": self._groups,
            "wall_min_ns": min(self._wall_ns),
            "wall_max_ns": max(self._wall_ns),
            "trust_min": min(self._trust),
            "boots": len(self._boots),
        }
