"""Questions to the central tables, in SQL: DuckDB over the Parquet files that the catalog names, shut in.

One statement that only reads; no file but those, no network, no extension, a bounded memory; answers come as Arrow
batches, so that none has to fit. Called by `edge central query` and `export`; needs the optional part `central` of
the installation. Must never write: the statement's kind is looked at before it runs, and the engine is locked.

`execution_events` finds the events of one execution without DuckDB: the second engine that the tests hold the first
one against.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from edge.central import compaction_files
from edge.central.compaction import CATALOG, READING, TABLES
from edge.central.compaction_rows import PROJECTION, SCHEMA
from edge.central.tables_catalog import Catalog
from edge.central.tables_views import NAMES, VIEWS
from edge.core.errors import RequestRefused, StorageFailed, ToolFailed
from edge.core.limits import TABLE_GROUP_EVENTS

_ROWS_PER_BATCH: Final = 10_000
_SHUT: Final[dict[str, Any]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "temp_directory": "",
    "preserve_insertion_order": False,
}
_TYPES: Final = {
    "int64": "BIGINT",
    "int32": "INTEGER",
    "int8": "TINYINT",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
}


class Tables:
    """The tables as they stood when this was opened; files that a compaction replaces stay until it is closed."""

    def __init__(self, data: Path, *, memory_mb: int, threads: int | None = None) -> None:
        """Raises RequestRefused where there are none, ToolFailed `library_missing`."""
        self._folder = data / TABLES
        self._lock = _shared_lock(self._folder / READING)
        catalog = Catalog.reading(self._folder / CATALOG, PROJECTION) if self._lock >= 0 else None
        if catalog is None:
            self._unlock()
            raise RequestRefused(
                f"There are no tables in {data} that this release reads.",
                mend="Make them: edge central compact.",
            )
        self._catalog = catalog
        with catalog.look():
            self.files = [str((self._folder / file.name).absolute()) for file in catalog.files()]
        self._memory_mb, self._threads = memory_mb, threads
        self._engine: Any = None
        self._opened: dict[str, Any] = {}

    # ---- SQL -----------------------------------------------------------------------------------------------

    def query(self, statement: str) -> pa.RecordBatchReader:
        """The answer to one SELECT, batch by batch. Raises RequestRefused, saying what is wrong with it."""
        duckdb = library()
        engine = self._open(duckdb)
        try:
            _require_reading(duckdb, statement)
            return engine.sql(statement).to_arrow_reader(_ROWS_PER_BATCH)
        except duckdb.Error as error:
            raise _said(duckdb, error, self._memory_mb) from error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """While batches are taken: an error of the engine is said as `query` says it."""
        duckdb = library()
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the system: a pipe that was closed, a drive that is full
            raise _said(duckdb, error, self._memory_mb) from error

    def _open(self, duckdb: Any) -> Any:
        if self._engine is None:
            config = {**_SHUT, "memory_limit": f"{self._memory_mb}MiB"}
            if self._threads is not None:
                config["threads"] = self._threads
            engine = self._engine = duckdb.connect(":memory:", config=config)
            engine.execute("SET python_enable_replacements = false")
            engine.execute("SET TimeZone = 'UTC'")
            engine.execute("SET parquet_metadata_cache = true")
            engine.execute(f"SET allowed_paths = {_list(self.files)}")
            engine.execute("SET enable_external_access = false")
            engine.execute("SET lock_configuration = true")
            engine.execute(self._events())
            for view in VIEWS:
                engine.execute(view)
        return self._engine

    def _events(self) -> str:
        if self.files:
            return f"CREATE VIEW events AS SELECT * FROM read_parquet({_list(self.files)})"  # noqa: S608
        columns = ", ".join(f"{f.name} {_TYPES.get(str(f.type), 'TIMESTAMP')}" for f in SCHEMA)
        return f"CREATE TABLE events ({columns})"

    # ---- without SQL ---------------------------------------------------------------------------------------

    def execution_events(self, log_id: bytes, execution: int) -> pa.Table:
        """The events of one execution, in order, found by pyarrow alone in the row groups that hold it.

        A file stays open for the next question. Raises StorageFailed.
        """
        found = [SCHEMA.empty_table()]
        for name, group in self._catalog.holding(log_id, execution):
            if name not in self._opened:
                self._opened[name] = compaction_files.opened(self._folder, name)
            rows = self._opened[name].read_row_group(group, use_threads=False)
            # By number first: texts are compared for the few logs that have an execution of that number here.
            places = pc.indices_nonzero(pc.equal(rows["execution"], execution)).to_pylist()
            own = [place for place in places if rows["log_id"][place].as_py() == log_id.hex()]
            if own:  # they lie one behind the other
                found.append(rows.slice(own[0], len(own)).cast(SCHEMA))
        return found[1] if len(found) == 2 else pa.concat_tables(found).sort_by("seq")

    def events_of(self, types: tuple[str, ...]) -> pa.Table:
        """All events of these types, by log and number, found by pyarrow alone. Raises StorageFailed."""
        if not self.files:
            return SCHEMA.empty_table()
        return self._read(self.files, pc.field("type").isin(list(types))).sort_by(
            [("log_id", "ascending"), ("seq", "ascending")]
        )

    def _read(self, paths: list[str], wanted: Any) -> pa.Table:
        import pyarrow.dataset as ds  # 40 ms, and only the audit needs it

        try:
            return ds.dataset(paths, schema=SCHEMA, format="parquet").to_table(
                filter=wanted, batch_size=TABLE_GROUP_EVENTS
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageFailed(f"The tables cannot be read: {error}.") from error

    def close(self) -> None:
        """Let files go that are not needed any longer."""
        if self._engine is not None:
            self._engine.close()
        for file in self._opened.values():
            file.close()
        self._catalog.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def library() -> Any:
    """The module duckdb. Raises ToolFailed `library_missing`."""
    try:
        import duckdb
    except ImportError as error:
        raise ToolFailed(
            f"Questions in SQL need DuckDB, and it cannot be imported here: {error}.",
            code="library_missing",
            mend="Install it at the centre: pip install 'noetl-edge[central]'.",
        ) from error
    return duckdb


def _shared_lock(path: Path) -> int:
    """Hold what a compactor looks at before it removes files; -1 where there are no tables."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def _list(paths: list[str]) -> str:
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"[{quoted}]"


def _require_reading(duckdb: Any, statement: str) -> None:
    found = duckdb.extract_statements(statement)
    if len(found) != 1:
        raise RequestRefused(f"One statement, please; this is {len(found)}.", mend="Ask one after the other.")
    if found[0].type != duckdb.StatementType.SELECT:
        kind = found[0].type.name.lower()
        raise RequestRefused(
            f"A question only reads, and this is a statement of kind {kind}.",
            mend="Begin it with SELECT, WITH, FROM or DESCRIBE. To write a file: --csv, --json or --parquet FILE.",
        )


def _said(duckdb: Any, error: Exception, memory_mb: int) -> RequestRefused:
    """An error of the engine in words that lead on."""
    lines = str(error).strip().splitlines()
    text = "\n".join(lines)
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in text:
        return RequestRefused(
            f"The question needs more than {memory_mb} MB.",
            mend="Ask for less, or allow more with --memory-mb.",
        )
    names = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    if isinstance(error, duckdb.PermissionException):
        return RequestRefused(
            f"Only the centre's own tables can be asked. {lines[0]}", mend=f"They are: {names}."
        )
    if isinstance(error, duckdb.CatalogException):
        return RequestRefused(text, mend=f"\nThe tables are: {names}.")
    if isinstance(error, duckdb.BinderException):
        return RequestRefused(text, mend="\nThe columns of a table: DESCRIBE events.")
    return RequestRefused(text)
