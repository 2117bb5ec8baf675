"""The cache is not the record: blocks that vanish, change or vary while an execution runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.codec import ARROW
from edge.core.values import TableRef
from edge.runtime.dispatch.dispatcher import MISSES_MAX
from edge.runtime.workers.work import Work
from edge.store.arrow_stream import stream_from_table, table_from_stream
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from edge.worker.claims import MISS, TABLE, Outcome

#: Makes a table, passes it on, and answers with a row of it: every output but the last is in the cache only.
TABLES: list[dict[str, Any]] = [
    {
        "step": "make",
        "spec": {"effect": "pure"},
        "tool": {"kind": "python", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2, 3]})"},
        "next": [{"step": "keep", "when": "{{ workload.go }}"}],
    },
    {
        "step": "keep",
        "tool": {"kind": "arrow", "table": "{{ make }}", "ops": [{"filter": "{{ n > 1 }}"}]},
        "next": [{"step": "use", "when": "{{ workload.go }}"}],
    },
    {"step": "use", "tool": {"kind": "arrow", "table": "{{ keep }}", "ops": [], "output": "rows"}},
]
ROWS = [{"n": 2}, {"n": 3}]


def kinds(box: Box) -> list[str]:
    return [event.type for event in box.events() if event.execution == box.receipts[0].seq]


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_file_in_place_of_the_cache_fails_the_execution_only(box: Box, after: int) -> None:
    """Where the cache folder cannot be made its executions fail and say why; once the file is gone others run."""
    await box.register(playbook(TABLES, workload={"go": True}))
    if after:
        box.submit("t")
    for _ in range(after):
        box.pool.run()
    wipe(box)
    box.blocks.root.write_bytes(b"")
    box.blocks.note_miss()
    if not after:
        box.submit("t")
    await box.settle()
    assert (box.document()["status"], box.document()["error"]["code"]) == ("failed", "cache_unusable")
    assert "cannot be made" in box.document()["error"]["message"]
    box.blocks.root.unlink()
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == ROWS


def wipe(box: Box) -> None:
    shutil.rmtree(box.blocks.root)


@pytest.mark.parametrize("after", [1, 2])
async def test_a_wiped_cache_is_made_again(box: Box, after: int) -> None:
    """With the cache deleted between two steps the pure steps before it are run again and the result is the same."""
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t")
    for _ in range(after):
        box.pool.run()
    wipe(box)
    await box.settle()
    assert box.document()["result"] == ROWS
    assert kinds(box).count("step.done") == 3, "outcomes are recorded once, however often a step ran"
    assert box.blocks.stat().missed > 0


async def test_an_evicted_table_is_made_again(tmp_path: Path) -> None:
    """A budget that holds one block only costs work, not correctness."""
    box = Box(tmp_path, cache_bytes=100)
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == ROWS
    await box.close()


async def test_executions_that_evict_each_others_blocks_all_end(tmp_path: Path) -> None:
    """A budget for one block and twenty executions that need it at once: each gets its turn, none fails."""
    box = Box(tmp_path, cache_bytes=100)
    await box.register(playbook(TABLES, workload={"go": True}))
    for _ in range(20):
        box.submit("t")
    await box.settle()
    assert [json.loads(answer.payload).get("result") for answer in box.answers] == [ROWS] * 20
    assert box.blocks.stat().evicted > 20
    assert box.blocks.stat().blocks == 0
    await box.close()


async def test_a_changed_block_is_made_again(box: Box) -> None:
    """A block whose bytes were changed is noticed by its digest and made again."""
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t")
    box.pool.run()
    (path,) = box.blocks.root.rglob("*.arrow")
    path.write_bytes(bytes(path.stat().st_size))
    await box.settle()
    assert box.document()["status"] == "completed"
    assert box.document()["result"] == ROWS


@pytest.mark.parametrize("large", [False, True])
async def test_a_read_steps_table_comes_back_from_the_log(box: Box, large: bool) -> None:
    """A read step is never run again for its table: the bytes are in the event, or in the blob where large."""
    rows = 20_000 if large else 3
    steps = json.loads(json.dumps(TABLES))
    steps[0]["spec"]["effect"] = "read"
    steps[0]["tool"]["code"] = f"import pyarrow as pa\nresult = pa.table({{'n': list(range({rows}))}})"
    steps[1]["tool"]["ops"] = [{"filter": "{{ n < 2 }}"}]
    await box.register(playbook(steps, workload={"go": True}))
    box.submit("t")
    box.pool.run()
    wipe(box)
    await box.settle()
    assert box.document()["result"] == [{"n": 0}, {"n": 1}]
    assert [work.claim.steps for work in box.pool.submitted].count((0,)) == 1


async def test_the_requests_table_comes_back_from_the_log(box: Box) -> None:
    """With the cache deleted before the first step the request's table is written again from its event."""
    step = {
        "step": "a",
        "tool": {"kind": "arrow", "table": "{{ workload.table }}", "ops": [], "output": "rows"},
    }
    await box.register(playbook([step]))
    box.submit("t", stream_from_table(pa.table({"n": [1]})), content_type=ARROW)
    wipe(box)
    await box.settle()
    assert box.document()["result"] == [{"n": 1}]


async def test_a_changed_request_table_comes_back_from_the_log(box: Box) -> None:
    """A large request's table whose block was changed is written again from its blob."""
    tool = {"kind": "arrow", "table": "{{ workload.table }}", "output": "rows"}
    await box.register(playbook([{"step": "a", "tool": {**tool, "ops": [{"filter": "{{ n == 1 }}"}]}}]))
    box.submit("t", stream_from_table(pa.table({"n": list(range(20_000))})), content_type=ARROW)
    (path,) = box.blocks.root.rglob("*.arrow")
    path.write_bytes(bytes(path.stat().st_size))
    await box.settle()
    assert box.document().get("result") == [{"n": 1}]


async def test_a_result_table_that_vanished_is_made_again(box: Box) -> None:
    """The table an execution answers with is made again where the cache lost it before the end."""
    await box.register(playbook([TABLES[0], {**TABLES[1], "next": []}], workload={"go": True}))
    box.submit("t")
    box.pool.run()
    wiped = []

    def answer(work: Work) -> list[Outcome] | Lost:
        outcomes = box.pool.work(work)
        if work.claim.steps == (1,) and not wiped:
            wiped.append(wipe(box))
        return outcomes

    box.pool.answer = answer
    await box.settle()
    assert box.answers[-1].content_type == ARROW
    assert table_from_stream(box.answers[-1].payload).to_pylist() == ROWS
    assert wiped


async def test_a_pure_step_that_varies_is_caught(box: Box) -> None:
    """A step declared pure whose table differs when it is made again fails the execution by name."""
    runs = []

    def answer(work: Work) -> list[Outcome] | Lost:
        if work.claim.steps == (0,):
            runs.append(work)
            digest = hashlib.sha256(bytes([len(runs)])).digest()
            return [Outcome(TABLE, table=TableRef("x", digest, 1, 1, ("n",)))]
        return box.pool.work(work)

    box.pool.answer = answer
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t")
    await box.settle()
    error = box.document()["error"]
    assert (error["code"], error["step"]) == ("not_reproducible", "make")
    assert len(runs) == 2


async def test_a_cache_that_keeps_nothing_ends(box: Box) -> None:
    """An execution whose blocks vanish again and again fails with cache_lost instead of spinning."""

    def answer(work: Work) -> list[Outcome] | Lost:
        if work.claim.steps == (1,):
            return [Outcome(MISS, problem={"code": "cache_miss", "message": "gone"})]
        return box.pool.work(work)

    box.pool.answer = answer
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t")
    await box.settle()
    assert box.document()["error"]["code"] == "cache_lost"
    assert len(box.pool.submitted) <= 2 * (MISSES_MAX + 2)


async def test_a_read_table_wiped_before_it_is_recorded_is_read_again(box: Box) -> None:
    """Where a read step's table vanished before the runtime could record it, the step is run again."""
    wiped = []

    def answer(work: Work) -> list[Outcome] | Lost:
        outcomes = box.pool.work(work)
        if not wiped:
            wiped.append(wipe(box))
        return outcomes

    box.pool.answer = answer
    code = "import pyarrow as pa\nresult = pa.table({'n': [1]})"
    await box.register(playbook([{"step": "a", "tool": {"kind": "python", "code": code}}]))
    box.submit("t")
    await box.settle()
    assert table_from_stream(box.answers[-1].payload).to_pylist() == [{"n": 1}]


async def test_an_effect_whose_output_cannot_be_written_is_not_repeated(box: Box, tmp_path: Path) -> None:
    """A write that ran but could not store its table in a vanished cache folder is not run a second time."""
    mark = tmp_path / "effects"
    code = (
        "import pyarrow as pa, shutil, pathlib\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "first = not mark.exists()\n"
        "mark.write_text(mark.read_text() + 'x' if mark.exists() else 'x')\n"
        f"first and shutil.rmtree({str(box.blocks.root)!r})\n"
        "result = pa.table({'n': [1]})"
    )
    await box.register(
        playbook([{"step": "a", "spec": {"effect": "write"}, "tool": {"kind": "python", "code": code}}])
    )
    box.submit("t")
    await box.settle()
    assert mark.read_text() == "x"


async def test_a_request_table_may_be_passed_on(box: Box) -> None:
    """A transform that gives the request's table unopened is an outcome like any other."""
    step = {"step": "a", "tool": {"kind": "transform", "value": "{{ workload.table }}"}}
    await box.register(playbook([step]))
    box.submit("t", stream_from_table(pa.table({"n": [1]})), content_type=ARROW)
    await box.settle()
    assert table_from_stream(box.answers[-1].payload).to_pylist() == [{"n": 1}]
