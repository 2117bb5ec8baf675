"""A step over a table of a million rows that is in the cache already: mapped, not copied, but checked by its digest.

Called by `main` with `--table`. One step makes the table, many read it, each in a claim of its own; what counts is
how long such a step takes from its claim to its outcome, and that no worker's memory grows by the table.
"""

from __future__ import annotations

import itertools
import json
import statistics
from typing import Any, Final

from edge.cli.client import RuntimeClient
from playbooks.compile import compile_playbook
from tests.bench.counters import memory_mb
from tests.bench.phases import say
from tests.bench.processes import BenchFailed, Box

ROWS: Final = (1_000, 1_000_000)
_READS: Final = 40
_ROUNDS: Final = 3
_MAKE: Final = """\
import pyarrow as pa
result = pa.table({"n": pa.array(range(rows), pa.int64()), "x": pa.array([0.5] * rows, pa.float64())})
"""


def large_table(running: Box) -> dict[str, Any]:
    """`cached_table` by rows: microseconds of a step that reads its first rows, and of one that reads all of them."""
    figures: dict[str, Any] = {}
    with RuntimeClient(running.settings, 120.0) as client:
        client.call("register", blueprint=compile_playbook(_source(), "table.yaml").data)
        for rows in ROWS:
            say(f"a cached table of {rows:,} rows, {_READS} steps over it")
            before_mb = _workers_mb(running)
            ran = [_once(client, rows) for _ in range(_ROUNDS)]
            figures[str(rows)] = {
                "count_us": statistics.median(each for run in ran for each in run["count"]),
                "sum_us": statistics.median(each for run in ran for each in run["sum"]),
                "workers_grew_mb": _workers_mb(running) - before_mb,
            }
    return {"cached_table": figures}


def _source() -> bytes:
    steps: list[dict[str, Any]] = [
        {
            "step": "make",
            "spec": {"memory_mb": 512},
            "input": {"rows": "{{ workload.rows }}"},
            "tool": {"kind": "python", "code": _MAKE, "spec": {"effect": "pure"}},
        }
    ]
    for number in range(_READS):
        name, value = ("count", "{{ n | count }}") if number % 2 else ("sum", "{{ x | sum }}")
        tool = {
            "kind": "arrow",
            "table": "{{ make }}",
            "ops": [{"aggregate": {"values": {"found": value}}}],
            "output": "row",
        }
        steps.append({"step": f"{name}{number}", "tool": tool})
    for step, after in itertools.pairwise(steps):
        # An arc that asks for the step's own output ends the claim: the next step finds the table in the cache.
        asks = "rows" if step["step"] == "make" else "found"
        step["next"] = {"arcs": [{"step": after["step"], "when": f"{{{{ {step['step']}.{asks} > 0 }}}}"}]}
    document = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "table", "path": "bench/table"},
        "workload": {"rows": 1},
        "workflow": steps,
    }
    return json.dumps(document).encode()


def _once(client: RuntimeClient, rows: int) -> dict[str, list[float]]:
    execution_id = client.submit("bench/table", json.dumps({"rows": rows}).encode(), None, None)
    status, _, answer = client.answer()
    if status != "completed":
        raise BenchFailed(f"The steps over a table came to {status}: {answer[:300]!r}")
    found: dict[str, list[float]] = {"count": [], "sum": []}
    for name, step in client.call("execution", id=execution_id)["steps"].items():
        kind = name.rstrip("0123456789")
        if kind in found:
            found[kind].append(step["duration_us"])
    return found


def _workers_mb(running: Box) -> float:
    """Private memory of all workers."""
    running.await_quiet()
    return sum(memory_mb(pid)[1] for name, pid in running.pids().items() if name.startswith("worker"))
