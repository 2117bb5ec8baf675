"""Loops over a table on the real engine: rows or frames, each committed once, in order, whatever is cut or lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.codec import ARROW
from edge.core.events import LoopItems, LoopStarted
from edge.core.limits import ATTEMPTS_MAX, INLINE_BYTES_MAX
from edge.store.arrow_stream import stream_from_table
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from playbooks.compile import check_playbook

COUNT = (
    "import pyarrow.compute\nresult = {'rows': part.num_rows, 'sum': pyarrow.compute.sum(part['n']).as_py()}"
)


def rows_loop(tool: Any, over: Any = None, **spec: Any) -> list[dict[str, Any]]:
    source = {"in": "{{ workload.table }}"} if over is None else over
    loop = {**source, "iterator": "part", "spec": {"mode": "cursor", **spec}}
    return [{"step": "each", "loop": loop, "tool": tool}]


def frames(**frame: Any) -> dict[str, Any]:
    return {"frame": {"process": "frame", **frame}}


async def run(box: Box, steps: list[dict[str, Any]], count: int = 10) -> Any:
    await box.register(playbook(steps))
    stream = stream_from_table(pa.table({"n": list(range(count))}))
    box.submit("t", stream, content_type=ARROW)
    await box.settle()
    document = json.loads(box.answers[-1].payload)
    return document.get("result", document.get("error"))


def committed(box: Box) -> Counter[int]:
    bodies = [event.body for event in box.events() if isinstance(event.body, LoopItems)]
    return Counter(index for body in bodies for index in range(body.first, body.first + body.count))


@pytest.mark.parametrize("count", [0, 1, 10])
async def test_each_row_is_an_item(box: Box, count: int) -> None:
    """Without more a cursor gives its rows as maps, one committed outcome for each, in order."""
    steps = rows_loop({"kind": "transform", "value": "{{ part.n * 2 }}"})
    assert await run(box, steps, count) == [n * 2 for n in range(count)]
    assert committed(box) == Counter(range(count))


async def test_max_rows_says_how_many_are_committed_together(box: Box) -> None:
    """A frame of rows is one claim and one event."""
    steps = rows_loop({"kind": "transform", "value": "{{ part.n }}"}, frame={"max_rows": 4})
    assert await run(box, steps) == list(range(10))
    bodies = [event.body for event in box.events() if isinstance(event.body, LoopItems)]
    assert sorted((body.first, body.count) for body in bodies) == [(0, 4), (4, 4), (8, 2)]


async def test_a_frame_is_a_table(box: Box) -> None:
    """`process: frame` gives slices of the table, one after the other; the last has what is left."""
    tool = {"kind": "python", "code": COUNT}
    assert await run(box, rows_loop(tool, **frames(max_rows=4))) == [
        {"rows": 4, "sum": 6},
        {"rows": 4, "sum": 22},
        {"rows": 2, "sum": 17},
    ]
    (started,) = [event.body for event in box.events() if isinstance(event.body, LoopStarted)]
    assert started.total == 3


async def test_max_bytes_bounds_a_frame(box: Box) -> None:
    """Frames hold as many rows as the bytes allow, at least one."""
    tool = {"kind": "python", "code": COUNT}
    made = await run(box, rows_loop(tool, **frames(max_rows=1000, max_bytes=4096)), 2_000)
    assert sum(part["rows"] for part in made) == 2_000
    assert len(made) > 2
    assert await run(box, rows_loop(tool, **frames(max_bytes=1)), 2) == [
        {"rows": 1, "sum": 0},
        {"rows": 1, "sum": 1},
    ]


@pytest.mark.parametrize("effect", ["pure", "read"])
async def test_a_frame_that_is_passed_on_becomes_a_block(box: Box, effect: str) -> None:
    """An item's slice stands for nothing outside its claim: as a result it is a table of its own."""
    tool = {"kind": "arrow", "table": "{{ part }}", "ops": [{"filter": "{{ n > 2 }}"}]}
    steps = rows_loop(
        tool if effect == "pure" else {"kind": "transform", "value": "{{ part }}"}, **frames(max_rows=4)
    )
    steps[0]["next"] = ["all"]
    steps.append(
        {"step": "all", "tool": {"kind": "arrow", "table": "{{ each }}", "ops": [], "output": "rows"}}
    )
    rows = [{"n": n} for n in range(10)]
    assert await run(box, steps) == (rows[3:] if effect == "pure" else rows)


async def test_a_cursor_over_a_steps_table(box: Box) -> None:
    """`cursor: {kind: arrow, table}` is the same in NoETL's place; a table of an earlier step, made again if lost."""
    make = {"kind": "python", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2, 3]})"}
    loop = {"cursor": {"kind": "arrow", "table": "{{ make }}"}, "iterator": "row", "spec": {"mode": "cursor"}}
    steps = [
        {"step": "make", "spec": {"effect": "pure"}, "tool": make, "next": ["each"]},
        {"step": "each", "loop": loop, "tool": {"kind": "transform", "value": "{{ row.n }}"}},
    ]
    assert await run(box, steps) == [1, 2, 3]


async def test_a_large_requests_table_is_opened_first(box: Box) -> None:
    """A table that came with a request and that nobody opened yet is opened by a worker first."""
    count = INLINE_BYTES_MAX // 4
    tool = {"kind": "python", "code": COUNT}
    made = await run(box, rows_loop(tool, **frames()), count)
    assert sum(part["rows"] for part in made) == count


async def test_what_is_no_table_fails_the_loop(box: Box) -> None:
    """A cursor over a list, and a list's loop over a table, say what to write."""
    problem = await run(box, rows_loop({"kind": "noop"}, {"in": [1, 2]}))
    assert problem["code"] == "loop_invalid"
    loop = {"in": "{{ workload.table }}", "iterator": "x"}
    problem = await run(box, [{"step": "a", "loop": loop, "tool": {"kind": "noop"}}])
    assert "mode: cursor" in problem["mend"]


async def test_a_table_that_is_none_fails_the_loop(box: Box) -> None:
    """Bytes that are no sound Arrow stream are the step's failure."""
    await box.register(playbook(rows_loop({"kind": "noop"})))
    box.submit("t", b"not a stream at all", content_type=ARROW)
    await box.settle()
    assert json.loads(box.answers[-1].payload)["error"]["code"] == "payload_invalid"


async def test_a_table_that_kills_its_worker_fails_the_loop(box: Box) -> None:
    """Opening the table is tried so many times and no more."""
    box.pool.answer = lambda work: Lost()
    problem = await run(box, rows_loop({"kind": "noop"}))
    assert problem["code"] == "worker_lost"
    assert len(box.pool.submitted) == ATTEMPTS_MAX


async def test_any_cut_leaves_each_frame_committed_once(tmp_path: Path) -> None:
    """Cut after every claim: a new runtime goes on with the frames that are missing."""
    steps = rows_loop({"kind": "python", "code": COUNT}, **frames(max_rows=3))
    for cut in range(1, 8):
        box = Box(tmp_path / f"{cut}")
        await box.register(playbook(steps))
        box.submit("t", stream_from_table(pa.table({"n": list(range(10))})), content_type=ARROW)
        for _ in range(cut):
            await box.gate.flushed()
            box.pool.run()
        again = Box(box.photograph(tmp_path / f"{cut}-cut"))
        await again.settle()
        done = json.loads(
            again.engine.answer(again.receipts[0].seq if again.receipts else box.receipts[0].seq).payload
        )
        assert [part["rows"] for part in done["result"]] == [3, 3, 3, 1]
        assert committed(again) == Counter(range(4))
        await again.close()
        await box.close()


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (
            {"cursor": {"kind": "postgres", "auth": "pg", "claim": "UPDATE …"}, "spec": {"mode": "cursor"}},
            "data centre",
        ),
        (
            {"cursor": {"kind": "arrow", "claim": "x", "table": "{{ a }}"}, "spec": {"mode": "cursor"}},
            "claims rows",
        ),
        ({"cursor": {"kind": "arrow", "table": "{{ workload.t }}"}}, "has the mode `cursor`"),
        ({"in": [1], "spec": {"frame": {"process": "frame"}}}, "Only a table comes in frames"),
        (
            {"in": [1], "cursor": {"kind": "arrow", "table": "{{ workload.t }}"}, "spec": {"mode": "cursor"}},
            "`in` or `cursor`",
        ),
        ({"in": [1], "spec": {"mode": "cursor", "frame": {"max_rows": 0}}}, "`max_rows` must be"),
    ],
)
def test_what_cannot_be_a_cursor_is_refused(loop: dict[str, Any], words: str) -> None:
    """NoETL's statement form is a data centre's, refused by name; the rest with what to write."""
    body = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "t", "path": "t"},
        "workflow": [{"step": "a", "loop": {"iterator": "x", **loop}, "tool": {"kind": "noop"}}],
    }
    problems = check_playbook(json.dumps(body).encode(), "t.yaml")
    assert any(words in f"{problem.message} {problem.mend}" for problem in problems), problems
