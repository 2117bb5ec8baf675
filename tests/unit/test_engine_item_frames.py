"""Frames of several items whose pipelines record tasks: what stops in the middle of one is not lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import Event, LoopItems, TaskDone
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.plain import playbook

ITEMS = 40
READ: dict[str, Any] = {"name": "look", "kind": "python", "code": "result = x", "spec": {"effect": "read"}}
ROWS: dict[str, Any] = {
    "name": "rows",
    "kind": "arrow",
    "table": "{{ make }}",
    "ops": [{"filter": "{{ n == 1 }}"}],
    "output": "rows",
}
SUM: dict[str, Any] = {"name": "sum", "kind": "transform", "value": "{{ look * 10 + rows[0].n }}"}
TABLE = "import pyarrow as pa\nresult = pa.table({'n': [1, 2]})"


def looping(mode: str, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    over = {"in": f"{{{{ range({ITEMS}) | list }}}}", "iterator": "x", "spec": {"mode": mode}}
    make = {"kind": "python", "code": TABLE, "spec": {"effect": "pure"}}
    return [
        {"step": "make", "tool": make, "next": ["each"]},
        {"step": "each", "loop": over, "tool": list(tasks)},
    ]


def check(events: list[Event]) -> None:
    """Every index has one outcome, and every task of every item at most one."""
    bodies = [event.body for event in events if isinstance(event.body, LoopItems)]
    indices = [index for body in bodies for index in range(body.first, body.first + body.count)]
    assert sorted(indices) == list(range(ITEMS))
    done = [(event.iteration, event.body.number) for event in events if isinstance(event.body, TaskDone)]
    assert len(done) == len(set(done))


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_a_block_that_vanishes_under_a_frame(box: Box, mode: str) -> None:
    """A table is evicted after an item of a frame has recorded a task: every item still has its one outcome."""
    await box.register(playbook(looping(mode, READ, ROWS, SUM)))
    box.submit("t")
    for _ in range(3):
        await box.gate.flushed()
        box.pool.run()
    for path in box.blocks.root.rglob("*"):
        if path.is_file():
            path.unlink()
    await box.settle()
    assert box.document()["result"] == [index * 10 + 1 for index in range(ITEMS)]
    events = box.engine.events_of(box.receipts[0].seq)
    check(events)
    assert box.engine.state_of(box.receipts[0].seq) == fold(events)


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_a_cut_between_the_events_of_a_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Cut anywhere among the events that one frame brought, the items that have recorded tasks take them along."""
    monkeypatch.setattr("edge.runtime.commit.gate.GROUP_EVENTS_MAX", 1)
    box = Box(tmp_path / "whole")
    await box.register(playbook(looping(mode, READ, ROWS, SUM)))
    box.submit("t")
    await box.settle()
    wanted = box.document()["result"]
    execution, pictures = box.receipts[0].seq, cuts(box, tmp_path)
    await box.close()
    for picture in pictures:
        again = Box(picture)
        await again.settle()
        assert again.document()["result"] == wanted
        check(again.engine.events_of(execution))
        await again.close()


def cuts(box: Box, target: Path) -> list[Path]:
    """The box's drive as it was after some of its events: every seventh."""
    (file,) = sorted((box.folder / "journal").iterdir())
    data = file.read_bytes()
    made = []
    used = len(data.rstrip(b"\0"))
    for at in range(used * 2 // 5, used, 700):
        folder = box.photograph(target / f"cut{at}")
        shutil.rmtree(folder / "index")
        (mine,) = sorted((folder / "journal").iterdir())
        mine.write_bytes(data[:at] + bytes(len(data) - at))
        made.append(folder)
    return made
