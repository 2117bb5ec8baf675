"""Bugs to let in, so that the simulation can be seen to find them. Used by `tests.sim.__main__ --plant`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.core import timing
from edge.runtime.commit.gate import CommitGate
from edge.store.journal import Journal
from edge.store.segment_file import SegmentReader


def _told_before_durable() -> None:
    """Receipts and answers do not wait for the flush."""

    def after(gate: CommitGate, seq: int, callback: Callable[[bytes], None]) -> None:
        gate._want(seq)
        gate._loop.call_soon(callback, b"")

    CommitGate.after = after  # type: ignore[method-assign]


def _lost_ids() -> None:
    """Request ids are not found again."""
    CommitGate.find_request = lambda gate, principal, request_id: None  # type: ignore[method-assign]


def _wall_clock_waits() -> None:
    """Within a boot the wall clock counts."""
    before = timing.passed_since

    def passed_since(since: timing.Moment, now: timing.Moment) -> timing.Passed:
        found = before(since, now)
        if found.by == timing.BOOTTIME:
            return timing.Passed(max(0, now.at.wall_ns - since.at.wall_ns), found.by)
        return found

    timing.passed_since = passed_since


def _believed_after_a_failed_flush() -> None:
    """What was read at a start is not written again."""

    def make_durable(journal: Journal, path: Path, reader: SegmentReader, last: int) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    Journal._make_durable = make_durable  # type: ignore[method-assign]


BUGS: Final[dict[str, Callable[[], None]]] = {
    "told-before-durable": _told_before_durable,
    "lost-ids": _lost_ids,
    "wall-clock-waits": _wall_clock_waits,
    "believed-after-a-failed-flush": _believed_after_a_failed_flush,
}
