"""How a loop takes its items in frames: of a table, so many rows at a time.

Read from a blueprint by `playbooks.shape`; used by the runtime, which cuts the frames, and by workers. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.limits import LOOP_FRAME_ROWS
from edge.core.records import record
from edge.core.values import TableRef


@record
class Frames:
    """At most `rows_max` rows (or items) and `bytes_max` bytes of a table in one frame, `seconds_max` on one claim.

    `whole` says that of a table each frame is one item, itself a table; else each row is an item.
    """

    rows_max: int | None = None
    bytes_max: int | None = None
    seconds_max: float | None = None
    whole: bool = False

    def rows_each(self, table: TableRef) -> int:
        """How many rows of a table make one item: fixed when the loop begins, so that a restart cuts it the same."""
        if not self.whole:
            return 1
        rows = self.rows_max or LOOP_FRAME_ROWS
        if self.bytes_max is not None and table.rows:
            rows = min(rows, self.bytes_max * table.rows // table.size_bytes)
        return max(1, rows)


NO_FRAMES: Final = Frames()


def frames_of(raw: Any) -> Frames:
    """A loop's frames from a blueprint. Raises ValueError."""
    if raw is None:
        return NO_FRAMES
    try:
        rows, size_bytes, seconds, whole = raw
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a blueprint: frames {raw!r:.80}") from error
    counts = all(each is None or (type(each) is int and each > 0) for each in (rows, size_bytes))
    paced = seconds is None or (type(seconds) in (int, float) and seconds > 0)
    if not counts or not paced or type(whole) is not bool:
        raise ValueError(f"not a blueprint: frames {raw!r:.80}")
    return Frames(rows, size_bytes, seconds, whole)
