"""A centre's logs as sources of events: which segments of which log, by the ledger.

Called by the commands that replay at the centre. Reads the ledger and the shelf's names, and opens no segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.central.ledger import STORED, Ledger, Linked
from edge.central.shelf import Shelf
from edge.core.chain import OpenedGroup
from edge.core.errors import RequestRefused
from edge.replay.sealed_source import SealedFile, SealedSource
from edge.replay.source import Missing


def require_centre(data: Path) -> None:
    """Raises RequestRefused where a folder is no centre's."""
    if not (data / "ledger.sqlite").is_file():
        raise RequestRefused(f"{data} is no folder of a centre.", mend="Name it with --data.")


def central_source(data: Path, execution: str | None, box: str | None) -> SealedSource:
    """The log that an execution's id names, or the newest of a box, as the centre has it. Raises RequestRefused."""
    ledger, shelf = _opened(data)
    try:
        name, log_id = _log_of(ledger, execution, box)
        files = []
        for entry in ledger.segments(log_id, STORED):
            path = shelf.path(log_id, entry.number, entry.id)
            files.append(
                SealedFile(path, entry.number, entry.first_seq, entry.last_seq, path.stat().st_mtime_ns)
            )
        return SealedSource(log_id, name, files, shelf.blob)
    finally:
        ledger.close()


class OneSource:
    """The log of one execution, of which only those segments are looked at that are read.

    What is linked has no holes, so there is nothing missing in it; of what is parked it knows nothing.
    """

    def __init__(self, data: Path, execution: str) -> None:
        """Raises RequestRefused where the log of that execution is not here."""
        self._ledger, self._shelf = _opened(data)
        self.box, self.log_id = _log_of(self._ledger, execution, None)
        self.missing: list[Missing] = []

    def groups(self, after_seq: int = 0) -> Iterator[OpenedGroup]:
        """As in `edge.replay.source.Source`. Raises SegmentRejected."""
        for entry in self._ledger.segments(self.log_id, STORED, self._number_of(after_seq + 1)):
            path = self._shelf.path(self.log_id, entry.number, entry.id)
            one = SealedFile(path, entry.number, entry.first_seq, entry.last_seq)
            yield from SealedSource(self.log_id, self.box, [one], self._shelf.blob).groups(after_seq)

    def _number_of(self, seq: int) -> int:
        """The segment that holds an event, or the first after it: by halves, each a look into the ledger."""
        linked = self._ledger.linked(self.log_id)
        low, high = 0, linked.number if linked is not None else 0
        while low < high:
            middle = (low + high) // 2
            entry = next(self._ledger.segments(self.log_id, STORED, middle, middle), None)
            if entry is not None and entry.last_seq >= seq:
                high = middle
            else:
                low = middle + 1
        return low

    def blob(self, digest: bytes) -> bytes:
        """As in Source. Raises SegmentRejected."""
        return self._shelf.blob(digest)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


def _opened(data: Path) -> tuple[Ledger, Shelf]:
    require_centre(data)
    return Ledger(data / "ledger.sqlite"), Shelf(data)


def _log_of(ledger: Ledger, execution: str | None, box: str | None) -> tuple[str, bytes]:
    """Box and log. Raises RequestRefused."""
    logs = ledger.logs()
    if execution is not None:
        found = [each for each in logs if each.log_id.hex() == execution.rpartition("-")[0]]
    else:
        found = [each for each in logs if each.box == box]
    if not found:
        raise RequestRefused(
            f"There is no log of {execution or box} here.",
            mend="`edge central boxes` lists the boxes; an execution's id begins with its log's.",
        )

    def ended_ns(each: Linked) -> int:
        newest = next(ledger.segments(each.log_id, STORED, each.number), None)
        return newest.wall_max_ns if newest is not None else 0

    newest = found[0] if len(found) == 1 else max(found, key=ended_ns)
    return newest.box, newest.log_id
