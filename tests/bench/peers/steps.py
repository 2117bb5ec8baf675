"""The bench's three steps for the peers, in plain Python over plain lists, and the loop that keeps them busy.

Runs in an environment of its own, which has the peers and nothing of this project's but `tests.bench.workload`. The
peers are called in their own process, without a broker between: what that saves them is theirs.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.bench import workload

_CELSIUS_LIMIT: Final = 80.0
_LOAD_LIMIT: Final = 4.0
_MARKED: Final = 17

Table = dict[str, list[float]]


def table(number: int) -> Table:
    """The input of execution `number`: 64 rows, 4 columns."""
    made = workload.columns()
    made["celsius"][_MARKED] = workload.marked_value(number)
    return made


def check(given: Table) -> Table:
    """Step 1: rows with a load below zero go, memory becomes what is free."""
    keep = [row for row, load in enumerate(given["load"]) if load >= 0]
    return {
        "celsius": [given["celsius"][row] for row in keep],
        "load": [given["load"][row] for row in keep],
        "free": [100 - given["memory"][row] for row in keep],
        "network": [given["network"][row] for row in keep],
    }


def aggregate(given: Table) -> dict[str, float]:
    """Step 2: one row of figures."""
    return {
        "rows": len(given["load"]),
        "celsius_max": max(given["celsius"]),
        "load_mean": statistics.fmean(given["load"]),
        "free_min": min(given["free"]),
        "network_sum": sum(given["network"]),
    }


def verdict(given: dict[str, float]) -> dict[str, Any]:
    """Step 3: compared with the limits."""
    high = given["celsius_max"] > _CELSIUS_LIMIT or given["load_mean"] > _LOAD_LIMIT
    return {"verdict": "high" if high else "normal", **given}


def durability(path: Path, synchronous: int | None = None) -> str:
    """What a database promises: its journal mode, and how often it flushes (as asked of a connection like theirs)."""
    connection = sqlite3.connect(path)
    try:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        level = connection.execute("PRAGMA synchronous").fetchone()[0] if synchronous is None else synchronous
    finally:
        connection.close()
    return f"SQLite, journal_mode {mode}, synchronous {('off', 'normal', 'full', 'extra')[level]}"


def drive(
    run: Callable[[int], Any], finish: Callable[[Any], dict[str, Any]], says: Callable[[], str]
) -> None:
    """Keep executions in flight for a while and print what came of it as JSON.

    `run` starts execution number n, `finish` waits for it. Arguments of the process: folder, seconds, in flight.
    A wrong result ends it with an error.
    """
    seconds, in_flight = float(sys.argv[2]), int(sys.argv[3])
    started = [(number, run(number)) for number in range(in_flight)]
    number, done = in_flight, 0
    began_s = time.monotonic()
    while time.monotonic() < began_s + seconds:
        oldest, handle = started.pop(0)
        result = finish(handle)
        if not workload.same(result, workload.expected(oldest)):
            raise SystemExit(f"execution {oldest} answered {result}")
        done += 1
        started.append((number, run(number)))
        number += 1
    took_s = time.monotonic() - began_s
    for _, handle in started:
        finish(handle)
    print(json.dumps({"per_s": done / took_s, "completed": done, "durability": says()}), flush=True)
