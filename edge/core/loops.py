"""Which items of a loop are next, and what came of all of them.

Pure; called by the runtime, which carries frames out: neighbouring items that one claim takes. Exactly one outcome is
committed for each index; the collected results are in the order of the items, whatever settled first.
"""

from __future__ import annotations

from typing import Any

from edge.core.codec import decode
from edge.core.errors import EvaluationFailed
from edge.core.limits import (
    ATTEMPTS_MAX,
    LOOP_CLAIM_ITEMS_MAX,
    LOOP_CLAIM_US,
    LOOP_ITEMS_MAX,
    LOOP_RESULT_BYTES_MAX,
)
from edge.core.loop_state import LoopState
from edge.core.records import record
from edge.core.values import BlockRef, TableRef, ValueRef
from playbooks.frames import Frames
from playbooks.outputs import Accumulate, accumulated


@record
class Frame:
    """`count` items from index `first` on."""

    first: int
    count: int


@record
class Rows:
    """What a loop over a table runs over: items of `each` rows of `table`, the last of what is left.

    An item is a row as a map, or a table where `whole`.
    """

    table: TableRef
    each: int
    whole: bool

    @property
    def total(self) -> int:
        """How many items there are."""
        return -(-(self.table.rows or 0) // self.each)

    def parts(self) -> dict[str, Any]:
        """As it stands in the loop's event."""
        return {"table": self.table, "each": self.each, "whole": self.whole}


def as_rows(value: Any, frames: Frames, step: str) -> Rows:
    """What a cursor runs over. Raises EvaluationFailed where it is no table, or has too many rows for its frames."""
    if type(value) is not TableRef:
        raise EvaluationFailed(
            f"The cursor of step {step} runs over a table, not over {type(value).__name__}.",
            mend="Give it a table, or loop over the list in the mode sequential or parallel.",
            code="loop_invalid",
        )
    rows = Rows(value, frames.rows_each(value), frames.whole)
    if rows.total > LOOP_ITEMS_MAX:
        raise EvaluationFailed(
            f"The cursor of step {step} has {rows.total} items; {LOOP_ITEMS_MAX} are allowed.",
            mend="Take whole frames (frame: {process: frame, max_rows: …}).",
            code="loop_invalid",
        )
    return rows


def as_items(value: Any, step: str) -> list[Any]:
    """The items of a loop's `in`. Raises EvaluationFailed where it is no list, or too long."""
    if type(value) is TableRef:
        raise EvaluationFailed(
            f"The loop of step {step} runs over a list, not over a table.",
            mend="Write spec: {mode: cursor}.",
            code="loop_invalid",
        )
    if type(value) is not list:
        raise EvaluationFailed(
            f"The loop of step {step} runs over a list, not over {type(value).__name__}.",
            mend="Let `loop.in` give a list; of a map take `.items()` or `| list`.",
            code="loop_invalid",
        )
    if len(value) > LOOP_ITEMS_MAX:
        raise EvaluationFailed(
            f"The loop of step {step} has {len(value)} items; {LOOP_ITEMS_MAX} are allowed.",
            mend="Loop over parts of it.",
            code="loop_invalid",
        )
    return value


def missing(loop: LoopState) -> list[Frame]:
    """Ranges of items without an outcome, in order."""
    found: list[Frame] = []
    at = 0
    for part in sorted(loop.parts, key=lambda part: part.first):
        if part.first > at:
            found.append(Frame(at, part.first - at))
        at = part.first + part.count
    if at < loop.started.total:
        found.append(Frame(at, loop.started.total - at))
    return found


def next_frame(
    waiting: list[Frame], loop: LoopState, item_us: int, *, alone: bool, count_max: int | None = None
) -> tuple[Frame, list[Frame]]:
    """The next frame to claim, and what is left: as many items as a claim should take time for.

    `count_max` is how many items the playbook wants in a frame, where it says so. An item of which an attempt was
    lost goes alone, so that blame falls right; so does one with recorded tasks to take along, and every item where
    `alone`.
    """
    range_ = waiting[0]
    fitting = LOOP_CLAIM_US // max(item_us, 1)
    wanted = min(fitting, LOOP_CLAIM_ITEMS_MAX) if count_max is None else count_max
    count = 1 if alone else max(1, min(range_.count, wanted))
    if count > 1 and (loop.lost or loop.tasks):
        apart = (n for n in range(count) if range_.first + n in loop.lost or range_.first + n in loop.tasks)
        count = max(1, next(apart, count))
    rest = [Frame(range_.first + count, range_.count - count)] if range_.count > count else []
    return Frame(range_.first, count), rest + waiting[1:]


def item_problem(
    loop: LoopState, index: int, problem: dict[str, Any] | None, *, retry: bool
) -> dict[str, Any] | None:
    """Why an item may not be tried again, or None where it may. `retry` is the policy for unknown effects."""
    if index in loop.waiting:
        return None
    reason = (problem or {}).get("message", "the runtime stopped while it ran")
    if index in loop.intended and not retry:
        return {
            "code": "outcome_unknown",
            "message": f"Item {index} may or may not have had its effect: {reason}.",
            "mend": "Look at the effect, then send a new request; or declare spec.on_unknown: retry.",
        }
    if loop.attempts(index) < ATTEMPTS_MAX:
        return None
    return {
        "code": (problem or {}).get("code", "worker_lost"),
        "message": f"Item {index} was lost {ATTEMPTS_MAX} times; the last time {reason}.",
    }


def collected(loop: LoopState) -> list[Any]:
    """The results of all items, in order; a table or large value as its reference."""
    made: list[Any] = []
    for part in sorted(loop.parts, key=lambda part: part.first):
        made += decode(part.results)
    return made


def blocks_in(results: list[Any]) -> dict[int, BlockRef]:
    """The items that gave a block, by index."""
    return {index: each for index, each in enumerate(results) if type(each) in (TableRef, ValueRef)}


def joined(loop: LoopState, how: Accumulate | None) -> Any:
    """What a loop gives: the results of all items in order, or as the step accumulates them. Raises ToolFailed."""
    results = collected(loop)
    if how is None:
        return results
    failed = {index: problem for part in loop.parts for index, problem in (part.failed or {}).items()}
    made: Any = None
    for index, each in enumerate(results):
        if how.on_error if index in failed else how.on_success:
            made = accumulated(how, made, failed.get(index, each))
    return made


def first_failure(loop: LoopState) -> dict[str, Any] | None:
    """The problem of the first item that failed, with its index; None where none did."""
    failed = {index: problem for part in loop.parts for index, problem in (part.failed or {}).items()}
    if not failed:
        return None
    index = min(failed)
    return {**failed[index], "item": index}


def results_problem(step: str) -> dict[str, Any]:
    """Why a loop whose results are too large cannot go on."""
    return {
        "code": "result_too_large",
        "message": f"The results of the loop {step} have more than {LOOP_RESULT_BYTES_MAX} bytes.",
        "mend": "Let each item return less, or a table.",
    }
