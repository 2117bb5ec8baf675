"""Names that published NoETL playbooks use and that stand for something of another name here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.testing.box import Box
from edge.testing.plain import playbook


async def result(box: Box, steps: list[dict[str, Any]], **root: Any) -> Any:
    """What the playbook answers."""
    await box.register(playbook(steps, **root))
    box.submit("t")
    await box.settle()
    document = json.loads(box.answers[-1].payload)
    assert document["status"] == "completed", document
    return document["result"]


def transform(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"step": name, "tool": {"kind": "transform", "value": value}, **more}


async def test_loop_says_where_it_is(box: Box) -> None:
    """In a loop's tools `loop`, `_first` and `_last` say what NoETL's engine says."""
    value = {
        "n": "{{ loop.index }}/{{ loop.length }}",
        "ends": ["{{ loop.first }}", "{{ _first }}", "{{ _last }}"],
    }
    found = await result(box, [transform("a", value, loop={"in": ["x", "y", "z"], "iterator": "i"})])
    assert found == [
        {"n": "0/3", "ends": [True, True, False]},
        {"n": "1/3", "ends": [False, False, False]},
        {"n": "2/3", "ends": [False, False, True]},
    ]


async def test_result_in_a_set_is_the_steps_own(box: Box) -> None:
    """`result`, `result.data` and `output.result.data` are the result in whatever envelope an author sees it."""
    names = {
        "ctx.one": "{{ result.data[0] if result.data else '' }}",
        "ctx.two": "{{ output.result.data | length }}",
    }
    end = transform(
        "end", ["{{ one }}", "{{ two }}", "{{ a.result.data[1] }}", "{{ job.id == execution_id }}"]
    )
    assert await result(box, [transform("a", [5, 6], set=names, next=["end"]), end]) == [5, 2, 6, True]


async def test_a_key_of_the_result_comes_before_the_envelope(box: Box) -> None:
    """Where a result has a key `data` of its own, that is what `.data` gives, at every level."""
    value = {"data": {"data": 1, "x": 2}}
    names = {"ctx.one": "{{ result.data.data }}", "ctx.two": "{{ output.data.data.x }}"}
    end = transform("end", ["{{ one }}", "{{ two }}", "{{ a.data.x }}"])
    assert await result(box, [transform("a", value, set=names, next=["end"]), end]) == [1, 2, 2]


async def test_error_in_an_arc_is_the_steps_own(box: Box) -> None:
    """`error` leads a failure on as `output.error` does."""
    broken = transform(
        "a", "{{ 1 / workload.zero }}", next=[{"step": "end", "when": "{{ error is not none }}"}]
    )
    assert await result(box, [broken, transform("end", "led on")], workload={"zero": 0}) == "led on"


async def test_a_workload_key_keeps_its_meaning(box: Box) -> None:
    """A playbook whose own values are called so sees these."""
    steps = [
        transform("a", 1, set={"seen": "{{ result }}{{ job }}"}, next=["end"]),
        transform("end", "{{ seen }}"),
    ]
    assert await result(box, steps, workload={"result": "r", "job": "j"}) == "rj"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ yes_step.category if yes_step else no_step.category }}", "high"),
        ("{{ no_step.category if no_step else yes_step.category }}", "high"),
        ("{{ (no_step or yes_step).category }}", "high"),
        ("{{ 'ran' if no_step.status else 'not' }}", "not"),
        ("{% if not no_step %}not{% endif %}", "not"),
    ],
)
async def test_a_step_that_has_not_run_is_false(box: Box, text: str, wanted: str) -> None:
    """After an exclusive choice the step that was not chosen can be asked for; it counts as false."""
    value = {"category": "high"}
    arcs = [{"step": "yes_step", "when": "{{ workload.go }}"}, {"step": "no_step"}]
    steps = [
        {"step": "start", "next": {"spec": {"mode": "exclusive"}, "arcs": arcs}},
        transform("yes_step", value, next=["end"]),
        transform("no_step", value, next=["end"]),
        transform("end", text),
    ]
    assert await result(box, steps, workload={"go": True}) == wanted


@pytest.mark.parametrize(
    "rule",
    [
        "{{ output.error.retryable }}",
        "{{ outcome.http.status in [429, 503] }}",
        "{{ outcome.pg.code == '40001' }}",
        "{{ outcome.py.exception_type and true }}",
    ],
)
async def test_what_an_outcome_does_not_have_is_false(box: Box, rule: str) -> None:
    """A rule may ask for what only an error, or only another kind of tool, would have: it does not hold."""
    rules = [{"when": rule, "then": {"do": "fail"}}, {"else": {"then": {"do": "continue"}}}]
    tool = {"kind": "transform", "value": 5, "spec": {"policy": {"rules": rules}}}
    assert await result(box, [{"step": "a", "tool": [{"one": tool}]}]) == 5


async def test_context_of_a_step_is_its_result(box: Box) -> None:
    """`step.context.x` reads a result as NoETL's envelope lays it out."""
    steps = [transform("a", {"x": 3}, next=["end"]), transform("end", "{{ a.context.x }}")]
    assert await result(box, steps) == 3


@pytest.mark.parametrize(
    "when",
    [
        "{{ 7 == n }}",
        "{{ 1 < n < 9 }}",
        "{% if n > 3 %}true{% else %}false{% endif %}",
        "{% for x in [1] %}{{ n == 7 }}{% endfor %}",
    ],
)
async def test_a_condition_that_begins_with_no_name_is_asked_when_it_is_time(box: Box, when: str) -> None:
    """Where a name stands only behind a comparison or in a statement, the arc is not decided while compiling."""
    steps = [transform("a", 1, next=[{"step": "end", "when": when}]), transform("end", "taken")]
    assert await result(box, steps, workload={"n": 7}) == "taken"
