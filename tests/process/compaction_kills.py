"""Compactions killed at every step, each in a process of its own: `python -m tests.process.compaction_kills FOLDER`.

A step is what looks at or changes the tables: a file opened, renamed or removed, a transaction of the catalog begun
or ended, and each segment that was read. Kill n comes with step n, so the process is gone between it and the one
before. Each begins from the tables in `tables.before`. Prints a JSON line for each: the tables right after, and after
the next run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from edge.central import compaction_files
from edge.central.compaction import CATALOG, TABLES, Compactor
from edge.central.compaction_rows import PROJECTION
from edge.central.ingest import Central
from edge.central.tables_catalog import Catalog

#: Audit events of Python (PEP 578) that come before a step.
_STEPS = {"os.rename", "os.remove", "open"}


def main() -> int:
    """Kill, look, go on, look; until a run ends by itself."""
    data = Path(sys.argv[1])
    for kill in count():
        shutil.rmtree(data / TABLES, ignore_errors=True)
        shutil.copytree(data / "tables.before", data / TABLES)
        ended = _in_child(partial(_compact, data, kill))
        after = _asked(data)
        assert _in_child(partial(_compact, data, None)) == 0
        print(json.dumps({"kill": kill, "ended": ended, "after": after, "next": _asked(data)}), flush=True)
        if ended == 0:
            return 0
    return 1


def _in_child(call: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(9)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _compact(data: Path, kill: int | None) -> None:
    left = [10**9 if kill is None else kill]

    def step() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name in _STEPS and str(data / TABLES) in str(arguments[0]):
            step()

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened = connect(*arguments, **options)
        opened.set_trace_callback(lambda statement: statement in ("BEGIN IMMEDIATE", "COMMIT") and step())
        return opened

    central = Central.open(data, lambda: 7)
    connect, sqlite3.connect = sqlite3.connect, traced  # type: ignore[assignment]
    sys.addaudithook(audit)
    Compactor(data, central.shelf, central.ledger, lambda size_bytes: step()).run()


def _asked(data: Path) -> Any:
    """`[events, different events, linked]` in the files that the catalog names; asked in a child, too."""
    reader, writer = os.pipe()

    def ask() -> None:
        catalog = Catalog.reading(data / TABLES / CATALOG, PROJECTION)
        assert catalog is not None
        rows = [
            row
            for file in catalog.files()
            for row in compaction_files.read(data / TABLES, file.name)
            .select(["log_id", "seq", "linked"])
            .to_pylist()
        ]
        different = {(row["log_id"], row["seq"]) for row in rows}
        os.write(writer, json.dumps([len(rows), len(different), sum(row["linked"] for row in rows)]).encode())

    assert _in_child(ask) == 0
    os.close(writer)
    with os.fdopen(reader) as file:
        return json.loads(file.read())


if __name__ == "__main__":
    sys.exit(main())
