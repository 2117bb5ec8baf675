"""Templates in `workload`: worked out once when the execution starts, from the request and the blueprint alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import EvaluationFailed, RequestRefused
from edge.testing.box import Box
from edge.testing.plain import playbook
from playbooks.blueprint import Blueprint
from playbooks.compile import check_playbook
from playbooks.start import start_workload

SHOW = [{"step": "show", "tool": {"kind": "transform", "value": {"seen": "{{ workload }}"}}}]
WORKLOAD: dict[str, Any] = {
    "url": "{{ workload.base.url }}/v1/{{ path }}",
    "base": {"host": "box", "url": "http://{{ workload.base.host }}:{{ port }}"},
    "port": "{{ 8000 + offset }}",
    "offset": 80,
    "path": "sum",
    "test_id": "run_{{ execution_id }}",
    "list": [1, "{{ offset }}", {"deep": "{{ list_size | default(3) }}"}],
    "many": "[{% for x in [1, 2] %}{{ x * workload.offset }}{% if not loop.last %},{% endif %}{% endfor %}]",
}


def started(workload: dict[str, Any], given: dict[str, Any] | None = None) -> Any:
    return start_workload(playbook(SHOW, workload=workload), given or {}, "log-7")


def test_templates_see_each_other_in_whatever_order() -> None:
    """What a template needs of others is worked out first; whole expressions and statements keep their kind."""
    assert started(WORKLOAD) == {
        "url": "http://box:8080/v1/sum",
        "base": {"host": "box", "url": "http://box:8080"},
        "port": 8080,
        "offset": 80,
        "path": "sum",
        "test_id": "run_log-7",
        "list": [1, 80, {"deep": 3}],
        "many": [80, 160],
    }


@pytest.mark.parametrize("name", ["item", "name", "attr", "step", "x"])
def test_a_loop_may_call_its_element_anything(name: str) -> None:
    """What a `for` calls its element is no node, even where nodes are called so."""
    text = f"{{% for {name}, other in pairs %}}{{{{ {name} }}}}{{{{ other }}}}{{% endfor %}}"
    alone = f"{{% for {name} in pairs %}}{{{{ {name} | first }}}}{{% endfor %}}"
    found = started({"pairs": [["a", "b"]], "text": text, "alone": alone})
    assert (found["text"], found["alone"]) == ("ab", "a")


def test_the_request_goes_over_templates() -> None:
    """A value of the request replaces a template, is seen by the others, and is never itself one."""
    found = started(WORKLOAD, {"base": {"host": "{{ 1 + 1 }}"}, "port": 1, "list": 5, "list_size": 9})
    assert found["base"] == {"host": "{{ 1 + 1 }}", "url": "http://{{ 1 + 1 }}:1"}
    assert (found["port"], found["list"]) == (1, 5)
    assert started(WORKLOAD, {"list_size": 9})["list"] == [1, 80, {"deep": 9}]
    assert started({"a": {"b": "{{ 1 / 0 }}"}}, {"a": {"b": None}}) == {"a": {"b": None}}
    assert started({"a": {"b": "{{ 1 / 0 }}"}}, {"a": 2}) == {"a": 2}


def test_the_blueprint_is_left_as_it_was() -> None:
    """Working out a workload changes no container of the blueprint: the next execution starts from the same."""
    blueprint = playbook(SHOW, workload=WORKLOAD)
    before = json.dumps(blueprint.workload)
    first = start_workload(blueprint, {}, "a")
    assert start_workload(blueprint, {}, "b")["test_id"] == "run_b"
    assert first["test_id"] == "run_a"
    assert json.dumps(blueprint.workload) == before


def test_a_workload_without_templates_is_evaluated_by_nobody() -> None:
    """Its blueprint has no part for templates at all."""
    assert playbook(SHOW, workload={"a": 1}).defaults == ()
    assert Blueprint.decode(playbook(SHOW, workload=WORKLOAD).data).defaults[0][0] == ("port",)


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ("{a: '{{ b }}', b: '{{ a }}'}", "`b` and `a` need each other"),
        ("{a: '{{ workload.a }}'}", "`a` needs itself"),
        ("{a: '{{ workload }}'}", "`a` needs itself"),
        ("{a: '{{ ctx.x }}'}", "'ctx' means nothing in `workload`"),
        ("{a: '{{ now() }}'}", "no function now()"),
        ("{a: '{{ keychain.x }}'}", "'keychain' means nothing"),
        ("{a: '{{ s.x }}'}", "cannot look at the result of 's'"),
        ("{a: [1, '{{ 1 + }}']}", "This is no expression"),
    ],
)
def test_what_is_refused(workload: str, said: str) -> None:
    """Circles, names that do not exist yet and what is no expression are refused while compiling."""
    source = (
        f"apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: t, path: t}}\nworkload: {workload}\n"
    )
    (problem,) = check_playbook(f"{source}workflow: [{{step: s, tool: {{kind: noop}}}}]\n".encode(), "p.yaml")
    assert said in problem.message
    assert problem.line == 4


def test_all_templates_share_one_budget() -> None:
    """A workload of many costly templates ends with what it ran out of."""
    with pytest.raises(EvaluationFailed) as caught:
        started({f"k{index}": "{{ range(3000) | map('abs') | list | length }}" for index in range(20)})
    assert caught.value.problem_code in ("expression_too_long", "expression_too_large")
    assert caught.value.message.startswith("`workload.k")


async def test_a_request_whose_workload_fails_is_refused(box: Box) -> None:
    """It is told so at once, with the place, and nothing of it is in the log."""
    await box.register(playbook(SHOW, workload={"a": "{{ 10 / workload.by }}", "by": 2}))
    with pytest.raises(RequestRefused) as caught:
        box.submit("t", b'{"by": 0}')
    assert caught.value.problem_code == "workload_failed"
    assert caught.value.message == "`workload.a`: A number is divided by zero."
    box.submit("t", b'{"by": 4}')
    await box.settle()
    assert box.document()["result"] == {"seen": {"a": 2.5, "by": 4}}


async def test_a_restart_works_out_the_same(tmp_path: Path) -> None:
    """After a power cut the workload is made again from the log and is the same to the byte."""
    box = Box(tmp_path / "a")
    steps = [{"step": "one", "spec": {"effect": "read"}, "tool": {"kind": "python", "code": "result = 1"}}]
    await box.register(playbook(steps, workload=WORKLOAD))
    box.submit("t", b'{"offset": 5}')
    await box.gate.flushed()
    (before,) = [live.workload_bytes for live in box.engine.executor.open.values()]
    restarted = Box(box.photograph(tmp_path / "b"))
    box.pool.waiting.clear()
    await box.close()
    (after,) = [live.workload_bytes for live in restarted.engine.executor.open.values()]
    assert after == before
    await restarted.close()
