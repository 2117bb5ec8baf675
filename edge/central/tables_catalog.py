"""Which Parquet files are the tables, and how much of each log is in them: SQLite, one file beside them.

A change of the tables is one transaction here: files that it does not name do not exist for anybody, so a query sees
all of a compaction or nothing. A projection like the files; where it is lost, both are made again from the segments.
Written by `edge.central.compaction` alone, read by `edge.central.tables` and the audit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.core.records import record

#: Of the layout below; another one is made again.
_LAYOUT: Final = "2"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, shard INTEGER NOT NULL, day TEXT NOT NULL, linked INTEGER NOT NULL,
    events INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extents (
    name TEXT NOT NULL, row_group INTEGER NOT NULL, log_id BLOB NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, PRIMARY KEY (log_id, first, name, row_group)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS extents_by_name ON extents (name);
CREATE TABLE IF NOT EXISTS reached (log_id BLOB PRIMARY KEY, number INTEGER NOT NULL, id BLOB NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (log_id BLOB NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL,
    shard INTEGER NOT NULL, PRIMARY KEY (log_id, number, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantined (log_id BLOB NOT NULL, number INTEGER NOT NULL, id BLOB NOT NULL,
    box TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (log_id, number, id)) WITHOUT ROWID;
"""
_TABLES: Final = ("files", "extents", "reached", "parked", "quarantined")
_EMPTY: Final = tuple(f"DELETE FROM {table}" for table in _TABLES)  # noqa: S608 - names of ours
_DROP: Final = tuple(f"DROP TABLE IF EXISTS {table}" for table in ("about", *_TABLES))

Place = tuple[bytes, int, bytes]
"""A segment: log, number, id."""


@record
class File:
    """One Parquet file: of which shard and day, of linked segments or of parked ones, how much is in it.

    `extents` are `(row group, log, first, last)` of the executions in it, by the numbers that name them.
    """

    name: str
    shard: int
    day: str
    linked: bool
    events: int
    size_bytes: int
    extents: tuple[tuple[int, bytes, int, int], ...] = ()


@record
class Quarantined:
    """A segment whose events did not stand the deep check, and why. Nothing of it is in the tables."""

    log_id: bytes
    number: int
    id: bytes
    box: str
    reason: str


class Catalog:
    """See the module. Opened anew by every process; not for two threads at once."""

    def __init__(self, path: Path, projection: str) -> None:
        """Open or begin it for writing; one of another layout or projection is emptied."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous = FULL")
        wanted = f"{_LAYOUT}/{projection}"
        if self._about() != wanted:
            with self.change():
                for statement in (*_DROP, *_SCHEMA.split(";")):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO about VALUES ('projection', ?)", (wanted,))

    @classmethod
    def reading(cls, path: Path, projection: str) -> Catalog | None:
        """Open it for looking only; None where there is none of this projection."""
        made = cls.__new__(cls)
        try:
            made._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.OperationalError:
            return None
        if made._about() != f"{_LAYOUT}/{projection}":
            made.close()
            return None
        return made

    def _about(self) -> str | None:
        try:
            row = self._db.execute("SELECT value FROM about WHERE name = 'projection'").fetchone()
        except sqlite3.OperationalError:
            return None
        return row[0] if row is not None else None

    @contextmanager
    def change(self) -> Iterator[None]:
        """One change, whole or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:  # commits, or rolls back what an error broke off
            yield

    @contextmanager
    def look(self) -> Iterator[None]:
        """Several questions, answered from one state."""
        self._db.execute("BEGIN")
        with self._db:
            yield

    def files(
        self, shard: int | None = None, day: str | None = None, *, linked: bool | None = None
    ) -> list[File]:
        """The files of a shard, of a day in it, or all; those that were written first come first. Without extents."""
        rows = self._db.execute(
            "SELECT name, shard, day, linked, events, bytes FROM files WHERE shard = coalesce(?, shard)"
            " AND day = coalesce(?, day) AND linked = coalesce(?, linked) ORDER BY name",
            (shard, day, linked),
        )
        return [File(row[0], row[1], row[2], bool(row[3]), row[4], row[5]) for row in rows]

    def holding(self, log_id: bytes, execution: int) -> list[tuple[str, int]]:
        """Files and row groups in which events of that execution may be."""
        rows = self._db.execute(
            "SELECT name, row_group FROM extents WHERE log_id = ? AND first <= ? AND last >= ? ORDER BY 1, 2",
            (log_id, execution, execution),
        )
        return [(row[0], row[1]) for row in rows]

    def next_number(self) -> int:
        """A number that no file's name has had, above all of them."""
        row = self._db.execute("SELECT value FROM about WHERE name = 'number'").fetchone()
        return int(row[0]) if row is not None else 0

    def reached(self, log_id: bytes) -> tuple[int, bytes] | None:
        """Number and id of the last linked segment of a log that is in the tables, None where none is."""
        row = self._db.execute("SELECT number, id FROM reached WHERE log_id = ?", (log_id,)).fetchone()
        return (row[0], row[1]) if row is not None else None

    def logs(self) -> list[bytes]:
        """Every log of which linked segments are in the tables."""
        return [row[0] for row in self._db.execute("SELECT log_id FROM reached ORDER BY log_id")]

    def parked(self, shard: int) -> list[Place]:
        """The parked segments that are in the tables as such."""
        rows = self._db.execute(
            "SELECT log_id, number, id FROM parked WHERE shard = ? ORDER BY 1, 2, 3", (shard,)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def quarantined(self) -> list[Quarantined]:
        """Every segment that is left out, and why."""
        return [
            Quarantined(*row)
            for row in self._db.execute("SELECT * FROM quarantined ORDER BY box, log_id, number")
        ]

    # ---- inside a change -----------------------------------------------------------------------------------

    def replace(self, gone: Iterable[File], come: Iterable[File], next_number: int) -> None:
        """These files instead of those."""
        for file in gone:
            self._db.execute("DELETE FROM files WHERE name = ?", (file.name,))
            self._db.execute("DELETE FROM extents WHERE name = ?", (file.name,))
        for file in come:
            self._db.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
                (file.name, file.shard, file.day, file.linked, file.events, file.size_bytes),
            )
            self._db.executemany(
                "INSERT INTO extents VALUES (?, ?, ?, ?, ?)",
                ((file.name, *extent) for extent in file.extents),
            )
        self._db.execute("INSERT OR REPLACE INTO about VALUES ('number', ?)", (str(next_number),))

    def reach(self, log_id: bytes, number: int, segment: bytes) -> None:
        """A log is in the tables that far."""
        self._db.execute("INSERT OR REPLACE INTO reached VALUES (?, ?, ?)", (log_id, number, segment))

    def park(self, shard: int, places: Iterable[Place]) -> None:
        """Exactly these parked segments of a shard are in the tables."""
        self._db.execute("DELETE FROM parked WHERE shard = ?", (shard,))
        self._db.executemany("INSERT INTO parked VALUES (?, ?, ?, ?)", ((*place, shard) for place in places))

    def quarantine(self, found: Quarantined) -> None:
        """Leave a segment out."""
        values = (found.log_id, found.number, found.id, found.box, found.reason)
        self._db.execute("INSERT OR REPLACE INTO quarantined VALUES (?, ?, ?, ?, ?)", values)

    def release(self, place: Place) -> None:
        """A segment that was left out can be read after all."""
        self._db.execute("DELETE FROM quarantined WHERE log_id = ? AND number = ? AND id = ?", place)

    def empty(self) -> None:
        """Nothing is in the tables; numbers of files go on."""
        for statement in _EMPTY:
            self._db.execute(statement)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
