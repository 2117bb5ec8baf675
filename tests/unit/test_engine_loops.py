"""Loops on the real engine: one outcome for each item, in order, whatever is lost, failed, cut or missing."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import AttemptLost, LoopItems, LoopStarted, StepDone, StepStarted
from edge.core.limits import ATTEMPTS_MAX, INLINE_BYTES_MAX
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from tests.unit.loop_rig import code, committed, looping, run, value


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("count", [0, 1, 7, 300])
async def test_every_item_once_and_in_order(box: Box, mode: str, count: int) -> None:
    """The collected results stand in the order of the items, one committed outcome for each."""
    assert await run(box, looping(list(range(count)), value("{{ x * 2 }}"), mode)) == [
        n * 2 for n in range(count)
    ]
    assert committed(box) == Counter(range(count))


async def test_what_an_item_sees(box: Box) -> None:
    """The item by its name and in `iter`, index and total, the workload and earlier results; author code by name."""
    tool = code("result = [x, iter_x, _index, _total, w]")
    tool["input"] = {"iter_x": "{{ iter.x }}", "w": "{{ w + iter.index }}"}
    assert await run(box, looping(["a", "b"], tool), workload={"w": 5}) == [
        ["a", "a", 0, 2, 5],
        ["b", "b", 1, 2, 6],
    ]


async def test_a_step_over_what_an_earlier_one_gave(box: Box) -> None:
    """`in` may be any expression that gives a list; arcs see `loop.done`."""
    steps = [
        {"step": "a", "tool": value([3, 1, 2]), "next": ["b"]},
        {
            "step": "b",
            "loop": {"in": "{{ a | sort }}", "iterator": "n"},
            "input": {"m": "{{ n * 10 }}"},
            "tool": value("{{ args.m + n }}"),
            "set": {"total": "{{ b | sum }}"},
            "next": [{"step": "c", "when": "{{ event.name == 'loop.done' and output.status == 'ok' }}"}],
        },
        {"step": "c", "tool": value("{{ [b, ctx.total] }}")},
    ]
    assert await run(box, steps) == [[11, 22, 33], 66]


async def test_a_pipeline_for_each_item(box: Box) -> None:
    """Tools with policies run for each item with an `iter` of its own."""
    pages = {"kind": "transform", "name": "page", "value": "{{ iter.n }}", "spec": {"policy": {"rules": [
        {"when": "{{ iter.n < x }}", "then": {"do": "jump", "to": "page", "set": {"iter.n": "{{ iter.n + 1 }}"}}},
    ]}}}  # fmt: skip
    start = {"kind": "noop", "name": "init", "spec": {"policy": {"rules": [
        {"else": {"then": {"do": "continue", "set": {"iter.n": 0}}}}]}}}  # fmt: skip
    assert await run(box, looping([2, 0, 3], [start, pages])) == [2, 0, 3]


async def test_claims_carry_more_items_once_it_is_known_how_long_one_takes(box: Box) -> None:
    """A thousand short items take few claims and few events: never more than two for each."""
    await run(box, looping("{{ range(1000) }}", value("{{ x }}")))
    assert len(box.pool.submitted) < 60
    assert committed(box) == Counter(range(1000))


async def test_a_large_list_is_a_blob(box: Box) -> None:
    """A list above what an event holds is kept beside the log, and the loop runs over it."""
    items = ["x" * 1000] * 100
    assert await run(
        box, looping("{{ workload['items'] }}", value("{{ _index }}")), workload={"items": items}
    ) == list(range(100))
    started = next(e.body for e in box.events() if isinstance(e.body, LoopStarted))
    assert started.items is None
    assert sum(map(len, items)) > INLINE_BYTES_MAX


@pytest.mark.parametrize("effect", ["pure", "read"])
async def test_a_lost_frame_is_tried_again_item_by_item(box: Box, effect: str) -> None:
    """The item that kills its worker is found: it fails after three attempts, every other has its result."""

    def answer(work: Any) -> Any:
        items = work.claim.items
        if items is not None and items.first <= 40 < items.first + len(_decoded(items.values)):
            return Lost()
        return box.pool.work(work)

    box.pool.answer = answer
    bears = {"policy": {"failure": "best_effort"}, "effect": effect}
    tool = {"kind": "python", "code": "result = x"}
    result = await run(box, looping("{{ range(100) }}", tool, spec=bears))
    assert result == [n if n != 40 else None for n in range(100)]
    assert committed(box) == Counter(range(100))
    failed = [e.body.failed for e in box.events() if isinstance(e.body, LoopItems) and e.body.failed]
    assert [(list(each), each[40]["code"]) for each in failed] == [([40], "worker_lost")]
    lost = [e.iteration for e in box.events() if isinstance(e.body, AttemptLost)]
    assert sum(first <= 40 < first + count for first, count in lost) == ATTEMPTS_MAX


def _decoded(values: bytes) -> list[Any]:
    from edge.core.codec import decode

    return decode(values)  # type: ignore[no-any-return]


async def test_fail_fast_stops_at_the_first_failure(box: Box) -> None:
    """Without best_effort a failed item fails the step with its index; no further item begins."""
    error = await run(box, looping("{{ range(1000) }}", value("{{ 10 // (x - 3) }}"), "sequential"))
    assert (error["step"], error["item"]) == ("each", 3)
    assert max(committed(box)) < 10


async def test_items_that_fail_leave_a_hole(box: Box) -> None:
    """With best_effort the loop is done, with null where an item failed and the reason in the log."""
    bears = {"policy": {"failure": {"mode": "best_effort"}}}
    assert await run(box, looping([1, 0, 2], value("{{ 10 // x }}"), spec=bears)) == [10, None, 5]


async def test_a_loop_that_failed_can_be_led_on(box: Box) -> None:
    """An arc on step.failed takes a loop's failure."""
    steps = looping([1, 0], value("{{ 10 // x }}"))
    steps[0]["next"] = [{"step": "after", "when": "{{ event.name == 'step.failed' }}"}]
    steps[1]["tool"] = value("mended")
    assert await run(box, steps) == "mended"


async def test_writes_have_their_intent_each(box: Box) -> None:
    """A write runs once for each item, its intent durable before: two events for each item."""
    assert await run(box, looping([1, 2, 3], code("result = x", "write"))) == [1, 2, 3]
    started = [e.iteration for e in box.events() if isinstance(e.body, StepStarted)]
    assert sorted(started) == [(0,), (1,), (2,)]
    assert committed(box) == Counter(range(3))


@pytest.mark.parametrize(
    ("effect", "mode"), [("pure", "parallel"), ("read", "sequential"), ("write", "parallel")]
)
async def test_a_cut_anywhere_commits_every_item_once(tmp_path: Path, effect: str, mode: str) -> None:
    """Cut at every flush, the loop goes on with the items that are missing; a write in doubt is never repeated."""
    whole = Box(tmp_path / "whole")
    await whole.register(playbook(looping("{{ range(30) }}", code("result = x + 1", effect), mode)))
    whole.submit("t")
    pictures = []
    while True:
        await whole.gate.flushed()
        pictures.append(whole.photograph(tmp_path / f"cut{len(pictures)}"))
        if not whole.pool.run():
            break
    execution = whole.receipts[0].seq
    await whole.close()
    for picture in pictures[:: max(1, len(pictures) // 12)]:
        again = Box(picture)
        await again.settle()
        state = again.engine.state_of(execution)
        assert fold(again.engine.events_of(execution)) == state
        assert set(committed(again, execution).values()) <= {1}
        if state.status == "completed":
            assert committed(again, execution) == Counter(range(30))
        else:
            assert effect == "write"
            assert (state.problem or {})["code"] == "outcome_unknown"
        await again.close()
        shutil.rmtree(picture)


async def test_sequential_items_see_what_the_ones_before_wrote(box: Box) -> None:
    """In a sequential loop ctx goes from item to item."""
    rules = [{"else": {"then": {"do": "continue", "set": {"ctx.sum": "{{ output.data }}"}}}}]
    tool = {
        "kind": "transform",
        "value": "{{ ctx.sum | default(0) + x }}",
        "spec": {"policy": {"rules": rules}},
    }
    steps = looping("{{ range(40) }}", tool, "sequential")
    steps[1]["tool"] = value("{{ [each[-1], ctx.sum] }}")
    assert await run(box, steps) == [780, 780]


async def test_parallel_items_write_each_name_once(box: Box) -> None:
    """In a parallel loop two items may not write one name differently; the same value is no conflict."""
    rules = [{"else": {"then": {"do": "continue", "set": {"ctx.seen": "{{ output.data }}"}}}}]
    tool = {"kind": "transform", "value": "{{ x }}", "spec": {"policy": {"rules": rules}}}
    error = await run(box, looping([7, 7, 8], tool))
    assert (error["code"], error["item"]) == ("ctx_conflict", 2)
    steps = looping([7, 7], tool)
    steps[1]["tool"] = value("{{ ctx.seen }}")
    assert await run(box, steps) == 7


@pytest.mark.parametrize("given", ["{{ 5 }}", "{{ {'a': 1} }}", "{{ none }}"])
async def test_what_is_no_list_is_refused(box: Box, given: str) -> None:
    """A loop over anything but a list fails its step and says what it was."""
    error = await run(box, looping(given, value(1)))
    assert error["code"] == "loop_invalid"


async def test_tables_of_items_are_collected_as_references(box: Box) -> None:
    """Each item's table is a block; the next step takes them by index, or joined in the order of the items."""
    steps = looping([1, 2, 3], code("import pyarrow as pa\nresult = pa.table({'n': [x]})", "pure"))
    rows = {"kind": "arrow", "ops": [], "output": "rows"}
    steps[1] = {"step": "after", "tool": {**rows, "table": "{{ each }}"}, "next": ["last"]}
    steps.append(
        {
            "step": "last",
            "tool": [
                {"name": "one", **rows, "table": "{{ each[1] }}"},
                {"name": "all", "kind": "transform", "value": ["{{ one }}", "{{ after }}"]},
            ],
        }
    )
    assert await run(box, steps) == [[{"n": 2}], [{"n": 1}, {"n": 2}, {"n": 3}]]


@pytest.mark.parametrize("effect", ["pure", "read"])
async def test_lost_tables_of_items_are_there_again(box: Box, effect: str) -> None:
    """With the cache deleted after the loop, its items' tables come from the blob store; nothing runs again."""
    steps = looping([1, 2], code("import pyarrow as pa\nresult = pa.table({'n': [x]})", effect), go=1)
    del steps[0]["go"]
    steps[0]["next"] = [{"step": "after", "when": "{{ workload.go }}"}]
    steps[1]["tool"] = {"kind": "arrow", "table": "{{ each }}", "ops": [], "output": "rows"}
    await box.register(playbook(steps, workload={"go": True}))
    box.submit("t")
    while not any(
        isinstance(event.body, StepDone)
        for event in box.engine.events_of(box.receipts[0].seq if box.receipts else 3)
    ):
        await box.gate.flushed()
        box.pool.run()
    loops = len(box.pool.submitted)
    shutil.rmtree(box.blocks.root)
    await box.settle()
    assert box.document()["result"] == [{"n": 1}, {"n": 2}]
    assert all(work.claim.steps == (1,) for work in box.pool.submitted[loops:])


async def test_large_values_of_items_are_collected_as_references(box: Box) -> None:
    """An item's value over the inline bound is a block; a loop's answer tells of it."""
    result = await run(
        box,
        looping([1], code(f"result = list(range({INLINE_BYTES_MAX}))"))[:1]
        and [
            {
                k: v
                for k, v in looping([1], code(f"result = list(range({INLINE_BYTES_MAX}))"))[0].items()
                if k != "next"
            }
        ],
    )
    assert result[0]["value"]["size_bytes"] > INLINE_BYTES_MAX


@pytest.mark.parametrize(
    ("strategy", "more", "expected"),
    [
        ("concat", {"merge_path": "$.l"}, [1, 1, 2, 2]),
        ("merge", {}, {"n": 2, "l": [2, 2]}),
        ("replace", {}, {"n": 2, "l": [2, 2]}),
        ("append", {"max_items": 1}, [{"n": 1, "l": [1, 1]}]),
    ],
)
async def test_a_loop_accumulates_as_its_tool_says(
    box: Box, strategy: str, more: dict[str, Any], expected: Any
) -> None:
    """With one tool that runs once for each item, `accumulate` joins the items' results."""
    how = {"enabled": True, "strategy": strategy, **more}
    tool = {**value({"n": "{{ x }}", "l": ["{{ x }}", "{{ x }}"]}), "output": {"accumulate": how}}
    assert await run(box, looping([1, 2], tool)) == expected


async def test_tables_of_items_are_joined_where_they_are_read(box: Box) -> None:
    """`concat` of tables gives their list, nothing copied, which an arrow tool takes as one table."""
    tool = code("import pyarrow as pa\nresult = pa.table({'n': [x, 10 * x]})")
    steps = looping([1, 2], {**tool, "output": {"accumulate": {"enabled": True, "strategy": "concat"}}})
    steps[1]["tool"] = {"kind": "arrow", "table": "{{ each }}", "ops": [], "output": "rows"}
    assert await run(box, steps) == [{"n": 1}, {"n": 10}, {"n": 2}, {"n": 20}]


async def test_errors_of_items_accumulate_where_they_count(box: Box) -> None:
    """With `on_error` a failed item's problem takes its place; without `on_success` nothing else does."""
    how = {"enabled": True, "strategy": "append", "on_error": True, "on_success": False}
    steps = looping([1, 2, 0], {**code("result = 1 / (x - 2)"), "output": {"accumulate": how}})
    steps[0]["spec"] = {"policy": {"failure": "best_effort"}}
    assert [each["code"] for each in await run(box, steps)] == ["python_raised"]


async def test_results_that_do_not_join_fail_the_loop(box: Box) -> None:
    """Joining what is no list is the step's failure, with the mend."""
    tool = {**value("{{ x }}"), "output": {"accumulate": {"enabled": True, "strategy": "concat"}}}
    assert (await run(box, looping([1, 2], tool)))["code"] == "accumulate_failed"


async def test_an_iteration_knows_its_place(box: Box) -> None:
    """`loop` says which item it is, from 0, and of how many; `iter.index` is the same."""
    tool = value(
        ["{{ loop.index }}", "{{ loop.size }}", "{{ loop.first }}", "{{ loop.last }}", "{{ iter.index }}"]
    )
    assert await run(box, looping([7, 8], tool)) == [[0, 2, True, False, 0], [1, 2, False, True, 1]]


async def test_a_missing_block_is_made_again_under_a_loop(box: Box) -> None:
    """Items that need a table whose block is gone wait until it is made again."""
    steps = [
        {
            "step": "make",
            "spec": {"effect": "pure"},
            "tool": {"kind": "python", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2, 3]})"},
            "next": [{"step": "each", "when": "{{ workload.go }}"}],
        },
        *looping("{{ range(20) }}", {"kind": "arrow", "table": "{{ make }}", "ops": [], "output": "rows"}),
    ]
    await box.register(playbook(steps, workload={"go": True}))
    box.submit("t")
    for _ in range(4):
        box.pool.run()
    shutil.rmtree(box.blocks.root)
    await box.settle()
    assert box.document()["result"] == [[{"n": 1}, {"n": 2}, {"n": 3}]] * 20
    assert committed(box) == Counter(range(20))


async def test_a_loop_visited_again_begins_anew(box: Box) -> None:
    """A circle of arcs runs the loop again, with its own items at each visit."""
    steps = [
        {
            "step": "each",
            "loop": {"in": "{{ range(ctx.n | default(1)) }}", "iterator": "x"},
            "tool": value("{{ x }}"),
            "set": {"n": "{{ ctx.n | default(1) + 1 }}"},
            "next": [{"step": "each", "when": "{{ ctx.n < 4 }}"}],
        }
    ]
    assert await run(box, steps) == [0, 1, 2]
    visits = [e.visit for e in box.events() if isinstance(e.body, StepDone)]
    assert visits == [0, 1, 2]
