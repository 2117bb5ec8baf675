"""`edge central compact`, `query` and `export`: the tables of a centre, made, asked and taken along.

Called by `edge.cli.central`. Asking compacts what has come first, so that an answer is of now; where that may not be
written, or somebody else is at it, the answer is of what is there and says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.central.ingest import Central
from edge.cli.progress import Progress
from edge.core.errors import EdgeError, Misconfigured, RequestRefused, Unavailable
from edge.core.limits import QUERY_MEMORY_MB, QUERY_MEMORY_MB_MIN

if TYPE_CHECKING:  # they bring pyarrow with them, which no other command of a centre needs
    from edge.central.compaction import Compacted
    from edge.central.tables import Tables

#: A person reads no more of a table than this; programs ask for --json or --csv and get all.
_ROWS_SHOWN: Final = 200
_CELL_SHOWN: Final = 60
_TABLES: Final = ("events", "executions", "steps")


def add(actions: Any, where: argparse.ArgumentParser) -> None:
    """Add the commands."""
    compact = actions.add_parser(
        "compact",
        parents=[where],
        help="put what has come into the tables, and look at every event of it",
    )
    compact.set_defaults(command=_compact)
    query = actions.add_parser(
        "query",
        parents=[where, _asking()],
        help="ask the tables in SQL",
        description="Ask the tables of a centre in SQL (DuckDB): events, executions, executions_at(n), steps, "
        "playbooks.\n"
        "DESCRIBE executions tells the columns; times are UTC; body->>'$.name' looks into an event.",
        epilog="example:\n  edge central query --data /srv/centre \\\n"
        '    "SELECT box, status, count(*) FROM executions GROUP BY ALL ORDER BY ALL"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    query.add_argument("sql", metavar="SQL", help="one statement that reads; - takes it from standard input")
    form = query.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line, all rows")
    form.add_argument("--csv", action="store_true", help="CSV with a head, all rows")
    form.add_argument("--parquet", type=Path, metavar="FILE", help="write the answer into a Parquet file")
    query.set_defaults(command=_query)
    export = actions.add_parser(
        "export", parents=[where, _asking()], help="write a table into a Parquet file, for other programs"
    )
    export.add_argument("file", type=Path, metavar="FILE", help="the file to write")
    export.add_argument("--table", choices=_TABLES, default="events", help="which (default: events)")
    export.add_argument("--box", metavar="BOX", help="of this box alone")
    export.add_argument(
        "--since", metavar="TIME", help="from this moment on, UTC: 2026-11-25, or with a time"
    )
    export.add_argument("--until", metavar="TIME", help="before this moment, UTC")
    export.set_defaults(command=_export)


def _asking() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--as-is", action="store_true", help="ask the tables as they are, without putting in what has come"
    )
    shared.add_argument(
        "--memory-mb",
        type=int,
        default=QUERY_MEMORY_MB,
        metavar="MB",
        help=f"what the question may take (default: {QUERY_MEMORY_MB})",
    )
    return shared


# ---- making ------------------------------------------------------------------------------------------------


def compacted(data: Path, *, anew: bool = False) -> Compacted:
    """Compact what has come, with a bar where somebody looks. Raises Unavailable, StorageFailed."""
    from edge.central.compaction import Compactor

    central = opened(data)
    try:
        waiting = sum(path.stat().st_size for path in central.shelf.segments()) if sys.stderr.isatty() else 0
        with Progress(waiting, "compacting") as progress:
            return Compactor(data, central.shelf, central.ledger, progress).run(anew=anew)
    finally:
        central.close()


def opened(data: Path) -> Central:
    """A centre that is there. Raises RequestRefused where the folder is none."""
    if not (data / "segments").is_dir():
        raise RequestRefused(f"{data} is no folder of a centre.", mend="Name it with --data.")
    return Central.open(data, time.time_ns)


def say_quarantined(made: Compacted, stream: Any) -> None:
    """One line for each segment that is left out."""
    for bad in made.quarantined:
        print(f"left out {bad.box} segment {bad.number} of log {bad.log_id.hex()}: {bad.reason}", file=stream)


def _compact(given: argparse.Namespace) -> int:
    made = compacted(given.data)
    print(f"put in   {made.events} events of {made.segments} segments, in {made.files} files")
    say_quarantined(made, sys.stdout)
    return 1 if made.quarantined else 0


# ---- asking ------------------------------------------------------------------------------------------------


def _query(given: argparse.Namespace) -> int:
    statement = sys.stdin.read() if given.sql == "-" else given.sql
    with _asked(given) as tables:
        answer = tables.query(statement)
        with tables.errors():
            if given.parquet is not None:
                return _to_parquet(answer, given.parquet)
            if given.json:
                return _to_json(answer)
            return _to_csv(answer) if given.csv else _to_table(answer)


def _export(given: argparse.Namespace) -> int:
    when = {"events": "at_utc", "executions": "began_utc", "steps": "ended_utc"}[given.table]
    limits = [
        f"{name} {sign} {_literal(value)}"
        for name, sign, value in (
            ("box", "=", given.box),
            (when, ">=", given.since),
            (when, "<", given.until),
        )
        if value is not None
    ]
    where = f" WHERE {' AND '.join(limits)}" if limits else ""
    with _asked(given) as tables:
        answer = tables.query(f"SELECT * FROM {given.table}{where}")  # noqa: S608 - a choice, and literals
        with tables.errors():
            return _to_parquet(answer, given.file)


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def _asked(given: argparse.Namespace) -> Tables:
    from edge.central.tables import Tables

    if given.memory_mb < QUERY_MEMORY_MB_MIN:
        raise Misconfigured(
            f"{given.memory_mb} MB are too little to ask in.",
            mend=f"--memory-mb {QUERY_MEMORY_MB_MIN} or more.",
        )
    if not given.as_is:
        try:
            made = compacted(given.data)
            say_quarantined(made, sys.stderr)
        except RequestRefused:
            raise
        except (Unavailable, OSError) as error:
            why = error.message if isinstance(error, EdgeError) else f"{given.data}: {error.strerror}."
            print(f"edge: asked as it is, without what has come since: {why}", file=sys.stderr)
    return Tables(given.data, memory_mb=given.memory_mb)


# ---- saying ------------------------------------------------------------------------------------------------


def _to_parquet(answer: Any, path: Path) -> int:
    from pyarrow import parquet

    if not path.parent.is_dir():
        raise RequestRefused(f"There is no folder {path.parent}.", mend="Make it, or name another file.")

    part = path.with_name(f"{path.name}.part")
    rows = 0
    try:
        with parquet.ParquetWriter(part, answer.schema, compression="zstd") as writer:
            for batch in answer:
                writer.write_batch(batch)
                rows += batch.num_rows
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    print(f"written  {rows} rows, {path.stat().st_size} bytes: {path}")
    return 0


def _to_json(answer: Any) -> int:
    for batch in answer:
        for row in batch.to_pylist():
            print(json.dumps(row, default=str, ensure_ascii=False))
    return 0


def _to_csv(answer: Any) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.schema.names)
    for batch in answer:
        writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    return 0


def _to_table(answer: Any) -> int:
    rows, more = _first(answer)
    names = answer.schema.names
    cells = [names, *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(names))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if more:
        print(f"… and more: these are the first {_ROWS_SHOWN} rows; --csv, --json and --parquet give all")
    elif not rows:
        print("(no rows)")
    return 0


def _first(answer: Any) -> tuple[list[tuple[Any, ...]], bool]:
    rows: list[tuple[Any, ...]] = []
    for row in _tuples(answer):
        if len(rows) == _ROWS_SHOWN:
            return rows, True
        rows.append(row)
    return rows, False


def _tuples(answer: Any) -> Iterator[tuple[Any, ...]]:
    for batch in answer:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value).replace("\n", " ")
    return text if len(text) <= _CELL_SHOWN else text[: _CELL_SHOWN - 1] + "…"
