"""Outputs that vanish between a worker's answer and its record: every execution ends, and says how."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import AttemptLost
from edge.core.limits import ATTEMPTS_MAX
from edge.runtime.workers.work import Work
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.worker.claims import Outcome
from tests.unit.loop_rig import committed

TABLE = {"kind": "python", "name": "make", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2]})"}
ROWS = {"kind": "arrow", "name": "rows", "table": "{{ make }}", "ops": [], "output": "rows"}


class Wiping:
    """The cache is deleted right after a worker answered, the first so many times."""

    def __init__(self, box: Box, times: int) -> None:
        self._box, self._times = box, times
        box.pool.answer = self._answer

    def _answer(self, work: Work) -> list[Outcome]:
        outcomes = self._box.pool.work(work)
        if self._times:
            self._times -= 1
            shutil.rmtree(self._box.blocks.root)
        return outcomes


def lost(box: Box) -> list[str]:
    return [event.body.code for event in box.events() if isinstance(event.body, AttemptLost)]


@pytest.mark.parametrize("times", [1, ATTEMPTS_MAX + 1])
async def test_a_recorded_task_whose_table_is_gone_is_an_attempt_without_an_outcome(
    box: Box, times: int
) -> None:
    """A pipeline's table that cannot be read for the log any more: the pipeline is tried again, then it fails."""
    await box.register(playbook([{"step": "s", "tool": [TABLE, ROWS]}]))
    Wiping(box, times)
    box.submit("t")
    await box.settle()
    if times == 1:
        assert box.document()["result"] == [{"n": 1}, {"n": 2}]
    else:
        assert box.document()["error"]["code"] == "output_lost"
    assert lost(box) == ["output_lost"] * min(times, ATTEMPTS_MAX)


async def test_a_pause_behind_a_table_that_is_gone_is_an_attempt_without_an_outcome(box: Box) -> None:
    """A pipeline that stopped for a wait, with the table before it gone, begins again and waits then."""
    wait = {"kind": "wait", "name": "wait", "seconds": 5}
    await box.register(playbook([{"step": "s", "tool": [TABLE, wait, ROWS]}]))
    Wiping(box, 1)
    box.submit("t")
    await box.settle()
    assert lost(box) == ["output_lost"]
    await box.pass_time(6)
    assert box.document()["result"] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
async def test_an_items_table_that_is_gone_has_the_item_tried_again(box: Box, mode: str) -> None:
    """In a loop the same is a lost attempt of that item; each item has one outcome in the end."""
    loop = {"in": [1, 2, 3], "iterator": "x", "spec": {"mode": mode}}
    steps: list[dict[str, Any]] = [{"step": "s", "loop": loop, "tool": [TABLE, ROWS]}]
    await box.register(playbook(steps))
    Wiping(box, 1)
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == [[{"n": 1}, {"n": 2}]] * 3
    assert lost(box) == ["output_lost"]
    assert set(committed(box).values()) == {1}


@pytest.mark.parametrize("unusable", [False, True])
async def test_a_loops_end_whose_arc_reads_what_is_gone_comes_again(box: Box, unusable: bool) -> None:
    """An arc behind a loop looks at a large value: what is gone is made again, or the execution fails by name."""
    big = {"kind": "python", "code": "result = {'t': 'x' * 100_000}"}
    arc = {"step": "after", "when": "{{ big.t | length == 100000 and each | length == 2 }}"}
    loop = {"in": [1, 2], "iterator": "x", "spec": {"mode": "sequential"}}
    steps: list[dict[str, Any]] = [
        {"step": "big", "spec": {"effect": "pure"}, "tool": big, "next": ["each"]},
        {"step": "each", "loop": loop, "tool": {"kind": "transform", "value": "{{ iter.x }}"}, "next": [arc]},
        {"step": "after", "tool": {"kind": "transform", "value": "{{ each }}"}},
    ]
    await box.register(playbook(steps))
    wiped = []

    def answer(work: Work) -> list[Outcome]:
        outcomes = box.pool.work(work)
        if work.claim.items is not None and work.claim.items.first == 1:
            shutil.rmtree(box.blocks.root)
            wiped.append(1)
            if unusable:
                box.blocks.root.write_bytes(b"")
        return outcomes

    box.pool.answer = answer
    box.submit("t")
    await box.settle()
    assert wiped == [1]
    if unusable:
        assert box.document()["error"]["code"] == "cache_unusable"
        assert not box.engine.executor.open
    else:
        assert box.document()["result"] == [1, 2]


async def test_properties_of_a_message_that_are_no_texts_fail_the_task(box: Box) -> None:
    """Bytes or a table among the properties of a message: the task fails by name, and the execution ends."""
    spec = {"policy": {"access": {"topics": ["site/#"]}}}
    tool = {"kind": "mqtt", "topic": "site/door", "payload": "x", "properties": {"p": "{{ data.b }}"}}
    steps = [
        {"step": "data", "tool": {"kind": "python", "code": "result = {'b': b'12'}"}, "next": ["s"]},
        {"step": "s", "spec": spec, "tool": tool},
    ]
    box.engine.executor.mqtt.send = lambda frame: True
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["error"]["code"] == "request_invalid"


async def test_a_childs_answer_that_the_log_lost_fails_the_task(box: Box) -> None:
    """A child whose large answer's blob is damaged: whoever waited for it hears so."""
    child = playbook(
        [{"step": "a", "tool": {"kind": "python", "code": "result = 'x' * 200_000"}}], path="child"
    )
    await box.register(child)
    await box.register(playbook([{"step": "s", "tool": {"kind": "playbook", "path": "child"}}]))
    box.submit("t")
    await box.gate.flushed()
    box.pool.run()
    box.pool.run()
    await box.gate.flushed()
    for path in Path(box.folder / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    await box.settle()
    assert box.document()["error"]["code"] == "log_damaged"


@pytest.mark.parametrize("looped", [False, True])
async def test_a_recorded_tables_block_that_vanishes_later_is_put_back(box: Box, looped: bool) -> None:
    """With the cache deleted while a pipeline waits behind a recorded table, it goes on with it from the log."""
    wait = {"kind": "wait", "name": "wait", "seconds": 5}
    step: dict[str, Any] = {"step": "s", "tool": [TABLE, wait, ROWS]}
    if looped:
        step["loop"] = {"in": [1, 2], "iterator": "x"}
    await box.register(playbook([step]))
    box.submit("t")
    await box.settle()
    shutil.rmtree(box.blocks.root)
    await box.pass_time(6)
    await box.pass_time(6)
    rows = [{"n": 1}, {"n": 2}]
    assert box.document().get("result", box.document()) == ([rows, rows] if looped else rows)
