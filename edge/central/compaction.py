"""The compactor: from segments, as they came, to few large sorted Parquet files. One process, and it may be killed.

    segments, linked or parked -> rows, checked deep -> files by shard and day -> one change of the catalog

Every segment that is linked goes in once, after the ones before it; the catalog says how far each log is in. Rows
lie by the day on which their execution began, so that a day holds whole executions. Parked segments are in files of
their own, marked, written anew when their set changes; what was parked and is linked now is out of the tables for a
moment rather than in them twice. A segment whose events do not stand the check is left out and named, and the rest
goes on.

Files are durable before the catalog names them, and named in one change: killed between any two steps, the next run
goes on from what the catalog says and removes what it does not name. Called by `edge central`. It must never change a
segment or the ledger.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.central import compaction_files
from edge.central.compaction_rows import PROJECTION, table_of
from edge.central.ledger import PARKED, STORED, Entry, Ledger
from edge.central.shelf import Shelf
from edge.central.tables_catalog import Catalog, File, Place, Quarantined
from edge.core.errors import SegmentRejected, Unavailable
from edge.core.limits import TABLE_BATCH_BYTES, TABLE_BATCH_EVENTS, TABLE_FILE_EVENTS, TABLE_SHARDS
from edge.core.records import record
from edge.segments.sealed import open_sealed

TABLES: Final = "tables"
CATALOG: Final = "catalog.sqlite"
READING: Final = "reading.lock"
_COMPACTING: Final = "compacting.lock"
#: The day of files of parked segments: they are written anew as a whole.
_PARKED_DAY: Final = "parked"


@record
class Compacted:
    """What one run did: segments and events put in, files written, and every segment that is left out."""

    segments: int
    events: int
    files: int
    quarantined: tuple[Quarantined, ...]


@dataclass(slots=True)
class _Batch:
    """Rows of linked segments on their way into files: `(shard, day)` to tables, and how far each log will be in."""

    rows: dict[tuple[int, str], list[pa.Table]] = field(default_factory=dict)
    reached: dict[bytes, Entry] = field(default_factory=dict)
    fit: list[Place] = field(default_factory=list)
    unfit: list[Quarantined] = field(default_factory=list)
    segments: int = 0
    events: int = 0
    bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether it is as much as is worked on at once."""
        return self.events >= TABLE_BATCH_EVENTS or self.bytes >= TABLE_BATCH_BYTES


class Compactor:
    """The tables of one centre's data folder, opened for writing by one process at a time."""

    def __init__(
        self, data: Path, shelf: Shelf, ledger: Ledger, progress: Callable[[int], None] | None = None
    ) -> None:
        """`progress` is told how many bytes of segments were read since it was called last."""
        self._shelf, self._ledger, self._folder = shelf, ledger, data / TABLES
        self._progress = progress or (lambda size_bytes: None)
        self._files_written = 0

    def run(self, *, anew: bool = False) -> Compacted:
        """Put in what is not in yet; all of it again where `anew`. Raises Unavailable, StorageFailed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._files_written = 0
        with _locked(self._folder / _COMPACTING, fcntl.LOCK_EX | fcntl.LOCK_NB):
            catalog = Catalog(self._folder / CATALOG, PROJECTION)
            try:
                return self._run(catalog, anew=anew)
            finally:
                catalog.close()

    def _run(self, catalog: Catalog, *, anew: bool) -> Compacted:
        if anew or not self._continues(catalog):
            with catalog.change():
                catalog.empty()
        self._sweep(catalog)
        segments = events = 0
        for shard in range(TABLE_SHARDS):
            self._write_parked(catalog, shard)
        for batch in self._batches(catalog):
            self._commit(catalog, batch)
            segments += batch.segments
            events += batch.events
        self._sweep(catalog)
        return Compacted(segments, events, self._files_written, tuple(catalog.quarantined()))

    def _continues(self, catalog: Catalog) -> bool:
        """Whether what the tables hold is still the beginning of what the ledger has linked."""
        reached = ((log_id, catalog.reached(log_id)) for log_id in catalog.logs())
        return all(at is None or self._ledger.has(log_id, *at) == STORED for log_id, at in reached) and all(
            (self._folder / file.name).exists() for file in catalog.files()
        )

    def _sweep(self, catalog: Catalog) -> None:
        """Remove files that are not named any longer, unless somebody may still be reading them."""
        try:
            with _locked(self._folder / READING, fcntl.LOCK_EX | fcntl.LOCK_NB):
                compaction_files.sweep(self._folder, {file.name for file in catalog.files()})
        except Unavailable:
            pass  # the next run removes them

    # ---- linked segments -----------------------------------------------------------------------------------

    def _batches(self, catalog: Catalog) -> Iterator[_Batch]:
        batch = _Batch()
        for entry, bad in self._due(catalog):
            self._add(batch, entry, bad)
            if batch.full:
                yield batch
                batch = _Batch()
        if batch.reached or batch.fit:
            yield batch

    def _due(self, catalog: Catalog) -> Iterator[tuple[Entry, Quarantined | None]]:
        """Linked segments that are not in, log by log in order; first those that could not be read, as they were.

        One that was sealed again may stand for such a one: its id is another, its number and events are not.
        """
        for bad in catalog.quarantined():
            for entry in self._ledger.segments(bad.log_id, STORED, bad.number, bad.number):
                reached = catalog.reached(bad.log_id)
                if reached is not None and entry.number <= reached[0]:
                    yield entry, bad
        for _, log_id in self._ledger.log_ids():
            reached, linked = catalog.reached(log_id), self._ledger.linked(log_id)
            if linked is not None:
                first = reached[0] + 1 if reached is not None else 0
                for entry in self._ledger.segments(log_id, STORED, first, linked.number):
                    yield entry, None

    def _add(self, batch: _Batch, entry: Entry, bad: Quarantined | None) -> None:
        rows = self._rows(entry, linked=True)
        if bad is None:
            batch.reached[entry.log_id] = entry
        if isinstance(rows, Quarantined):
            if bad is None:
                batch.unfit.append(rows)
            return
        batch.fit.append((entry.log_id, entry.number, bad.id if bad is not None else entry.id))
        batch.segments += 1
        batch.events += rows.num_rows
        batch.bytes += rows.nbytes
        shard = shard_of(entry.box)
        for day, part in self._by_day(entry, rows):
            batch.rows.setdefault((shard, day), []).append(part)

    def _by_day(self, entry: Entry, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """The rows by the day on which their execution began, that of the segment in which it did."""
        own = day_of(entry.wall_min_ns)
        earlier = pc.and_(
            pc.less(rows["execution"], entry.first_seq),
            # Of a subscription's events all name its registration, which may be a year ago.
            pc.invert(
                pc.or_(pc.starts_with(rows["type"], "subscription."), pc.equal(rows["type"], _REGISTERED))
            ),
        )
        earlier = pc.fill_null(earlier, False)
        days = {
            number.as_py(): self._day_of_event(entry, number.as_py())
            for number in pc.unique(rows["execution"].filter(earlier))
        }
        others = sorted({day for day in days.values() if day != own})
        if not others:
            yield own, rows
            return
        taken: Any = None
        for day in others:
            begun = pa.array([number for number, its in days.items() if its == day], pa.int64())
            mask = pc.and_(earlier, pc.is_in(rows["execution"], begun))
            yield day, rows.filter(mask)
            taken = mask if taken is None else pc.or_(taken, mask)
        rest = rows.filter(pc.invert(taken))
        if rest.num_rows:
            yield own, rest

    def _day_of_event(self, entry: Entry, seq: int) -> str:
        """The day of the linked segment that holds an earlier event; the own one's where none does."""
        low, high = 0, entry.number
        while low < high:
            middle = (low + high) // 2
            found = next(self._ledger.segments(entry.log_id, STORED, middle, middle), None)
            if found is None:
                break
            if found.last_seq < seq:
                low = middle + 1
            elif found.first_seq > seq:
                high = middle
            else:
                return day_of(found.wall_min_ns)
        return day_of(entry.wall_min_ns)

    def _rows(self, entry: Entry, *, linked: bool) -> pa.Table | Quarantined:
        path = self._shelf.path(entry.log_id, entry.number, entry.id)
        try:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SegmentRejected(f"It cannot be read: {error.strerror}.") from error
            self._progress(len(data))
            sealed = open_sealed(data)
            if sealed.id != entry.id:
                raise SegmentRejected("Another segment lies under its name.")
            return table_of(sealed, linked=linked)
        except SegmentRejected as error:
            return Quarantined(entry.log_id, entry.number, entry.id, entry.box, str(error))

    def _commit(self, catalog: Catalog, batch: _Batch) -> None:
        number = catalog.next_number()
        gone: list[File] = []
        come: list[File] = []
        for (shard, day), parts in sorted(batch.rows.items()):
            merged = _to_merge(catalog.files(shard, day, linked=True), sum(part.num_rows for part in parts))
            old = [compaction_files.read(self._folder, file.name) for file in merged]
            rows = pa.concat_tables([*old, *parts])
            come.append(compaction_files.write(self._folder, number, shard, day, rows, linked=True))
            gone += merged
            number += 1
        self._settle(len(come))
        with catalog.change():
            catalog.replace(gone, come, number)
            for entry in batch.reached.values():
                catalog.reach(entry.log_id, entry.number, entry.id)
            for place in batch.fit:
                catalog.release(place)
            for unfit in batch.unfit:
                catalog.quarantine(unfit)

    # ---- parked segments -----------------------------------------------------------------------------------

    def _write_parked(self, catalog: Catalog, shard: int) -> None:
        """Make the files of a shard's parked segments again, where they are others than before."""
        wanted = list(self._parked(shard))
        bad = {(each.log_id, each.number, each.id) for each in catalog.quarantined()}
        left_out = [entry for entry in wanted if _place(entry) in bad]
        fit = [_place(entry) for entry in wanted if _place(entry) not in bad]
        if fit == catalog.parked(shard) and not any(self._mended(entry) for entry in left_out):
            return
        number = catalog.next_number()
        come: list[File] = []
        places: list[Place] = []
        unfit: list[Quarantined] = []
        for rows in self._parked_rows(wanted, places, unfit):
            file = compaction_files.write(self._folder, number, shard, _PARKED_DAY, rows, linked=False)
            come.append(file)
            number += 1
        self._settle(len(come))
        with catalog.change():
            catalog.replace(catalog.files(shard, linked=False), come, number)
            catalog.park(shard, places)
            for place in places:
                catalog.release(place)
            for each in unfit:
                catalog.quarantine(each)

    def _parked(self, shard: int) -> Iterator[Entry]:
        """A shard's parked segments; of two with one number, which only a person can tell apart, the first by id."""
        for box, log_id in self._ledger.log_ids():
            if shard_of(box) == shard:
                last = -1
                for entry in self._ledger.segments(log_id, PARKED):
                    if entry.number != last:
                        last = entry.number
                        yield entry

    def _mended(self, entry: Entry) -> bool:
        return not isinstance(self._rows(entry, linked=False), Quarantined)

    def _parked_rows(
        self, wanted: Iterable[Entry], places: list[Place], unfit: list[Quarantined]
    ) -> Iterator[pa.Table]:
        gathered: list[pa.Table] = []
        events = 0
        for entry in wanted:
            rows = self._rows(entry, linked=False)
            if isinstance(rows, Quarantined):
                unfit.append(rows)
                continue
            places.append(_place(entry))
            gathered.append(rows)
            events += rows.num_rows
            if events >= TABLE_FILE_EVENTS:
                yield pa.concat_tables(gathered)
                gathered, events = [], 0
        if gathered:
            yield pa.concat_tables(gathered)

    def _settle(self, files: int) -> None:
        if files:
            compaction_files.settle(self._folder)
            self._files_written += files


_REGISTERED: Final = "catalog.registered"


def shard_of(box: str) -> int:
    """The shard in which all of a box's rows lie."""
    return int.from_bytes(hashlib.sha256(box.encode()).digest()[:4], "big") % TABLE_SHARDS


def day_of(wall_ns: int) -> str:
    """The day, UTC, as files are named by it; what no calendar has is the first one."""
    try:
        return datetime.fromtimestamp(wall_ns // 10**9, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return "0001-01-01"


def _place(entry: Entry) -> Place:
    return (entry.log_id, entry.number, entry.id)


def _to_merge(files: list[File], events: int) -> list[File]:
    """The newest files of a day that are no larger than twice what comes: each row is written a few times in all."""
    taken: list[File] = []
    for file in reversed(files):
        if file.events > 2 * events or file.events + events > TABLE_FILE_EVENTS:
            break
        taken.append(file)
        events += file.events
    return taken


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock that goes with the process. Raises Unavailable where another one has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(fd, how)
        except BlockingIOError as error:
            raise Unavailable(
                "Another process works on the tables of this centre.", mend="Try again when it is done."
            ) from error
        yield
    finally:
        os.close(fd)
