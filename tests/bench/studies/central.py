"""A centre's rates: taking segments in, making tables of them, asking those, on one processor.

Called by `main` with `--central`. What goes in is a month of a pump guard (`month`), as its box sealed it. Times are
the process's own CPU seconds, the best of some rounds: others work on the same machine. The large tables are the
month's rows again and again under other log ids, since it is the asking that is measured there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from edge.central import compaction_files
from edge.central.compaction import CATALOG, TABLES, Compactor
from edge.central.compaction_rows import PROJECTION, SCHEMA
from edge.central.ingest import Central
from edge.central.tables import Tables
from edge.central.tables_catalog import Catalog
from tests.bench.phases import say
from tests.bench.studies import month

_ROUNDS: Final = 3
#: Segments that come together, as `edge-sync` sends them: 7 KB each, 64 KB a parcel.
_PARCEL: Final = 9
#: Ten million events are what the issue asks about.
_LARGE_EVENTS: Final = 10_000_000
_LOOKUPS: Final = 200
#: Rows of a large table's file: half of the largest that the compactor makes, so that the study fits beside others.
_FILE_EVENTS: Final = 500_000
_FOLD: Final = "SELECT status, count(*) AS n FROM executions_at({seq}) GROUP BY status"


def central(folder: Path, executions: int, large_events: int = _LARGE_EVENTS) -> dict[str, Any]:
    """`central` with every figure, `month` with the bytes."""
    say(f"{executions:,} executions of a pump guard on a box of their own")
    made = month.record(folder / "box", executions)
    weight = month.weight(made, executions)
    segments = [path.read_bytes() for path, _ in made]
    found: dict[str, Any] = {"additions_us": _additions_us()}
    for deep in (False, True):
        say(f"taking {len(segments)} segments in, {'deep' if deep else 'shallow'}")
        kind = "deep" if deep else "shallow"
        runs = [_ingest(folder / f"{kind}{n}", segments, deep=deep) for n in range(_ROUNDS)]
        found[f"ingest_{kind}_per_s"] = weight["events"] / min(runs)
    say("compacting them")
    found |= _compacted(folder, int(weight["events"]))
    say(f"tables of {large_events:,} events")
    found |= _large(folder, large_events)
    say("a centre that begins")
    found |= _start(folder / "new")
    return {"month": weight, "central": found}


def _cpu_s(call: Callable[[], object]) -> float:
    """CPU seconds of all of this process's threads."""
    before_s = time.process_time()
    call()
    return time.process_time() - before_s


def _additions_us() -> float:
    """10,000 additions, as the usual run reports them: how fast the machine was just then."""

    def loop() -> None:
        total = 0
        for number in range(10_000):
            total += number

    return min(_cpu_s(loop) for _ in range(50)) * 1e6


def _ingest(data: Path, segments: list[bytes], *, deep: bool) -> float:
    made = Central.open(data, time.time_ns)
    made.boxes.enrol(month.BOX, month.SIGNER.public, 1)

    def take() -> None:
        for at in range(0, len(segments), _PARCEL):
            for verdict in made.take_all(segments[at : at + _PARCEL], deep=deep):
                assert verdict.verdict == "stored"

    took_s = _cpu_s(take)
    made.close()
    return took_s


def _compacted(folder: Path, events: int) -> dict[str, float]:
    """The first ingested centre, compacted anew some times."""
    data = folder / "shallow0"
    made = Central.open(data, time.time_ns)
    pa.set_cpu_count(1)
    runs = []
    for _ in range(_ROUNDS):
        compactor = Compactor(data, made.shelf, made.ledger)
        runs.append(_cpu_s(partial(compactor.run, anew=True)))
    made.close()
    files = list((data / TABLES).glob("*.parquet"))
    size_bytes = sum(path.stat().st_size for path in files)
    return {
        "compacted_per_s": events / min(runs),
        "table_bytes_per_event": size_bytes / events,
        "table_files": len(files),
    }


def _large(folder: Path, large_events: int) -> dict[str, float]:
    data = folder / "large"
    logs, events, executions, last_seq = _repeat(folder / "shallow0", data, large_events)
    figures: dict[str, float] = {"large_events": events, "large_executions": executions}
    with Tables(data, memory_mb=1024, threads=1) as tables:

        def fold() -> None:
            answer = tables.query(_FOLD.format(seq=last_seq // 2)).read_all().to_pylist()
            assert sum(row["n"] for row in answer) > 0

        fold()
        figures["fold_per_s"] = events / min(_cpu_s(fold) for _ in range(_ROUNDS))
        wanted = [(logs[n % len(logs)], 3 + 6 * (n * 7919 % (last_seq // 6 - 1))) for n in range(_LOOKUPS)]
        for name, find in (("sql", _by_sql), ("arrow", _by_arrow)):
            find(tables, *wanted[0])
            times_s = sorted(_cpu_s(partial(find, tables, *at)) for at in wanted)
            figures[f"lookup_{name}_ms"] = times_s[len(times_s) // 2] * 1e3
            figures[f"lookup_{name}_p99_ms"] = times_s[int(len(times_s) * 0.99)] * 1e3
    return figures


def _by_sql(tables: Tables, log_id: bytes, execution: int) -> None:
    asked = f"SELECT * FROM events WHERE log_id = '{log_id.hex()}' AND execution = {execution} ORDER BY seq"
    assert tables.query(asked).read_all().num_rows == 6


def _by_arrow(tables: Tables, log_id: bytes, execution: int) -> None:
    assert tables.execution_events(log_id, execution).num_rows == 6


def _repeat(small: Path, data: Path, large_events: int) -> tuple[list[bytes], int, int, int]:
    """Tables of so many events: the small ones again under other log ids, day for day."""
    (data / TABLES).mkdir(parents=True)
    (data / TABLES / "reading.lock").touch()
    source = Catalog.reading(small / TABLES / CATALOG, PROJECTION)
    assert source is not None
    parts = [(file, compaction_files.read(small / TABLES, file.name)) for file in source.files()]
    per_log = sum(rows.num_rows for _, rows in parts)
    logs = [number.to_bytes(8, "big") for number in range(1, max(2, round(large_events / per_log)) + 1)]
    catalog = Catalog(data / TABLES / CATALOG, PROJECTION)
    place = SCHEMA.get_field_index("log_id")
    come = []
    for file, rows in parts:
        at_once = max(1, _FILE_EVENTS // rows.num_rows)
        for first in range(0, len(logs), at_once):
            again = [
                rows.set_column(
                    place, SCHEMA.field("log_id"), pa.array([log.hex()] * rows.num_rows, pa.string())
                )
                for log in logs[first : first + at_once]
            ]
            table = pa.concat_tables(again)
            come.append(
                compaction_files.write(data / TABLES, len(come), file.shard, file.day, table, linked=True)
            )
    with catalog.change():
        catalog.replace((), come, len(come))
    catalog.close()
    source.close()
    last_seq = max(max(rows["seq"].to_pylist()) for _, rows in parts)
    requests = sum(rows["type"].to_pylist().count("playbook.execution.requested") for _, rows in parts)
    return logs, per_log * len(logs), requests * len(logs), last_seq


_NEW: Final = """\
import json, resource, sys, time
from pathlib import Path
began = time.process_time(), time.monotonic()
from edge.central.ingest import Central
from edge.central.compaction import Compactor
from edge.central.tables import Tables
data = Path(sys.argv[1])
made = Central.open(data, time.time_ns)
Compactor(data, made.shelf, made.ledger).run()
with Tables(data, memory_mb=128) as tables:
    assert tables.query("SELECT count(*) n FROM executions").read_all().num_rows == 1
memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if "kB" in line}
print(json.dumps({"start_cpu_s": time.process_time() - began[0], "start_s": time.monotonic() - began[1],
                  "start_pss_mb": memory["Pss"] / 1024, "start_anon_mb": memory["Pss_Anon"] / 1024}))
"""


def _start(data: Path) -> dict[str, float]:
    """A new process that opens a new centre, compacts nothing, and answers a question; the best of some."""
    runs = []
    for number in range(_ROUNDS + 2):
        done = subprocess.run(
            [sys.executable, "-c", _NEW, str(data.with_name(f"new{number}"))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        runs.append(json.loads(done.stdout))
    return {name: min(run[name] for run in runs) for name in runs[0]}
