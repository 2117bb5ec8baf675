"""Sub-executions on the real engine: one for each invocation, its answer adopted, its end tied to its parent's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.codec import ARROW
from edge.core.events import Event, ExecutionCancelled, ExecutionRequested, StepWaiting
from edge.core.limits import CHILD_DEPTH_MAX, INLINE_BYTES_MAX
from edge.store.arrow_stream import stream_from_table
from edge.testing.box import Box
from edge.testing.plain import playbook

CHILD = [{"step": "add", "tool": {"kind": "transform", "value": "{{ workload.a + workload.b }}"}}]
WAITING: list[dict[str, Any]] = [
    {"step": "rest", "tool": {"kind": "wait", "seconds": 60}, "next": ["end"]},
    {"step": "end", "tool": {"kind": "transform", "value": "rested"}},
]


def calling(path: Any = "lib/child", **tool: Any) -> list[dict[str, Any]]:
    """One step that runs another playbook, and one that answers with what that gave."""
    return [
        {"step": "call", "tool": {"kind": "playbook", "path": path, **tool}, "next": ["after"]},
        {"step": "after", "tool": {"kind": "transform", "value": "{{ call }}"}},
    ]


async def run(
    box: Box, parent: list[dict[str, Any]], child: list[dict[str, Any]] = CHILD, **root: Any
) -> Any:
    await box.register(playbook(child, path="lib/child", **root))
    await box.register(playbook(parent))
    box.submit("t")
    await box.settle()
    return box.document().get("result", box.document().get("error")) if box.answers else None


def requests(box: Box) -> list[Event]:
    return [event for event in box.events() if isinstance(event.body, ExecutionRequested)]


async def test_a_playbook_gives_its_answer_to_the_step_that_ran_it(box: Box) -> None:
    """The child has a history of its own that names its parent; nobody outside gets its answer."""
    result = await run(box, calling(input={"a": "{{ 40 }}"}), workload={"a": 1, "b": 2})
    assert result == 42
    parent, child = requests(box)
    body = child.body
    assert isinstance(body, ExecutionRequested)
    assert (body.parent, body.parent_step, body.form, body.depth) == (parent.seq, "call", "child", 1)
    assert body.principal == "alice"
    waiting = [event.body for event in box.events() if isinstance(event.body, StepWaiting)]
    assert [each.detail for each in waiting] == [{"child": child.seq}]
    assert len(box.answers) == 1, "only the request is answered"
    assert not box.engine.executor.open


@pytest.mark.parametrize("key", ["args", "payload", "input"])
async def test_every_published_spelling_of_input_is_read(box: Box, key: str) -> None:
    """`args`, `payload` and `input` go over the child's workload."""
    assert await run(box, calling(**{key: {"a": 3}}), workload={"a": 1, "b": 2}) == 5


async def test_a_path_may_be_a_template(box: Box) -> None:
    """Which playbook runs may be computed."""
    steps = calling("lib/{{ 'child' }}", input={"a": 1, "b": 1})
    assert await run(box, steps) == 2


async def test_a_named_step_answers(box: Box) -> None:
    """`return_step` names whose result is the answer, where it is not the last."""
    child = [
        {"step": "first", "tool": {"kind": "transform", "value": 1}, "next": ["second"]},
        {"step": "second", "tool": {"kind": "transform", "value": 2}},
    ]
    assert await run(box, calling(return_step="first"), child) == 1


@pytest.mark.parametrize(
    ("tool", "code"),
    [
        ({"path": "lib/other"}, "playbook_unknown"),
        ({"path": "{{ 7 }}"}, "playbook_unknown"),
        ({"path": "lib/child", "return_step": "absent"}, "return_step_unknown"),
    ],
)
async def test_what_cannot_begin_fails_its_task(box: Box, tool: dict[str, Any], code: str) -> None:
    """A playbook that is not there, or has no such step, is a problem with a mend; nothing is begun."""
    problem = await run(box, calling(**tool))
    assert problem["code"] == code
    assert problem["mend"]
    assert len(requests(box)) == 1


async def test_a_failed_child_fails_its_task_and_a_policy_may_retry(box: Box) -> None:
    """The child's problem comes with the child's id; each retry is a new child."""
    child = [{"step": "bad", "tool": {"kind": "python", "code": "result = 1 / 0"}}]
    rules = [{"when": "{{ output.status == 'error' }}", "then": {"do": "retry", "attempts": 3}}]
    steps = calling(spec={"policy": {"rules": rules}})
    problem = await run(box, steps, child)
    assert problem["code"] == "python_raised"
    last = requests(box)[-1].seq
    assert problem["execution"] == box.engine.execution_id(last)
    assert len(requests(box)) == 4, "the request and three children"


async def test_recursion_ends_with_a_clear_problem(box: Box) -> None:
    """A playbook that runs itself, through another, ends at the bound on depth."""
    await box.register(playbook(calling("b"), path="a"))
    await box.register(playbook(calling("a"), path="b"))
    box.submit("a")
    await box.settle()
    problem = box.document()["error"]
    assert problem["code"] == "playbook_too_deep"
    assert "condition" in problem["mend"]
    assert problem["message"].startswith("The playbook b would be")
    assert problem["message"].count("In execution") == 1
    last = requests(box)[-1]
    assert f"In execution {box.engine.execution_id(last.seq)}, below " in problem["message"]
    assert len(problem["through"]) == CHILD_DEPTH_MAX
    assert len(requests(box)) == CHILD_DEPTH_MAX + 1
    assert not box.engine.executor.open


async def test_a_childs_table_reaches_its_parent(box: Box) -> None:
    """An answer that is a table is the task's table; it is copied into the parent's folder and recorded."""
    child = [
        {
            "step": "make",
            "spec": {"effect": "pure"},
            "tool": {"kind": "python", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2]})"},
        }
    ]
    parent = [
        {"step": "call", "tool": {"kind": "playbook", "path": "lib/child"}, "next": ["rows"]},
        {"step": "rows", "tool": {"kind": "arrow", "table": "{{ call }}", "ops": [], "output": "rows"}},
    ]
    assert await run(box, parent, child) == [{"n": 1}, {"n": 2}]
    parent_seq = requests(box)[0].seq
    mine = [work for work in box.pool.submitted if work.claim.execution == parent_seq]
    bound = {work.claim.steps: work.author_code for work in mine}
    assert bound[(1,)], (
        "a table that another playbook's code made is opened by a process of this playbook only"
    )


async def test_a_lone_table_is_handed_to_a_child(box: Box) -> None:
    """A task's one input `table` is the child's request table."""
    child = [
        {
            "step": "rows",
            "tool": {"kind": "arrow", "table": "{{ workload.table }}", "ops": [], "output": "rows"},
        }
    ]
    await box.register(playbook(child, path="lib/child"))
    await box.register(playbook(calling(input={"table": "{{ workload.table }}"})))
    box.submit("t", stream_from_table(pa.table({"n": [5]})), content_type=ARROW)
    await box.settle()
    assert json.loads(box.answers[-1].payload)["result"] == [{"n": 5}]


async def test_a_table_among_other_inputs_is_refused(box: Box) -> None:
    """A table beside values cannot be handed over; the problem says what can."""
    await box.register(playbook(CHILD, path="lib/child"))
    await box.register(playbook(calling(input={"table": "{{ workload.table }}", "a": 1})))
    box.submit("t", stream_from_table(pa.table({"n": [5]})), content_type=ARROW)
    await box.settle()
    assert json.loads(box.answers[-1].payload)["error"]["code"] == "input_invalid"


async def test_a_large_answer_comes_as_a_reference(box: Box) -> None:
    """A child's large value is a block of the parent, with the parts the task selects."""
    code = f"result = {{'l': list(range({INLINE_BYTES_MAX})), 'n': 9}}"
    child = [{"step": "make", "tool": {"kind": "python", "code": code}}]
    output = {"select": [{"path": "$.n", "as": "n"}]}
    parent = [
        {
            "step": "call",
            "tool": {"kind": "playbook", "path": "lib/child", "output": output},
            "next": ["after"],
        },
        {"step": "after", "tool": {"kind": "transform", "value": ["{{ call.n }}", "{{ call.l | length }}"]}},
    ]
    assert await run(box, parent, child) == [9, INLINE_BYTES_MAX]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_each_item_of_a_loop_may_be_a_child(box: Box, mode: str) -> None:
    """One child for each item, their answers in the order of the items, no more at once than allowed."""
    parent = [
        {
            "step": "each",
            "loop": {"in": [1, 2, 3, 4, 5], "iterator": "n", "spec": {"mode": mode, "max_in_flight": 2}},
            "tool": {"kind": "playbook", "path": "lib/child", "input": {"a": "{{ n }}", "b": 10}},
        }
    ]
    assert await run(box, parent) == [11, 12, 13, 14, 15]
    bodies = [event.body for event in requests(box)[1:]]
    assert [body.parent_item for body in bodies if isinstance(body, ExecutionRequested)] == [0, 1, 2, 3, 4]


ROOMS: list[dict[str, Any]] = [
    {
        "step": "each",
        "loop": {"in": "{{ iter.parent.hotel.rooms }}", "iterator": "room"},
        "tool": {
            "kind": "transform",
            "value": [
                "{{ iter.parent.parent.city.name }}",
                "{{ iter.parent.hotel.name }}",
                "{{ iter.room }}",
            ],
        },
    }
]
HOTELS: list[dict[str, Any]] = [
    {
        "step": "each",
        "loop": {"in": "{{ iter.parent.city.hotels }}", "iterator": "hotel"},
        "tool": {"kind": "playbook", "path": "lib/rooms"},
    }
]
CITIES = [
    {"name": "Oslo", "hotels": [{"name": "Nord", "rooms": [1, 2]}, {"name": "Sol", "rooms": [3]}]},
    {"name": "Rome", "hotels": [{"name": "Roma", "rooms": [4]}]},
]


@pytest.mark.parametrize("cut", [False, True])
async def test_loops_in_loops_see_the_outer_iterations(box: Box, tmp_path: Path, cut: bool) -> None:
    """A child's `iter.parent` is the iteration that began it, and so on upwards, over a restart as well."""
    await box.register(playbook(ROOMS, path="lib/rooms"))
    await box.register(playbook(HOTELS, path="lib/hotels"))
    loop = {"in": "{{ workload.cities }}", "iterator": "city", "spec": {"mode": "parallel"}}
    tool = {"kind": "playbook", "path": "lib/hotels"}
    cities = [{"step": "each", "loop": loop, "tool": tool}]
    await box.register(playbook(cities, workload={"cities": CITIES}))
    box.submit("t")
    again = box
    if cut:
        for _ in range(4):
            await box.gate.flushed()
            box.pool.run()
        await box.gate.flushed()
        again = Box(box.photograph(tmp_path / "again"))
    await again.settle()
    assert json.loads(again.answers[-1].payload)["result"] == [
        [[["Oslo", "Nord", 1], ["Oslo", "Nord", 2]], [["Oslo", "Sol", 3]]],
        [[["Rome", "Roma", 4]]],
    ]
    if cut:
        await again.close()


async def test_outside_a_loop_the_nearest_iteration_is_handed_on(box: Box) -> None:
    """A single tool sees `iter.parent` too; a child of a plain step has the iteration of the one above."""
    leaf = [{"step": "say", "tool": {"kind": "transform", "value": "{{ iter.parent.n }}"}}]
    await box.register(playbook(leaf, path="lib/leaf"))
    middle = [{"step": "call", "tool": {"kind": "playbook", "path": "lib/leaf"}}]
    loop = {"in": [7, 8], "iterator": "n"}
    parent = [{"step": "each", "loop": loop, "tool": {"kind": "playbook", "path": "lib/child"}}]
    assert await run(box, parent, middle) == [7, 8]


async def test_what_nobody_looks_at_is_not_recorded(box: Box) -> None:
    """The iteration stands in a child's request only where the child looks at one."""
    parent = [
        {
            "step": "each",
            "loop": {"in": ["x" * (INLINE_BYTES_MAX + 1)], "iterator": "n"},
            "tool": {"kind": "playbook", "path": "lib/child", "input": {"a": 1, "b": 2}},
        }
    ]
    assert await run(box, parent) == [3]
    assert [event.body.iter for event in requests(box) if isinstance(event.body, ExecutionRequested)] == [
        None
    ] * 2


async def test_an_iteration_too_large_to_hand_over_is_named(box: Box) -> None:
    """A child that looks at an iteration over the bound fails its task, and the problem says what to do."""
    leaf = [{"step": "say", "tool": {"kind": "transform", "value": "{{ iter.parent.n | length }}"}}]
    loop = {"in": ["x" * (INLINE_BYTES_MAX + 1)], "iterator": "n"}
    parent = [{"step": "each", "loop": loop, "tool": {"kind": "playbook", "path": "lib/child"}}]
    assert (await run(box, parent, leaf))["code"] == "iter_too_large"


async def test_cancelling_a_parent_cancels_its_children(box: Box) -> None:
    """The cascade is in the log, and nothing of either goes on."""
    await run(box, calling(), WAITING)
    parent, child = (event.seq for event in requests(box))
    said: list[str] = []
    box.engine.cancel(parent, "eve", None, said.append)
    await box.settle()
    assert said == ["cancelled"]
    ends = {event.execution for event in box.events() if isinstance(event.body, ExecutionCancelled)}
    assert ends == {parent, child}
    assert not box.engine.executor.open


async def test_a_failure_beside_a_child_cancels_it(box: Box) -> None:
    """Where another branch fails the execution, the child it waits for is ended too."""
    parent = [
        {
            "step": "fork",
            "next": {"spec": {"mode": "inclusive"}, "arcs": [{"step": "call"}, {"step": "bad"}]},
        },
        {"step": "call", "tool": {"kind": "playbook", "path": "lib/child"}},
        {"step": "bad", "tool": {"kind": "python", "code": "result = 1 / 0"}},
    ]
    assert (await run(box, parent, WAITING))["code"] == "python_raised"
    assert not box.engine.executor.open


async def test_a_child_is_pinned_to_what_was_registered_then(box: Box) -> None:
    """A new version registered while a child runs changes nothing for it."""
    await run(box, calling(), WAITING)
    await box.register(
        playbook([{"step": "x", "tool": {"kind": "transform", "value": "new"}}], path="lib/child")
    )
    await box.pass_time(61)
    assert box.document()["result"] == "rested"
