"""In which order segments go to the centre, how they are bundled, and how long to wait after a failure.

Pure. Called by `edge.sync.daemon` with what the centre lacks. Urgent segments first; then the newest hour, so that
after a long outage the centre sees at once how the box is now; then the oldest first, so that the log joins and the
receipt moves. A failure changes when something is sent, never how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from edge.core.limits import BACKOFF_S, BACKOFF_S_MAX, BUNDLE_BYTES, BUNDLE_SEGMENTS_MAX
from edge.core.records import record
from edge.segments.manifest import URGENT

#: What counts as news: the hour before the newest segment's last event.
NEWEST_NS: Final = 3_600 * 1_000_000_000


@record
class Waiting:
    """One sealed segment on the box, as far as its order goes; `size_bytes` is the file's."""

    number: int
    priority: int
    wall_max_ns: int
    size_bytes: int


def in_order(waiting: Iterable[Waiting]) -> list[Waiting]:
    """What goes first stands first. A clock that jumped only changes what counts as the newest hour."""
    by_number = sorted(waiting, key=lambda each: each.number)
    urgent = [each for each in by_number if each.priority == URGENT]
    routine = [each for each in by_number if each.priority != URGENT]
    newest = len(routine)
    while newest and 0 <= routine[-1].wall_max_ns - routine[newest - 1].wall_max_ns < NEWEST_NS:
        newest -= 1
    return urgent + routine[newest:] + routine[:newest]


def bundle(ordered: Sequence[Waiting], bytes_per_s: int = 0, left_bytes: int = BUNDLE_BYTES) -> list[Waiting]:
    """What goes in one upload: from the front, by bytes, one segment at least, urgent ones by themselves.

    Under a rate it is some four seconds' worth, so that what becomes urgent meanwhile need not wait long. The last
    `left_bytes` of a day's budget are used up with fewer.
    """
    most_bytes = min(BUNDLE_BYTES, left_bytes, *([4 * bytes_per_s] if bytes_per_s else []))
    taken: list[Waiting] = []
    size_bytes = 0
    for each in ordered[:BUNDLE_SEGMENTS_MAX]:
        size_bytes += each.size_bytes
        if taken and (size_bytes > most_bytes or each.priority != taken[0].priority):
            break
        taken.append(each)
    return taken


def backoff_s(failures: int, chance: float, retry_after_s: float = 0.0) -> float:
    """How long to wait after so many failures in a row; `chance` is from [0, 1).

    Full jitter: anything between nothing and a bound that doubles, so that a fleet that lost its centre does not come
    back in step. What the centre asks for (`retry_after_s`) is waited for in any case.
    """
    bound_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(max(failures - 1, 0), 30))
    return min(retry_after_s, BACKOFF_S_MAX * 4) + chance * bound_s
