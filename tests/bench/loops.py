"""The loop's figures: a thousand items side by side, in one execution, on the box under test.

Called by `main` after the phases of single executions. Asked over the box's own socket: the time of a loop is that of
the runtime and the workers, not of the broker.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any, Final

from edge.cli.client import RuntimeClient
from playbooks.compile import compile_playbook
from tests.bench.counters import memory_mb
from tests.bench.phases import say
from tests.bench.processes import BenchFailed, Box

ITEMS: Final = 1_000
#: Loops before anything counts: workers bind themselves to the playbook, and learn how long an item takes.
_WARM: Final = 3
_TOOLS: Final[dict[str, dict[str, Any]]] = {
    "transform": {"kind": "transform", "value": "{{ n * 2 }}"},
    "python": {"kind": "python", "code": "result = n * 2", "spec": {"effect": "pure"}},
}


def loops(running: Box, rounds: int) -> dict[str, Any]:
    """Items per second and events per item by kind of block, and what the memory grew by over all rounds."""
    per_s: dict[str, float] = {}
    events: dict[str, float] = {}
    grown_mb = 0.0
    with RuntimeClient(running.settings, 60.0) as client:
        for kind, tool in _TOOLS.items():
            say(f"loops of {ITEMS} items, {kind}, {rounds} rounds")
            path = f"bench/loop-{kind}"
            client.call("register", blueprint=compile_playbook(_source(path, tool), f"{kind}.yaml").data)
            for _ in range(_WARM):
                _once(client, path)
            before_mb = _uss_mb(running)
            ran = [_once(client, path) for _ in range(rounds)]
            grown_mb += _uss_mb(running) - before_mb
            per_s[kind] = ITEMS / statistics.median(took_s for took_s, _ in ran)
            events[kind] = ran[-1][1] / ITEMS
    return {"loop_items_per_s": per_s, "loop_events_per_item": events, "loop_memory_growth_mb": grown_mb}


def _source(path: str, tool: dict[str, Any]) -> bytes:
    loop = {
        "in": "{{ range(workload.items) | list }}",
        "iterator": "n",
        "spec": {"mode": "parallel"},
    }
    document = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": path.replace("/", "-"), "path": path},
        "workload": {"items": ITEMS},
        "workflow": [
            {"step": "each", "loop": loop, "tool": tool, "next": ["sum"]},
            {"step": "sum", "tool": {"kind": "transform", "value": "{{ each | sum }}"}},
        ],
    }
    return json.dumps(document).encode()


def _once(client: RuntimeClient, path: str) -> tuple[float, int]:
    """`(seconds from the request to its answer, events of the execution)`. Raises BenchFailed."""
    started_s = time.monotonic()
    execution_id = client.submit(path, b"", None, None)
    status, _, answer = client.answer()
    took_s = time.monotonic() - started_s
    if status != "completed" or json.loads(answer)["result"] != ITEMS * (ITEMS - 1):
        raise BenchFailed(f"A loop came to {status}: {answer[:200]!r}")
    return took_s, len(client.call("execution", id=execution_id)["events"])


def _uss_mb(running: Box) -> float:
    """Private memory of all processes of the box, settled."""
    running.await_quiet()
    time.sleep(1)
    return sum(memory_mb(pid)[1] for pid in running.pids().values())
