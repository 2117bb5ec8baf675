"""Branches side by side on the real engine: forks, joins, failures borne, admission, and every cut between events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.events import StepDone, StepFailed
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.plain import playbook


def value(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"step": name, "tool": {"kind": "transform", "value": value}, **more}


def fork(*arcs: Any, **spec: Any) -> dict[str, Any]:
    return {"spec": {"mode": "inclusive", **spec}, "arcs": list(arcs)}


FAILING = {"kind": "python", "code": "result = 1 / 0"}

DIAMOND: list[dict[str, Any]] = [
    value(
        "a",
        "{{ n }}",
        next=fork("b", {"step": "c", "when": "{{ a > 2 }}"}, {"step": "d", "when": "{{ a > 9 }}"}),
    ),
    value("b", "{{ a + 1 }}", next=["e"]),
    value("c", "{{ a * 10 }}", next=["e"]),
    value("d", "{{ a * 100 }}", next=["e"]),
    value("e", "{{ [b, c | default(0), d | default(0)] }}"),
]


@pytest.mark.parametrize(
    ("given", "result", "steps"),
    [(1, [2, 0, 0], "abe"), (3, [4, 30, 0], "abce"), (10, [11, 100, 1000], "abcde")],
)
async def test_a_join_waits_for_the_branches_that_live(
    box: Box, given: int, result: list[int], steps: str
) -> None:
    """A join runs once, after every branch that was taken and without those that were not."""
    await box.register(playbook(DIAMOND, workload={"n": given}))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == result
    assert sorted(event.step or "" for event in box.events() if isinstance(event.body, StepDone)) == list(
        steps
    )


async def test_branches_are_under_way_together(box: Box) -> None:
    """Both sides of a fork are claimed before either has settled."""
    await box.register(playbook(DIAMOND, workload={"n": 3}))
    box.submit("t")
    box.pool.run()
    assert len(box.pool.waiting) == 2
    await box.settle()
    assert box.document()["status"] == "completed"


async def test_a_cut_after_any_event_changes_nothing(tmp_path: Path) -> None:
    """Restarted after any of its events, a playbook of branches gives the same answer and runs each visit once."""
    whole = Box(tmp_path / "whole")
    await whole.register(playbook(DIAMOND, workload={"n": 10}))
    whole.submit("t")
    pictures = []
    while True:
        await whole.gate.flushed()
        pictures.append(whole.photograph(tmp_path / f"cut{len(pictures)}"))
        if not whole.pool.run():
            break
    expected = whole.document()
    execution = whole.receipts[0].seq
    await whole.close()
    assert len(pictures) >= 6
    for picture in pictures:
        again = Box(picture)
        await again.settle()
        state = again.engine.state_of(execution)
        assert fold(again.engine.events_of(execution)) == state
        assert (state.status, state.visits) == ("completed", 5)
        if again.answers:
            assert again.document() == expected
        await again.close()


async def test_what_arcs_carry_is_there_for_the_next_step_alone(box: Box) -> None:
    """`args` and `step.x` on an arc reach the step it leads to, `ctx.x` all that follow."""
    arc = {"step": "b", "args": {"k": "{{ a + 1 }}"}, "set": {"step.m": 7, "ctx.x": "{{ output.data }}"}}
    steps = [
        value("a", 1, next=[arc]),
        value("b", "{{ [args.k, k, m, ctx.x] }}", next=["c"]),
        value("c", "{{ [b, args.k is defined, ctx.x] }}"),
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == [[2, 2, 7, 1], False, 1]


async def test_a_failure_is_led_on_by_an_arc_that_asks_for_it(box: Box) -> None:
    """An arc on `event.name == 'step.failed'` takes a failure; `error` and `output` say what it was."""
    steps = [
        {
            "step": "a",
            "tool": FAILING,
            "next": [
                "b",
                {"step": "c", "when": "{{ event.name == 'step.failed' }}", "args": {"e": "{{ event }}"}},
            ],
        },
        value("b", 1),
        value("c", "{{ [args.e.name, args.e.error.code] }}"),
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["status"] == "completed"
    assert box.document()["result"] == ["step.failed", "python_raised"]
    failed = [event.body for event in box.events() if isinstance(event.body, StepFailed)]
    assert [body.ways and body.ways[0][:2] for body in failed] == [[1, "c"]]


async def test_an_arc_that_does_not_ask_is_not_taken_after_a_failure(box: Box) -> None:
    """A plain arc leads on from success only: nothing goes on as if nothing had happened."""
    await box.register(playbook([{"step": "a", "tool": FAILING, "next": ["b"]}, value("b", 1)]))
    box.submit("t")
    await box.settle()
    assert box.document()["status"] == "failed"
    assert box.document()["error"]["step"] == "a"


async def test_a_failure_waits_for_the_other_branches_outcomes(box: Box) -> None:
    """Fail fast starts nothing more, and records what is under way before the end."""
    steps = [
        value("a", 1, next=fork("b", "c")),
        {"step": "b", "tool": FAILING, "next": ["e"]},
        value("c", 3, next=["d"]),
        value("d", 4),
        value("e", 5),
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["error"]["step"] == "b"
    kinds = [(event.type, event.step) for event in box.events() if event.execution == box.receipts[0].seq]
    assert kinds[1:] == [
        ("step.done", "a"),
        ("step.failed", "b"),
        ("step.done", "c"),
        ("playbook.execution.finished", None),
    ]


async def test_a_borne_failure_ends_its_branch_only(box: Box) -> None:
    """With best_effort the other branch goes on, the join sees the failed one as missing, the final step is told."""
    bears = {"policy": {"failure": {"mode": "best_effort"}}}
    steps = [
        value("a", 1, next=fork("b", "c")),
        {"step": "b", "spec": bears, "tool": FAILING, "next": ["d"]},
        value("c", 3, next=["d"]),
        value("d", "{{ [b | default('none'), c] }}"),
        value("z", "{{ [d, args.done, args.failed[0].step] }}"),
    ]
    await box.register(playbook(steps, executor={"spec": {"final_step": "z"}}))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == [["none", 3], 3, "b"]


async def test_a_step_that_is_not_let_in_waits_for_ctx(box: Box) -> None:
    """A denied token stays pending, and goes on when another branch sets what its rule asks for."""
    gate = {"policy": {"admit": {"rules": [{"when": "{{ ctx.open | default(false) }}", "then": {"allow": True}},
                                            {"else": {"then": {"allow": False}}}]}}}  # fmt: skip
    steps = [
        value("a", 1, next=fork("b", "c")),
        value("b", "{{ ctx.open }}", spec=gate),
        value("c", 3, next=["d"]),
        value("d", 4, set={"open": "yes"}),
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["status"] == "completed"
    order = [event.step for event in box.events() if isinstance(event.body, StepDone)]
    assert order == ["a", "c", "d", "b"]


async def test_what_is_never_let_in_ends_with_the_rest(box: Box) -> None:
    """Where nothing else can go on, a denied token is left and the execution is complete without it."""
    never = {"policy": {"admit": {"rules": [{"else": {"allow": False}}]}}}
    steps = [value("a", 1, next=fork("b", "c")), value("b", 2, spec=never, next=["d"]), value("c", 3, next=["d"]),
             value("d", "{{ [b | default(0), c] }}")]  # fmt: skip
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == [0, 3]


async def test_an_admission_rule_that_fails_fails_its_step(box: Box) -> None:
    """A rule that cannot be evaluated is the step's failure, with the rule's own words."""
    odd = {"policy": {"admit": {"rules": [{"when": "{{ ctx.none.such > 1 }}", "then": {"allow": True}}]}}}
    await box.register(playbook([value("a", 1, next=["b"]), value("b", 2, spec=odd)]))
    box.submit("t")
    await box.settle()
    assert box.document()["error"]["step"] == "b"
    assert box.document()["error"]["code"] == "expression_undefined"


async def test_where_it_begins_and_what_must_match(box: Box) -> None:
    """`entry_step` starts; with `no_next_is_error` a step that leads nowhere fails the execution."""
    steps = [value("b", 2), value("a", 1, next=[{"step": "b", "when": "{{ a > n }}"}])]
    spec = {"entry_step": "a", "no_next_is_error": True}
    await box.register(playbook(steps, executor={"spec": spec}, workload={"n": 0}))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == 2
    box.submit("t", b'{"n": 5}')
    await box.settle()
    assert box.document()["error"]["code"] == "no_arc_matched"


@pytest.mark.parametrize(("no_match", "result"), [("complete", 3), ("quiet", 2)])
async def test_which_branch_answers(box: Box, no_match: str, result: int) -> None:
    """Of the branches that ended the one written last answers; one that ended quietly does not."""
    quiet = {"spec": {"on_no_match": no_match}, "arcs": [{"step": "a", "when": "{{ c > 9 }}"}]}
    await box.register(
        playbook([value("a", 1, next=fork("b", "c")), value("b", 2), value("c", 3, next=quiet)])
    )
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == result


async def test_a_block_is_made_again_from_what_its_step_saw(box: Box) -> None:
    """A branch's table, lost later, is rebuilt with `ctx` as it was when the step began, not as it is now."""
    table = "import pyarrow as pa\nresult = pa.table({'n': [seen]})"
    steps = [
        value("a", 1, set={"x": 1}, next=fork("b", "c")),
        {
            "step": "b",
            "spec": {"effect": "pure"},
            "tool": {"kind": "python", "code": table, "input": {"seen": "{{ ctx.x }}"}},
            "next": ["d"],
        },
        value("c", 3, set={"x": 2}, next=["d"]),
        {"step": "d", "tool": {"kind": "arrow", "table": "{{ b }}", "ops": [], "output": "rows"}},
    ]
    await box.register(playbook(steps))
    box.submit("t")
    box.pool.run()
    box.pool.waiting.rotate(1)  # c settles before b, which was claimed first
    box.pool.run()
    box.pool.run()
    cause = [event.cause for event in box.events() if event.step == "b"]
    for path in box.blocks.root.rglob("*.arrow"):
        path.unlink()
    await box.settle()
    assert box.document()["result"] == [{"n": 1}]
    assert cause != [None]


async def test_a_failed_step_that_is_read_is_said_to_have_failed(box: Box) -> None:
    """Not that it has not run: it did, and its error goes on by the arc's `set`."""
    steps = [
        {
            "step": "p",
            "tool": {"kind": "python", "code": "def main():\n    raise ValueError('x')"},
            "next": [{"step": "bad", "when": "{{ event.name == 'step.failed' }}"}],
        },
        {"step": "bad", "tool": {"kind": "transform", "value": "{{ p.x }}"}},
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    problem = box.document()["error"]
    assert problem["code"] == "expression_undefined"
    assert "`p (a step that failed: python_raised)" in problem["message"]
    assert "`set` of the arc from p" in problem["mend"]
