"""What is missing of the logs at a centre: exact ranges of events, of which box, since when. Pure over the ledger.

A gap is seen only once something behind it has come, or where a file is gone: what a box has not sent at all is
no gap. Used by
`edge central gaps` and by the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge.central.ledger import PARKED, STORED, Entry, Ledger
from edge.core.records import record


@record
class Gap:
    """Events `first` to `last` of a log are not here.

    `since_ns` is the wall clock of the last event before them, 0 where the log has no beginning here; `until_ns` of
    the first one after them: between the two the box wrote what is missing.
    """

    box: str
    log_id: bytes
    first: int
    last: int
    since_ns: int
    until_ns: int


def gaps(ledger: Ledger, is_here: Callable[[Entry], bool] = lambda entry: True) -> Iterator[Gap]:
    """Every gap, by box, log and range; also what was here, and of which `is_here` says that its file is gone."""
    for box, log_id in ledger.log_ids():
        linked = ledger.linked(log_id)
        last, since_ns = 0, 0
        for entry in ledger.segments(log_id, STORED):
            if not is_here(entry):
                yield Gap(box, log_id, entry.first_seq, entry.last_seq, entry.wall_min_ns, entry.wall_max_ns)
        if linked is not None:
            last = linked.last_seq
            newest = next(ledger.segments(log_id, STORED, linked.number, linked.number), None)
            since_ns = newest.wall_max_ns if newest is not None else 0
        for parked in ledger.segments(log_id, PARKED):
            if parked.first_seq > last + 1:
                yield Gap(box, log_id, last + 1, parked.first_seq - 1, since_ns, parked.wall_min_ns)
            if parked.last_seq > last:
                last, since_ns = parked.last_seq, parked.wall_max_ns
