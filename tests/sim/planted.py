"""Bugs to let in, so that the simulation can be seen to find them. Used by `tests.sim.__main__ --plant`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.core import scheduler, timing
from edge.core.state import StepState
from edge.runtime.commit.gate import CommitGate
from edge.runtime.loops import frames
from edge.runtime.retention.carrier import Carrier
from edge.runtime.retention.keeper import Keeper
from edge.store.journal import Journal
from edge.store.segment_file import SegmentReader
from playbooks.shape import Step


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

    def make_durable(journal: Journal, path: Path, reader: SegmentReader) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    Journal._make_durable = make_durable  # type: ignore[method-assign]


def _unknown_is_retried() -> None:
    """What nobody knows of is done again, whatever its policy says."""
    before, before_item = scheduler._attempts_problem, frames.item_problem

    def attempts_problem(step: Step, known: StepState) -> dict[str, Any] | None:
        return before(replace(step, on_unknown="retry"), known)

    def item_problem(*given: Any, retry: bool) -> dict[str, Any] | None:
        return before_item(*given, retry=True)

    scheduler._attempts_problem = attempts_problem
    frames.item_problem = item_problem  # type: ignore[assignment]


def _open_not_carried() -> None:
    """What is open is not written again before its place in the log is pruned."""
    Carrier._carry = lambda carrier, piece, execution: None  # type: ignore[method-assign]


def _receipts_not_asked() -> None:
    """What the centre does not have is pruned, too."""
    Keeper.receipted = lambda keeper: 2**62  # type: ignore[method-assign]


BUGS: Final[dict[str, Callable[[], None]]] = {
    "told-before-durable": _told_before_durable,
    "lost-ids": _lost_ids,
    "wall-clock-waits": _wall_clock_waits,
    "believed-after-a-failed-flush": _believed_after_a_failed_flush,
    "unknown-is-retried": _unknown_is_retried,
    "open-not-carried": _open_not_carried,
    "receipts-not-asked": _receipts_not_asked,
}
