"""Sub-executions over restarts and power cuts: one child for each invocation, one answer, no orphan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.state import COMPLETED, fold
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook
from tests.unit.test_engine_children import CHILD, WAITING, calling, requests, run


@pytest.mark.usefixtures("taken_up")
async def test_a_waiting_child_and_its_parent_survive_a_restart(tmp_path: Path) -> None:
    """After a power cut both go on where they were: one child, one answer."""
    box = Box(tmp_path / "a")
    await run(box, calling(), WAITING)
    again = Box(box.photograph(tmp_path / "b"), clock=box.clock)
    await again.settle()
    assert len(again.engine.executor.open) == 2
    await again.pass_time(61)
    assert again.document()["result"] == "rested"
    assert len(requests(again)) == 2
    assert len(again.answers) == 1
    await again.close()
    await box.close()


async def test_a_finished_childs_answer_is_not_owed_after_a_restart(tmp_path: Path) -> None:
    """Only requests from outside are answered again."""
    box = Box(tmp_path / "a")
    await run(box, calling(input={"a": 1, "b": 1}))
    again = Box(box.photograph(tmp_path / "b"))
    assert list(again.engine.owed) == [requests(box)[0].seq]
    await again.close()
    await box.close()


def cut(box: Box, target: Path, at: int) -> Path:
    """What is on the drive, its journal cut at a byte: where a power cut in the middle of a flush would leave it."""
    folder = box.photograph(target)
    shutil.rmtree(folder / "index")
    (file,) = sorted((folder / "journal").iterdir())
    data = file.read_bytes()
    file.write_bytes(data[:at] + bytes(len(data) - at))
    return folder


@pytest.mark.usefixtures("taken_up")
async def test_a_retry_after_a_restart_is_a_new_child(tmp_path: Path) -> None:
    """A child that is waited for again is not taken for one that nobody waited for yet when the next is begun."""
    child = [
        {"step": "rest", "tool": {"kind": "wait", "seconds": 60}, "next": ["bad"]},
        {"step": "bad", "tool": {"kind": "python", "code": "result = 1 / 0"}},
    ]
    rules = [{"when": "{{ output.status == 'error' }}", "then": {"do": "retry", "attempts": 2}}]
    parent = [
        {"step": "fork", "next": {"spec": {"mode": "inclusive"}, "arcs": ["call", "work"]}},
        {"step": "call", "tool": {"kind": "playbook", "path": "lib/child", "spec": {"policy": {"rules": rules}}}},
        {"step": "work", "tool": {"kind": "noop"}},
    ]  # fmt: skip
    box = Box(tmp_path / "a")
    await box.register(playbook(child, path="lib/child"))
    await box.register(playbook(parent))
    box.submit("t")
    await box.gate.flushed()
    while len(requests(box)) < 2:
        box.pool.run()
        await box.gate.flushed()
    again = Box(box.photograph(tmp_path / "b"), clock=box.clock)
    await again.settle()
    for _ in range(2):
        assert not again.answers
        await again.pass_time(61)
    assert again.document()["error"]["code"] == "python_raised"
    assert len(requests(again)) == 3, "the request and two children"
    await again.close()
    await box.close()


@pytest.mark.usefixtures("taken_up")
@pytest.mark.parametrize("child", [CHILD, WAITING])
async def test_any_cut_leads_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: list[dict[str, Any]]
) -> None:
    """Cut between any two events of an execution with a child: the same answer, one child, no orphan."""
    monkeypatch.setattr("edge.runtime.commit.gate.GROUP_EVENTS_MAX", 1)
    clean = Box(tmp_path / "clean")
    await run(clean, calling(input={"a": 1, "b": 1}), child)
    await clean.pass_time(61)
    wanted = clean.document()["result"]
    await clean.gate.flushed()
    (file,) = sorted((clean.folder / "journal").iterdir())
    used = len(file.read_bytes().rstrip(b"\0"))
    accepted = used * 2 // 5  # the two blueprints stand before the request
    for at in range(accepted, used, 40):
        box = Box(cut(clean, tmp_path / f"{at}", at), clock=ManualClock())
        await box.settle()
        await box.pass_time(61)
        began = requests(box)
        if began:
            state = fold([event for event in box.events() if event.execution == began[0].seq])
            assert state.status == COMPLETED, at
            assert json.loads(box.engine.answer(began[0].seq).payload)["result"] == wanted
            assert len(began) == 2, "one child, whatever was cut"
        assert not box.engine.executor.open
        await box.close()
    await clean.close()
