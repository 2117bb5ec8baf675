"""A centre's logs as sources of events: which segments of which log, by the ledger.

Called by the commands that replay at the centre. Reads the ledger and the shelf's names, and opens no segment.
"""

from __future__ import annotations

from pathlib import Path

from edge.central.ledger import STORED, Ledger
from edge.central.shelf import Shelf
from edge.core.errors import RequestRefused
from edge.replay.sealed_source import SealedFile, SealedSource


def require_centre(data: Path) -> None:
    """Raises RequestRefused where a folder is no centre's."""
    if not (data / "ledger.sqlite").is_file():
        raise RequestRefused(f"{data} is no folder of a centre.", mend="Name it with --data.")


def central_source(data: Path, execution: str | None, box: str | None) -> SealedSource:
    """The log that an execution's id names, or the newest of a box, as the centre has it. Raises RequestRefused."""
    require_centre(data)
    ledger = Ledger(data / "ledger.sqlite")
    try:
        known = ledger.log_ids()
        if execution is not None:
            found = [each for each in known if each[1].hex() == execution.rpartition("-")[0]]
        else:
            found = [each for each in known if each[0] == box]
        if not found:
            raise RequestRefused(
                f"There is no log of {execution or box} here.",
                mend="`edge central boxes` lists the boxes; an execution's id begins with its log's.",
            )
        ends = {log_id: max((e.wall_max_ns for e in ledger.segments(log_id, STORED)), default=0)
                for _, log_id in found}  # fmt: skip
        name, log_id = max(found, key=lambda each: ends[each[1]])
        shelf = Shelf(data)
        files = []
        for entry in ledger.segments(log_id, STORED):
            path = shelf.path(log_id, entry.number, entry.id)
            files.append(
                SealedFile(path, entry.number, entry.first_seq, entry.last_seq, path.stat().st_mtime_ns)
            )
        return SealedSource(log_id, name, files, shelf.blob)
    finally:
        ledger.close()
