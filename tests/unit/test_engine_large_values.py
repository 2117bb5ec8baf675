"""Plain values too large for an event: blocks of the cache, read on demand, made again or put back when lost."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import encode
from edge.core.events import StepDone, TaskDone
from edge.core.limits import INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX
from edge.core.values import ValueRef
from edge.testing.box import Box
from edge.testing.plain import playbook

#: More than an event holds.
COUNT = INLINE_BYTES_MAX
MAKE = f"result = {{'numbers': list(range({COUNT})), 'page': {{'next': 7}}}}"
SELECT = {"select": [{"path": "$.page.next", "as": "next_page"}, {"path": "$.absent", "as": "absent"}]}


def make(effect: str, **more: Any) -> dict[str, Any]:
    return {"kind": "python", "code": MAKE, "spec": {"effect": effect}, **more}


def using(effect: str, **more: Any) -> list[dict[str, Any]]:
    """A step with a large result, an arc that waits, and a step that reads it."""
    return [
        {
            "step": "make",
            "tool": make(effect, **more),
            "next": [{"step": "use", "when": "{{ workload.go }}"}],
        },
        {"step": "use", "tool": {"kind": "transform", "value": "{{ make.numbers | length }}"}},
    ]


async def run(box: Box, steps: list[dict[str, Any]]) -> Any:
    await box.register(playbook(steps, workload={"go": True}))
    box.submit("t")
    await box.settle()
    return box.document().get("result", box.document().get("error"))


def done(box: Box, step: str) -> StepDone:
    bodies = [e.body for e in box.events() if e.step == step and isinstance(e.body, StepDone)]
    assert len(bodies) == 1, "a step's outcome is recorded once"
    return bodies[0]


@pytest.mark.parametrize("effect", ["pure", "read"])
async def test_a_large_value_reaches_the_steps_that_read_it(box: Box, effect: str) -> None:
    """A value over the inline bound is a block; its event holds a reference and how it begins."""
    assert await run(box, using(effect)) == COUNT
    body = done(box, "make")
    ref = body.table
    assert isinstance(ref, ValueRef)
    assert body.value is None
    assert ref.size_bytes > INLINE_BYTES_MAX
    assert ref.preview.startswith('{"numbers": [0, 1, 2')
    assert len(encode(ref)) < 1_024


@pytest.mark.parametrize("effect", ["pure", "read", "write"])
async def test_a_lost_large_value_is_there_again(box: Box, effect: str) -> None:
    """With the cache deleted, a pure value is made again, a recorded one comes from the blob store."""
    await box.register(playbook(using(effect), workload={"go": True}))
    box.submit("t")
    await box.gate.flushed()
    box.pool.run()
    shutil.rmtree(box.blocks.root)
    await box.settle()
    assert box.document()["result"] == COUNT
    claims = [work.claim.steps for work in box.pool.submitted]
    assert claims.count((0,)) == (2 if effect == "pure" else 1), "only what is pure runs again"


async def test_a_large_value_survives_a_restart(tmp_path: Path) -> None:
    """After a power cut between the steps a new runtime goes on from what the log and the blob store hold."""
    box = Box(tmp_path / "a")
    await box.register(playbook(using("read"), workload={"go": True}))
    box.submit("t")
    await box.gate.flushed()
    box.pool.run()
    await box.gate.flushed()
    again = Box(box.photograph(tmp_path / "b"))
    await again.settle()
    assert again.document()["result"] == COUNT
    assert [work.claim.steps for work in again.pool.submitted] == [(1,)]
    await again.close()
    await box.close()


async def test_selected_parts_are_asked_for_without_the_block(box: Box) -> None:
    """An arc that looks at a selected part only is decided though the block is gone; what is missing is null."""
    steps = [
        {
            "step": "make",
            "tool": make("read", output=SELECT),
            "next": [{"step": "use", "when": "{{ make.next_page == 7 and output.absent is none }}"}],
        },
        {
            "step": "use",
            "tool": {"kind": "transform", "value": "{{ make.next_page + output_of }}"},
            "input": {"output_of": 1},
        },
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.gate.flushed()
    shown: list[Any] = []
    read = box.blocks.read
    box.blocks.read = lambda digest, ref: (shown.append(ref.key), read(digest, ref))[1]  # type: ignore[method-assign]
    await box.settle()
    assert box.document().get("result") == 8, box.document()
    assert len(shown) == 1, "read once, for the blob store; never for the arc"


async def test_selected_parts_of_a_small_value_read_the_same(box: Box) -> None:
    """A result that stays inline shows its selected parts as a large one does."""
    tool = {"kind": "transform", "value": {"page": {"next": 7}}, "output": SELECT}
    steps = [
        {"step": "make", "tool": tool, "next": [{"step": "use", "when": "{{ output.next_page == 7 }}"}]},
        {"step": "use", "tool": {"kind": "transform", "value": ["{{ make.next_page }}", "{{ make }}"]}},
    ]
    assert await run(box, steps) == [7, {"page": {"next": 7}}]


async def test_a_store_that_keeps_records_what_is_pure(box: Box) -> None:
    """`store: {kind: eventlog}` puts a pure step's value into the log, so that nothing runs again."""
    tool = {
        "kind": "transform",
        "value": "{{ range(3000) | list }}",
        "output": {"store": {"kind": "eventlog"}},
    }
    steps = [
        {"step": "make", "tool": tool, "next": ["use"]},
        {"step": "use", "tool": {"kind": "transform", "value": "{{ make | length }}"}},
    ]
    assert await run(box, steps) == 3000
    assert done(box, "make").value is not None


async def test_an_inline_cap_sends_smaller_values_to_the_cache(box: Box) -> None:
    """`inline_max_bytes` lowers the bound from which a value is a block, `preview_max_bytes` what is shown of it."""
    tool = {
        "kind": "transform",
        "value": ["a", "b", "c"],
        "output": {"inline_max_bytes": 2, "preview_max_bytes": 5},
    }
    steps = [
        {"step": "make", "tool": tool, "next": ["use"]},
        {"step": "use", "tool": {"kind": "transform", "value": "{{ make[2] }}"}},
    ]
    assert await run(box, steps) == "c"
    ref = done(box, "make").table
    assert isinstance(ref, ValueRef)
    assert ref.preview == '["a",'


async def test_a_pipeline_adopts_its_large_records(box: Box) -> None:
    """A recorded task's large value is a block; the go after a pause reads it instead of running the task again."""
    steps = [
        {
            "step": "pipe",
            "tool": [
                {"name": "get", **make("read", output=SELECT)},
                {
                    "name": "act",
                    "kind": "python",
                    "code": "result = n",
                    "input": {"n": "{{ get.next_page + (get.numbers | length) + (_prev.numbers | length) }}"},
                    "spec": {"effect": "write"},
                },
            ],
        },
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == 7 + 2 * COUNT
    tasks = [e.body for e in box.events() if isinstance(e.body, TaskDone)]
    assert [task.task for task in tasks] == ["get"]
    assert isinstance(tasks[0].table, ValueRef)


async def test_a_pipeline_ends_with_one_copy_of_its_large_value(box: Box) -> None:
    """The last task's large value is the step's: one event, one block, one blob."""
    steps = [
        {
            "step": "pipe",
            "tool": [{"name": "a", "kind": "noop"}, {"name": "get", **make("read")}],
            "next": ["use"],
        },
        {"step": "use", "tool": {"kind": "transform", "value": "{{ pipe.numbers | length }}"}},
    ]
    assert await run(box, steps) == COUNT
    assert not [e for e in box.events() if isinstance(e.body, TaskDone)]
    assert isinstance(done(box, "pipe").table, ValueRef)


async def test_a_large_answer_leaves_the_box(box: Box) -> None:
    """A last step's large value is the answer, whole; a pure one is kept as a blob from then on."""
    steps = [{"step": "make", "tool": make("pure")}]
    assert (await run(box, steps))["numbers"] == list(range(COUNT))
    digest = hashlib.sha256(encode({"numbers": list(range(COUNT)), "page": {"next": 7}})).digest()
    assert box.blobs.get(digest)


async def test_what_no_block_may_hold_fails_its_step(box: Box) -> None:
    """A value over the bound for values fails with what to do."""
    code = f"result = 'x' * {VALUE_BYTES_MAX + 1}"
    problem = await run(box, [{"step": "make", "tool": {"kind": "python", "code": code}}])
    assert problem["code"] == "result_too_large"
    assert "table" in problem["mend"]


async def test_an_answer_that_no_frame_holds_says_so(box: Box) -> None:
    """A value that fits a block may not fit an answer as JSON: the caller is told, the runtime goes on."""
    code = f"result = [False] * {PAYLOAD_BYTES_MAX // 6 + 1000}"
    problem = await run(box, [{"step": "make", "tool": {"kind": "python", "code": code}}])
    assert problem["code"] == "answer_too_large"


@pytest.mark.parametrize(
    ("strategy", "more", "expected"),
    [
        ("append", {}, [{"n": 1, "l": [1]}, {"n": 2, "l": [2]}, {"n": 3, "l": [3]}]),
        ("append", {"max_items": 2}, [{"n": 1, "l": [1]}, {"n": 2, "l": [2]}]),
        ("replace", {}, {"n": 3, "l": [3]}),
        ("merge", {}, {"n": 3, "l": [3]}),
        ("concat", {"merge_path": "$.data.l"}, [1, 2, 3]),
    ],
)
async def test_pages_accumulate_by_strategy(
    box: Box, strategy: str, more: dict[str, Any], expected: Any
) -> None:
    """A task that runs again for every page accumulates their results in `iter`, as its strategy says."""
    how = {"enabled": True, "strategy": strategy, "manifest_as": "pages", **more}
    steps = [
        {
            "step": "pages",
            "tool": [
                {
                    "name": "fetch",
                    "kind": "python",
                    "code": "result = {'n': page, 'l': [page]}",
                    "input": {"page": "{{ iter.page | default(1) }}"},
                    "output": {"accumulate": how},
                    "spec": {
                        "policy": {
                            "rules": [
                                {
                                    "when": "{{ output.n < 3 }}",
                                    "then": {
                                        "do": "jump",
                                        "to": "fetch",
                                        "set_iter": {"page": "{{ output.n + 1 }}"},
                                    },
                                },
                                {"else": {"then": {"do": "continue"}}},
                            ]
                        }
                    },
                },
                {"name": "all", "kind": "transform", "value": "{{ iter.pages }}"},
            ],
        }
    ]
    assert await run(box, steps) == expected
