"""The centre's index: which segments there are, how far each log is linked, what was refused. SQLite, one file.

A projection: `edge.central.rebuild` makes it again from the folder of segments alone; the tests hold the two equal.
One writer at a time (ingest). Every change of a log's state is one transaction, committed before anybody is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge.core.errors import StorageFailed
from edge.core.records import record
from edge.segments import verdicts
from edge.segments.manifest import Manifest

#: A segment's state here.
STORED, PARKED, FORK = verdicts.STORED, verdicts.PARKED, verdicts.FORK

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS logs (
    log_id BLOB PRIMARY KEY, box TEXT NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL,
    last_seq INTEGER NOT NULL, link BLOB NOT NULL, events INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (
    log_id BLOB NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL, state TEXT NOT NULL, box TEXT NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    wall_min_ns INTEGER NOT NULL, wall_max_ns INTEGER NOT NULL, PRIMARY KEY (log_id, number, id)
) WITHOUT ROWID;
"""


@record
class Linked:
    """How far a log is linked: the newest segment that joins its beginning without a gap."""

    log_id: bytes
    box: str
    number: int
    id: bytes
    last_seq: int
    link: bytes
    events: int


@record
class Entry:
    """One segment as the ledger has it."""

    log_id: bytes
    number: int
    id: bytes
    state: str
    box: str
    first_seq: int
    last_seq: int
    events: int
    bytes: int
    wall_min_ns: int
    wall_max_ns: int


class Ledger:
    """See the module. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        """Open it, or begin it. Raises StorageFailed."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._db.close()
            raise StorageFailed(
                f"{path} cannot be opened: {error}.",
                mend="Is the drive full, or read only? Nothing that was told is lost; where the file is damaged, "
                "`edge central rebuild` makes it again.",
            ) from error

    @contextmanager
    def change(self) -> Iterator[None]:
        """One change, whole or not at all. Raises StorageFailed."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits, or rolls back what an error broke off
                yield
        except sqlite3.OperationalError as error:
            raise StorageFailed(
                f"The centre's ledger could not be written: {error}.",
                mend="Is the drive full? What was told before is kept; what was not is sent again.",
            ) from error

    def linked(self, log_id: bytes) -> Linked | None:
        """How far a log is linked, None for one that has not begun."""
        row = self._db.execute("SELECT * FROM logs WHERE log_id = ?", (log_id,)).fetchone()
        return Linked(*row) if row is not None else None

    def logs(self) -> list[Linked]:
        """Every log, by box and id."""
        return [Linked(*row) for row in self._db.execute("SELECT * FROM logs ORDER BY box, log_id")]

    def log_ids(self) -> list[tuple[str, bytes]]:
        """Box and id of every log of which anything is here, linked or not."""
        rows = self._db.execute("SELECT DISTINCT box, log_id FROM segments ORDER BY box, log_id")
        return [(row[0], row[1]) for row in rows]

    def has(self, log_id: bytes, number: int, segment: bytes) -> str | None:
        """The state of a segment, None where it is not there."""
        row = self._db.execute(
            "SELECT state FROM segments WHERE log_id = ? AND number = ? AND id = ?", (log_id, number, segment)
        ).fetchone()
        return row[0] if row is not None else None

    def segments(self, log_id: bytes, state: str, first: int = 0, last: int = 2**62) -> Iterator[Entry]:
        """Segments of a log in that state, numbered `first` to `last`, in order."""
        rows = self._db.execute(
            "SELECT * FROM segments WHERE log_id = ? AND number BETWEEN ? AND ? AND state = ? ORDER BY number, id",
            (log_id, first, last, state),
        )
        return (Entry(*row) for row in rows)

    def note(self, segment: bytes, state: str, said: Manifest, size_bytes: int) -> None:
        """Put a segment in, or change its state."""
        values = (
            *(said.log_id, said.number, segment, state, said.box, said.first_seq, said.last_seq, said.events),
            *(size_bytes, said.wall_min_ns, said.wall_max_ns),
        )
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def link(self, made: Linked) -> None:
        """A log is linked that far."""
        values = (made.log_id, made.box, made.number, made.id, made.last_seq, made.link, made.events)
        self._db.execute("INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def exchange(self, ours: Entry, segment: bytes, said: Manifest, size_bytes: int) -> None:
        """Another segment with the same events stands for a linked one from now on."""
        self.forget(ours)
        self.note(segment, ours.state, said, size_bytes)
        self._db.execute(
            "UPDATE logs SET id = ? WHERE log_id = ? AND id = ?", (segment, ours.log_id, ours.id)
        )

    def forget(self, entry: Entry) -> None:
        """Let go of a segment's row."""
        place = (entry.log_id, entry.number, entry.id)
        self._db.execute("DELETE FROM segments WHERE log_id = ? AND number = ? AND id = ?", place)

    def everything(self) -> list[tuple[Any, ...]]:
        """Every row of every table, in order: what a rebuilt ledger must equal."""
        rows = [("log", *row) for row in self._db.execute("SELECT * FROM logs ORDER BY log_id")]
        return rows + [
            ("segment", *row)
            for row in self._db.execute("SELECT * FROM segments ORDER BY log_id, number, id")
        ]

    def close(self) -> None:
        """Close the file."""
        self._db.close()
