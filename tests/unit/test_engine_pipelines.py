"""Pipelines and task policies on the real engine: what follows an outcome, what is recorded, every cut between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.events import StepDone, StepFailed, StepStarted, TaskDone
from edge.core.limits import KIB, RETRY_DELAY_S_MAX
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost


def told(box: Box) -> list[tuple[str, str | None]]:
    """Types of the execution's events with the task they name, the request left out."""
    events = [event for event in box.events() if event.execution == box.receipts[0].seq][1:]
    return [
        (event.type, event.body.task if isinstance(event.body, TaskDone) else event.step) for event in events
    ]


def task(name: str, code: str, *rules: Any, effect: str | None = None, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"policy": {"rules": list(rules)}} if rules else {}
    if effect is not None:
        spec["effect"] = effect
    return {"name": name, "kind": "python", "code": code, **({"spec": spec} if spec else {}), **more}


def value(name: str, given: Any, *rules: Any) -> dict[str, Any]:
    spec = {"spec": {"policy": {"rules": list(rules)}}} if rules else {}
    return {"name": name, "kind": "transform", "value": given, **spec}


def one(*tasks: dict[str, Any], **step: Any) -> list[dict[str, Any]]:
    return [{"step": "s", "tool": list(tasks), **step}]


def then(do: str, when: str | None = None, **more: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"then": {"do": do, **more}}
    return {"when": when, **rule} if when is not None else {"else": rule}


async def run(box: Box, steps: list[dict[str, Any]], **root: Any) -> Any:
    await box.register(playbook(steps, **root))
    box.submit("t")
    await box.settle_with_pauses()
    return box.document().get("result", box.document().get("error"))


async def test_tasks_run_in_order_and_see_each_other(box: Box) -> None:
    """Each task sees the one before as `_prev` and all by name; the step's result is the last one's."""
    steps = one(value("a", 1), value("b", "{{ [_prev, a, _task, _attempt] }}"), value("c", "{{ b + [a] }}"))
    assert await run(box, steps) == [1, 1, "b", 1, 1]
    assert told(box) == [("step.done", "s"), ("playbook.execution.finished", None)]


async def test_without_names_they_are_numbered(box: Box) -> None:
    """Unnamed tasks are task_0, task_1, …; the labelled form is read too."""
    steps = [{"step": "s", "tool": [{"kind": "noop"}, {"kind": "transform", "value": 5},
                                     {"last": {"kind": "transform", "value": "{{ task_1 + 1 }}"}}]}]  # fmt: skip
    assert await run(box, steps) == 6


async def test_step_inputs_reach_every_task_and_its_own_win(box: Box) -> None:
    """A step's inputs are there in all its tasks, a task's own over them."""
    second = {**value("b", "{{ [args.x, args.y] }}"), "input": {"y": "{{ _prev[1] * 10 }}"}}
    steps = one(value("a", "{{ [args.x, args.y] }}"), second, input={"x": 1, "y": 2})
    assert await run(box, steps) == [1, 20]


async def test_a_rule_sees_what_its_task_saw(box: Box) -> None:
    """A task's own inputs are there for its rules, by name and in `args`, and for no other task's."""
    asked = "{{ output.data > limit and [args.limit, args.z, z] == [2, 5, 5] }}"
    first = task("a", "return limit + 1", then("continue", asked, set={"ctx.x": "{{ limit }}"}), then("fail"))
    second = value("b", 0, then("continue", set={"ctx.y": "{{ limit }}"}))
    steps = [
        {"step": "before", "tool": {"kind": "noop"}, "next": [{"step": "s", "args": {"z": 5}}]},
        *one({**first, "input": {"limit": 2}}, second, input={"limit": 1}, next=["end"]),
        {"step": "end", "tool": {"kind": "transform", "value": "{{ [ctx.x, ctx.y] }}"}},
    ]
    assert await run(box, steps) == [2, 1]
    failing = {
        **value("a", 0, then("continue", "{{ output.error is not none }}")),
        "input": {"n": "{{ 1 / z }}"},
    }
    again = [{**steps[0], "next": [{"step": "s", "args": {"z": 0}}]}, *one(failing, value("b", 7))]
    await box.register(playbook(again))
    box.submit("t")
    await box.settle_with_pauses()
    assert box.document()["result"] == 7


async def test_a_rule_leads_on_from_a_failure(box: Box) -> None:
    """`continue` after an error goes on with nothing; `output.error` says what it was."""
    bears = then("continue", "{{ output.status == 'error' and output.error.code == 'python_raised' }}",
                 set={"ctx.why": "{{ output.error.kind }}"})  # fmt: skip
    steps = one(task("a", "result = 1 / 0", bears), value("b", "{{ [_prev, ctx.why] }}"))
    assert await run(box, steps) == [None, "python_raised"]
    assert told(box)[:2] == [("task.done", "a"), ("step.done", "s")]


async def test_jumps_and_breaks_make_loops(box: Box) -> None:
    """`jump` with state in `iter` pages through, `break` ends with the task's own output."""
    steps = one(
        value("init", 0, then("continue", set_iter={"n": 0, "seen": []})),
        value(
            "page",
            "{{ iter.n * 10 }}",
            then("continue", set={"iter.seen": "{{ iter.seen + [output.data] }}"}),
        ),
        value(
            "more",
            "{{ iter.seen }}",
            then("jump", "{{ iter.n < 3 }}", to="page", set={"iter.n": "{{ iter.n + 1 }}"}),
            then("break"),
        ),
        value("never", "no"),
    )
    assert await run(box, steps) == [0, 10, 20, 30]


async def test_a_pipeline_without_an_end_fails(box: Box) -> None:
    """Jumps that never break are stopped and named."""
    error = await run(box, one(value("a", 1, then("jump", to="a")), value("b", 2)))
    assert error["code"] == "pipeline_endless"


@pytest.mark.parametrize("code", ["result = 'x' * 60_000", "result = int('no number')"])
async def test_a_pipeline_that_gets_too_much_fails(
    box: Box, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Values or problems that no frame could carry back any more are stopped and named."""
    monkeypatch.setattr("edge.worker.pipeline.PIPELINE_BYTES_MAX", 256 * KIB)  # a test box has small segments
    error = await run(box, one(task("page", code, then("jump", to="page"))))
    assert error["code"] == "pipeline_too_large"


async def test_a_rule_may_fail_what_went_well(box: Box) -> None:
    """`fail` on a good outcome fails the step, and says which rule's task it was."""
    error = await run(box, one(value("a", 1, then("fail", "{{ output.data == 1 }}")), value("b", 2)))
    assert (error["code"], error["step"]) == ("failed_by_policy", "s")


@pytest.mark.parametrize(("unmatched", "result"), [("continue", [None]), ("fail", "python_raised")])
async def test_what_no_rule_matches(box: Box, unmatched: str, result: Any) -> None:
    """An outcome no rule matches goes on, or fails where the policy says so."""
    first = task("a", "result = 1 / 0", then("break", "{{ output.status == 'ok' }}"))
    first["spec"]["policy"]["on_unmatched"] = unmatched
    got = await run(box, one(first, value("b", "{{ [_prev] }}")))
    assert (got if unmatched == "continue" else got["code"]) == result


@pytest.mark.parametrize(
    ("backoff", "pauses"), [("none", [500, 500]), ("linear", [500, 1000]), ("exponential", [500, 1000])]
)
async def test_a_retry_pauses_without_a_slot(box: Box, backoff: str, pauses: list[int]) -> None:
    """Between attempts no claim is out; each pause is as long as the backoff says; the record has every attempt."""
    retry = then("retry", "{{ output.status == 'error' }}", attempts=3, delay=0.5, backoff=backoff)
    code = "if attempt < 3: raise ValueError(attempt)\nresult = attempt"
    steps = one(task("a", code, retry, input={"attempt": "{{ _attempt }}"}), value("b", "{{ _prev }}"))
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert (len(box.pauses), box.pool.waiting) == (1, type(box.pool.waiting)())
    assert await box.settle_with_pauses() == pauses
    assert box.document()["result"] == 3
    assert [kind for kind, _ in told(box)] == ["task.done"] * 3 + ["step.done", "playbook.execution.finished"]


async def test_a_retry_that_is_used_up_leaves_the_failure(box: Box) -> None:
    """After the last attempt the step fails with the tool's own error."""
    retry = then("retry", "{{ output.status == 'error' }}", attempts=2)
    error = await run(box, one(task("a", "result = 1 / 0", retry)))
    assert error["code"] == "python_raised"
    done = [event.body for event in box.events() if isinstance(event.body, TaskDone)]
    assert [(body.number, (body.problem or {})["code"]) for body in done] == [
        (0, "python_raised"),
        (1, "python_raised"),
    ]


async def test_a_pause_is_never_longer_than_an_hour(box: Box) -> None:
    """However the backoff grows, a pause ends."""
    retry = then("retry", attempts=4, delay="{{ 3000 }}", backoff="exponential")
    await box.register(playbook(one(task("a", "result = 1", retry))))
    box.submit("t")
    assert await box.settle_with_pauses() == [3_000_000, *[RETRY_DELAY_S_MAX * 1000] * 2]


async def test_a_delay_that_is_no_time_fails_the_step(box: Box) -> None:
    """A delay that gives a text is the step's failure."""
    error = await run(box, one(task("a", "result = 1", then("retry", attempts=2, delay="{{ 'soon' }}"))))
    assert "not a number of seconds" in error["message"]


WRITES: list[dict[str, Any]] = one(
    value("a", 1),
    task("read", "result = _prev + 1", input={"_prev": "{{ _prev }}"}),
    task("write", "result = given * 10", effect="write", input={"given": "{{ _prev }}"}),
    value("between", "{{ _prev + 1 }}"),
    task("again", "result = given * 10", effect="write", input={"given": "{{ _prev }}"}),
    value("end", "{{ [read, write, between, again] }}"),
)


async def test_every_effect_has_its_intent_first(box: Box) -> None:
    """A write inside a pipeline waits for its intent to be durable; reads and writes are recorded, pure tasks not."""
    assert await run(box, WRITES) == [2, 20, 21, 210]
    assert told(box) == [
        ("task.done", "read"),
        ("step.started", "s"),
        ("task.done", "write"),
        ("step.started", "s"),
        ("task.done", "again"),
        ("step.done", "s"),
        ("playbook.execution.finished", None),
    ]
    started = [event.body.number for event in box.events() if isinstance(event.body, StepStarted)]
    assert started == [2, 4]


@pytest.mark.parametrize("on_unknown", ["fail", "retry"])
async def test_a_cut_anywhere_repeats_no_recorded_effect(tmp_path: Path, on_unknown: str) -> None:
    """Cut at every flush, the pipeline goes on from its record: a recorded task never runs again."""
    steps = [{**WRITES[0], "spec": {"on_unknown": on_unknown}}]
    whole = Box(tmp_path / "whole")
    await whole.register(playbook(steps))
    whole.submit("t")
    pictures = []
    while True:
        await whole.gate.flushed()
        pictures.append(whole.photograph(tmp_path / f"cut{len(pictures)}"))
        if not whole.pool.run():
            break
    execution = whole.receipts[0].seq
    await whole.close()
    assert len(pictures) >= 4
    for picture in pictures:
        again = Box(picture)
        await again.settle_with_pauses()
        state = again.engine.state_of(execution)
        events = again.engine.events_of(execution)
        assert fold(events) == state
        numbers = [event.body.number for event in events if isinstance(event.body, TaskDone)]
        assert len(numbers) == len(set(numbers)), "a task has one recorded outcome"
        if state.status == "completed":
            assert numbers == [1, 2, 4]
        else:
            assert (state.problem or {})["code"] == "outcome_unknown"
            assert on_unknown == "fail"
        await again.close()


async def test_a_worker_lost_before_an_effect_costs_nothing(box: Box) -> None:
    """A write pipeline whose worker dies before any intent is simply run again, whatever on_unknown says."""
    lose = [True]

    def answer(work: Any) -> Any:
        if lose and not work.claim.progress.recorded:
            lose.pop()
            return Lost()
        return box.pool.work(work)

    box.pool.answer = answer
    assert await run(box, WRITES) == [2, 20, 21, 210]


async def test_a_table_goes_from_task_to_task(box: Box) -> None:
    """A table is a block between tasks, is recorded where its task read the world, and answers like any other."""
    steps = one(
        task("make", "import pyarrow as pa\nresult = pa.table({'n': [1, 2, 3]})", then("continue")),
        {"name": "keep", "kind": "arrow", "table": "{{ make }}", "ops": [{"filter": "{{ n > 1 }}"}]},
        {"name": "rows", "kind": "arrow", "table": "{{ _prev }}", "ops": [], "output": "rows"},
    )
    assert await run(box, steps) == [{"n": 2}, {"n": 3}]
    made = next(event.body for event in box.events() if isinstance(event.body, TaskDone))
    assert made.table is not None
    assert made.table_bytes is not None


async def test_what_rules_wrote_is_there_for_arcs_and_later_steps(box: Box) -> None:
    """ctx patches of policies are in the outcome's event, before the step's own `set` and arcs are evaluated."""
    steps = [
        {
            "step": "s",
            "tool": [
                value("a", 4, then("continue", set={"ctx.x": "{{ output.data }}", "y": 1})),
                value("b", 5),
            ],
            "set": {"z": "{{ ctx.x + ctx.y }}"},
            "next": [{"step": "t", "when": "{{ ctx.x == 4 and ctx.z == 5 }}"}],
        },
        {"step": "t", "tool": value("v", "{{ [ctx.x, ctx.y, ctx.z] }}")},
    ]
    assert await run(box, steps) == [4, 1, 5]
    done = next(event.body for event in box.events() if isinstance(event.body, StepDone))
    assert done.ctx == {"x": 4, "y": 1, "z": 5}


async def test_a_failed_pipeline_keeps_what_its_rules_wrote(box: Box) -> None:
    """The patches of a pipeline that fails stand in its failure, for the arc that takes it."""
    bad = task("b", "result = 1 / 0")
    steps = [
        {
            "step": "s",
            "tool": [value("a", 4, then("continue", set={"ctx.x": 7})), bad],
            "next": [
                {"step": "t", "when": "{{ event.name == 'step.failed' }}", "args": {"x": "{{ ctx.x }}"}}
            ],
        },
        {"step": "t", "tool": value("v", "{{ [args.x, ctx.x] }}")},
    ]
    assert await run(box, steps) == [7, 7]
    assert next(event.body for event in box.events() if isinstance(event.body, StepFailed)).ctx == {"x": 7}


async def test_results_may_be_read_through_an_envelope(box: Box) -> None:
    """`.data`, `.result`, `.status` of a result read as NoETL's envelope, unless it has such a key itself."""
    steps = [
        {"step": "s", "tool": [value("a", {"x": 1}), value("b", {"y": "{{ a.data.x + _prev.result.x }}", "data": 7})],
         "next": [{"step": "t", "when": "{{ s.status == 'ok' and s.result.y == 2 }}"}]},
        {"step": "t", "tool": value("v", "{{ [s.data, s.y, s.result] }}")},
    ]  # fmt: skip
    assert await run(box, steps) == [7, 2, {"y": 2, "data": 7}]
