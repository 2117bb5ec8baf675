"""The Parquet files of the central tables: written sorted, merged, each durable before the catalog names it.

    tables/000000000042-03-2026-11-26.parquet    number, shard, day on which its executions began
    tables/000000000043-03-parked.parquet        of segments that do not join the beginning of their log yet

Rows lie by log, execution and number, and a row group ends where an execution does: whoever reads one group reads
whole executions. Called by `edge.central.compaction`; it knows nothing of segments.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from edge.central.compaction_rows import SCHEMA
from edge.central.tables_catalog import File
from edge.core.errors import StorageFailed
from edge.core.limits import TABLE_GROUP_EVENTS
from edge.store.segment_file import flush_folder

SUFFIX: Final = ".parquet"
_ORDER: Final = [(name, "ascending", "at_start") for name in ("log_id", "execution", "seq")]
#: Numbers that grow along the file pack best as differences; what repeats, by a dictionary.
_BY_STEPS: Final = ("execution", "seq", "cause", "at_utc", "mono_ns", "duration_us", "segment")
_BY_DICTIONARY: Final = [name for name in SCHEMA.names if name not in (*_BY_STEPS, "body", "linked")]
_TEXTS: Final = [name for name in _BY_DICTIONARY if SCHEMA.field(name).type == pa.string()]
_ENCODING: Final = dict.fromkeys(_BY_STEPS, "DELTA_BINARY_PACKED")
_LEVEL: Final = 3


def write(folder: Path, number: int, shard: int, day: str, rows: pa.Table, *, linked: bool) -> File:
    """A file of these rows, whole and durable under its name; the folder is not flushed yet. Raises StorageFailed."""
    name = f"{number:012d}-{shard:02d}-{day}{SUFFIX}"
    part = folder / f"{name}.part"
    ordered = _ordered(rows)
    extents: list[tuple[int, bytes, int, int]] = []
    try:
        with pq.ParquetWriter(
            part,
            SCHEMA,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=_BY_DICTIONARY,
            column_encoding=_ENCODING,
            store_schema=False,
        ) as writer:
            for number_in_file, (first, count) in enumerate(_groups(ordered)):
                group = ordered.slice(first, count)
                writer.write_table(group, row_group_size=count)
                extents += _extents(number_in_file, group)
        _flush(part)
        part.rename(folder / name)
        size_bytes = (folder / name).stat().st_size
    except OSError as error:
        raise StorageFailed(f"{folder / name} could not be written: {error.strerror or error}.") from error
    return File(name, shard, day, linked, ordered.num_rows, size_bytes, tuple(extents))


def read(folder: Path, name: str) -> pa.Table:
    """All rows of a file. Raises StorageFailed."""
    try:
        return pq.read_table(folder / name, schema=SCHEMA, memory_map=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageFailed(
            f"{folder / name} cannot be read: {error}.",
            mend="Make the tables again from the segments: edge central rebuild.",
        ) from error


def opened(folder: Path, name: str) -> pq.ParquetFile:
    """A file for reading row group by row group; texts that repeat stay as they are stored. Raises StorageFailed."""
    try:
        return pq.ParquetFile(folder / name, memory_map=True, read_dictionary=_TEXTS)
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageFailed(f"{folder / name} cannot be read: {error}.") from error


def settle(folder: Path) -> None:
    """Make the names of what was written durable."""
    flush_folder(folder)


def sweep(folder: Path, known: set[str]) -> int:
    """Remove what the catalog does not name: merged away, or left by a compaction that was killed. How many."""
    gone = [path for path in folder.glob(f"*{SUFFIX}*") if path.name not in known]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _ordered(rows: pa.Table) -> pa.Table:
    order = pc.sort_indices(rows, sort_keys=_ORDER)
    return rows.take(order).combine_chunks()


def _groups(rows: pa.Table) -> Iterator[tuple[int, int]]:
    """Where each row group begins and how long it is: about TABLE_GROUP_EVENTS, to the end of an execution."""
    ends = _ends(rows)
    first = 0
    while first < rows.num_rows:
        wanted = first + TABLE_GROUP_EVENTS
        place = bisect_left(range(len(ends)), wanted, key=lambda at: ends[at].as_py())
        end = ends[place].as_py() if place < len(ends) else rows.num_rows
        yield first, end - first
        first = end


def _ends(rows: pa.Table) -> Any:
    """The rows before which another execution begins."""
    if rows.num_rows < 2:
        return pa.array([], pa.uint64())
    other = None
    for name in ("log_id", "execution"):
        values = rows[name].combine_chunks()
        differs = pc.fill_null(pc.not_equal(values[1:], values[:-1]), True)
        other = differs if other is None else pc.or_(other, differs)
    return pc.add(pc.indices_nonzero(other), 1)


def _extents(group: int, rows: pa.Table) -> Iterator[tuple[int, bytes, int, int]]:
    """Of each log in a row group: its first and last execution there."""
    found = rows.select(["log_id", "execution"]).drop_null().group_by("log_id")
    for row in found.aggregate([("execution", "min"), ("execution", "max")]).to_pylist():
        yield group, bytes.fromhex(row["log_id"]), row["execution_min"], row["execution_max"]
