"""Random whole playbooks: a plain model for the reference interpreter, and the same as NoETL's YAML says it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from edge.testing.plain import playbook
from playbooks.blueprint import Blueprint
from tests.properties.whole_reference import ALWAYS, Model

STEPS_MAX = 5


@st.composite
def rules(draw: st.DrawFn, tasks: int) -> dict[str, Any]:
    """One rule of a task's policy; a jump goes anywhere and is taken twice at most."""
    when, do = draw(
        st.one_of(
            st.sampled_from([("error", "retry"), ("error", "retry"), ("ok", "continue"), ("odd", "jump")]),
            st.tuples(
                st.sampled_from([None, "ok", "error", "odd"]),
                st.sampled_from(["continue", "retry", "jump", "break", "fail"]),
            ),
        )
    )
    return {
        "when": when,
        "do": do,
        "attempts": draw(st.integers(2, 4)),
        "delay": draw(st.sampled_from([None, None, 2])),
        "to": draw(st.integers(0, tasks - 1)),
        "set": draw(st.integers(0, 2)) > 0,
    }


@st.composite
def pipelines(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Two or three tasks: some fail at first or always, some wait."""
    count = draw(st.integers(2, 3))
    made = []
    for place in range(count):
        waits = draw(st.integers(0, 5)) == 0
        made.append(
            {
                "name": f"t{place}",
                "gives": draw(st.integers(0, 9)),
                "succeeds_at": 1 if waits else draw(st.sampled_from([1, 1, 2, 2, 3, ALWAYS])),
                "pure": draw(st.booleans()),
                "waits": waits,
                "rules": draw(st.lists(rules(count), max_size=2)),
            }
        )
    return made


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Up to five steps, each a value, a pipeline, or a loop over one of these; arcs lead forward."""
    count = draw(st.integers(1, STEPS_MAX))
    made: Model = {}
    for place in range(count):
        mode = draw(st.sampled_from(["exclusive", "inclusive"]))
        arcs: list[tuple[str, Any]] = []
        for target in draw(st.lists(st.integers(0, count - 1), max_size=3)):
            condition = draw(st.sampled_from([None, 1, 2, 3, "failed"]))
            # The compiler refuses an arc that can never be taken.
            hidden = mode == "exclusive" and condition != "failed" and any(known is None for _, known in arcs)
            if target > place and not hidden:
                arcs.append((f"s{target}", condition))
        made[f"s{place}"] = {
            "gives": draw(st.integers(0, 9)),
            "fails": draw(st.sampled_from([None, None, 2, 5])),
            "tasks": draw(st.one_of(st.none(), pipelines())),
            "items": draw(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=9))),
            "parallel": draw(st.booleans()),
            "in_flight": draw(st.sampled_from([None, 1, 2])),
            "reads": [],
            "arcs": arcs,
            "mode": mode,
            "best_effort": draw(st.booleans()),
            "set": draw(st.booleans()),
        }
        # Only what must have settled before it: those whose arcs lead here.
        made[f"s{place}"]["reads"] = [
            name for name, step in made.items() if any(target == f"s{place}" for target, _ in step["arcs"])
        ]
    return made


def compiled(model: Model, path: str = "t") -> Blueprint:
    """The model as a playbook."""
    return playbook([_step(name, step, model) for name, step in model.items()], path)


def _step(name: str, step: dict[str, Any], model: Model) -> dict[str, Any]:
    loop = step["items"] is not None
    seen = " + ".join([_read(other, model) for other in step["reads"]] + (["item"] if loop else []) + ["0"])
    tool: Any = _value(step)
    if step["tasks"] is not None:
        tool = [_task(name, task, step) for task in step["tasks"]]
    made: dict[str, Any] = {
        "step": name,
        "input": {"given": f"{{{{ {seen} }}}}"},
        "spec": {"policy": {"failure": {"mode": "best_effort" if step["best_effort"] else "fail_fast"}}},
        "tool": tool,
    }
    if loop:
        spec: dict[str, Any] = {"mode": "parallel" if step["parallel"] else "sequential"}
        if step["in_flight"] and step["parallel"]:
            spec["max_in_flight"] = step["in_flight"]
        made["loop"] = {"in": step["items"], "iterator": "item", "spec": spec}
    if step["set"]:
        made["set"] = {f"ctx.k_{name}": f"{{{{ {_read(name, model)} }}}}"}
    if step["arcs"]:
        arcs = [_arc(name, target, condition, model) for target, condition in step["arcs"]]
        made["next"] = {"spec": {"mode": step["mode"]}, "arcs": arcs}
    return made


def _read(name: str, model: Model) -> str:
    """An expression for a step's result as a number, 0 where there is none."""
    if model[name]["items"] is not None:
        return f"({name} | default([]) | select('number') | list | sum)"
    return _as_number(name)


def _as_number(name: str) -> str:
    return f"(({name} | default(0)) if ({name} | default(0)) is number else 0)"


def _arc(name: str, target: str, condition: Any, model: Model) -> dict[str, Any]:
    if condition is None:
        return {"step": target}
    if condition == "failed":
        return {"step": target, "when": "{{ event.name == 'step.failed' }}"}
    return {"step": target, "when": f"{{{{ {_read(name, model)} % {condition} == 0 }}}}"}


def _value(step: dict[str, Any]) -> dict[str, Any]:
    if not step["fails"]:
        return {"kind": "transform", "value": f"{{{{ given + {step['gives']} }}}}"}
    code = f"n = given + {step['gives']}\nif n % {step['fails']} == 0:\n    raise ValueError(n)\nresult = n"
    return {"kind": "python", "code": code, "spec": {"effect": "read"}}


def _task(name: str, task: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": task["name"]}
    if task["waits"]:
        made |= {"kind": "wait", "seconds": 1}
    elif task["succeeds_at"] == 1 and task["pure"]:
        value = f"{{{{ {_as_number('_prev')} + given + {task['gives']} }}}}"
        made |= {"kind": "transform", "value": value}
    else:
        code = (
            f"if attempt < {task['succeeds_at']}:\n    raise ValueError(attempt)\n"
            f"result = (prev if isinstance(prev, int) else 0) + given + {task['gives']}"
        )
        # A block declared pure has a process of its own: it shares no pipeline with what is not.
        made |= {"kind": "python", "code": code, "spec": {"effect": "read"}}
        made["input"] = {"prev": "{{ _prev }}", "attempt": "{{ _attempt }}"}
    if task["rules"]:
        policy = {"rules": [_rule(name, task, rule, step) for rule in task["rules"]]}
        made["spec"] = {**made.get("spec", {}), "policy": policy}
    return made


def _rule(name: str, task: dict[str, Any], rule: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    then: dict[str, Any] = {"do": rule["do"]}
    when = {
        None: "true",
        "ok": "output.status == 'ok'",
        "error": "output.status == 'error'",
        "odd": "output.status == 'ok' and output.result is number and output.result % 2 == 1",
    }[rule["when"]]
    writes: dict[str, str] = {}
    if rule["set"] and step["items"] is None:
        writes[f"ctx.c_{name}_{task['name']}"] = "{{ _attempt }}"
    if rule["do"] == "retry":
        then["attempts"] = rule["attempts"]
        if rule["delay"] is not None:
            then["delay"] = rule["delay"]
    elif rule["do"] == "jump":
        then["to"] = f"t{rule['to']}"
        when = f"({when}) and (iter.j | default(0)) < 2"
        writes["iter.j"] = "{{ (iter.j | default(0)) + 1 }}"
    if writes:
        then["set"] = writes
    return {"when": f"{{{{ {when} }}}}", "then": then}
