"""Executions with children and cursor loops, cut anywhere, twice: the same end, nothing twice, no orphan."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edge.core.codec import ARROW
from edge.core.events import ExecutionRequested, LoopItems, StepDone
from edge.core.state import COMPLETED, fold
from edge.runtime.commit import gate
from edge.store.arrow_stream import stream_from_table
from edge.testing.box import Box
from edge.testing.plain import playbook

ROWS = 7
SUM = "import pyarrow.compute\nresult = pyarrow.compute.sum(part['n']).as_py()"
CHILD = [
    {
        "step": "twice",
        "tool": {"kind": "python", "code": "result = n * 2", "input": {"n": "{{ workload.n }}"}},
        "next": ["more"],
    },
    {"step": "more", "tool": {"kind": "transform", "value": "{{ twice + 1 }}"}},
]
TOOLS: dict[str, Any] = {
    "rows": {"kind": "transform", "value": "{{ part.n * 2 + 1 }}"},
    "frames": {"kind": "python", "code": SUM},
    "children": {"kind": "playbook", "path": "child", "input": {"n": "{{ part.n }}"}},
}


def steps(kind: str, size: int, effect: str) -> list[dict[str, Any]]:
    """A cursor over the request's table, and a step that answers with what it gave."""
    frame: dict[str, Any] = {"max_rows": size}
    if kind == "frames":
        frame["process"] = "frame"
    tool = dict(TOOLS[kind])
    if kind == "frames":
        tool["spec"] = {"effect": effect}
    loop = {
        "in": "{{ workload.table }}",
        "iterator": "part",
        "spec": {"mode": "cursor", "max_in_flight": size, "frame": frame},
    }
    return [
        {"step": "each", "loop": loop, "tool": tool, "next": ["sum"]},
        {"step": "sum", "tool": {"kind": "transform", "value": "{{ each | sum }}"}},
    ]


@contextmanager
def groups_of_one() -> Iterator[None]:
    """Every event in a flush of its own, so that a cut can come between any two."""
    before, gate.GROUP_EVENTS_MAX = gate.GROUP_EVENTS_MAX, 1
    try:
        yield
    finally:
        gate.GROUP_EVENTS_MAX = before


async def begin(folder: Path, workflow: list[dict[str, Any]]) -> Box:
    box = Box(folder)
    await box.register(playbook(CHILD, path="child"))
    await box.register(playbook(workflow))
    box.submit("t", stream_from_table(pa.table({"n": list(range(ROWS))})), content_type=ARROW)
    await box.gate.flushed()
    return box


async def work(box: Box, claims: int, order: random.Random) -> None:
    """Carry out some claims, in any order, and flush."""
    for _ in range(claims):
        await box.gate.flushed()
        if box.pool.waiting:
            box.pool.waiting.rotate(order.randrange(len(box.pool.waiting)))
        if not box.pool.run():
            break
    await box.gate.flushed()


async def cut(box: Box, target: Path, share: float) -> Box:
    """A new runtime on what is on the drive, of whose journal a share of what came after the request is gone."""
    folder = box.photograph(target)
    request = box.receipts[0].seq if box.receipts else 0
    await box.close()
    shutil.rmtree(folder / "index")
    (file,) = sorted((folder / "journal").iterdir())
    data = file.read_bytes()
    used = len(data.rstrip(b"\0"))
    least = used // 2 if request else 0
    at = used - round((used - least) * share)
    file.write_bytes(data[:at] + bytes(len(data) - at))
    again = Box(folder)
    if box.receipts:
        again.receipts = box.receipts
    return again


async def play(
    folder: Path, workflow: list[dict[str, Any]], seed: int, cuts: list[tuple[int, float]]
) -> None:
    order = random.Random(seed)
    box = await begin(folder / "0", workflow)
    request = box.receipts[0].seq
    for place, (claims, share) in enumerate(cuts, 1):
        await work(box, claims, order)
        box = await cut(box, folder / str(place), share)
    if not any(e.seq == request and isinstance(e.body, ExecutionRequested) for e in box.events()):
        await box.close()
        return  # the cut was before the request: then nothing was promised
    await box.settle()
    state = fold([event for event in box.events() if event.execution == request])
    assert state.status == COMPLETED, state.problem
    answer = json.loads(box.engine.answer(request).payload)["result"]
    assert not box.engine.executor.open, "no orphan"
    items = [e.body for e in box.events() if e.execution == request and isinstance(e.body, LoopItems)]
    counted = Counter(index for body in items for index in range(body.first, body.first + body.count))
    assert set(counted.values()) == {1}, "each item has one committed outcome"
    began = [
        e.body for e in box.events() if isinstance(e.body, ExecutionRequested) and e.body.parent == request
    ]
    assert len({body.parent_item for body in began}) == len(began), "one child for each item"
    assert sum(isinstance(e.body, StepDone) and e.execution == request for e in box.events()) == 2
    kind = workflow[0]["tool"]["kind"]
    assert answer == (sum(range(ROWS)) if kind == "python" else sum(n * 2 + 1 for n in range(ROWS)))
    await box.close()


@settings(
    max_examples=30,
    deadline=None,
    # Explaining a failure runs it hundreds of times more.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    kind=st.sampled_from(sorted(TOOLS)),
    size=st.integers(1, 4),
    effect=st.sampled_from(["pure", "read"]),
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.tuples(st.integers(0, 12), st.floats(0, 0.6)), min_size=1, max_size=2),
)
def test_any_cuts_lead_to_the_same_end(
    kind: str, size: int, effect: str, seed: int, cuts: list[tuple[int, float]]
) -> None:
    """Whatever was done and lost before each of two power cuts, the execution ends as it would have without them."""
    with tempfile.TemporaryDirectory() as folder, groups_of_one():
        asyncio.run(play(Path(folder), steps(kind, size, effect), seed, cuts))
