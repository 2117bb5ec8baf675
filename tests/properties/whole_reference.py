"""A second, slow reading of a whole playbook: pipelines under policies, loops, arcs; nothing of the core.

It works on the plain model that `whole_playbooks` draws and renders, in the playbook's order, which is enough where
arcs lead forward only: a step that any branch comes to runs once, after all that can come to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALWAYS = 99
RUNS_MAX = 1_000
WAITED = "waited"

Model = dict[str, dict[str, Any]]
"""Step name to its parts, in the playbook's order; see `whole_playbooks.models`."""


@dataclass
class End:
    """How it ended. `fatal` are the steps whose failure nothing bears; which comes first is chance."""

    answer: Any = None
    ran: set[str] = field(default_factory=set)
    results: dict[str, Any] = field(default_factory=dict)
    ctx: dict[str, Any] = field(default_factory=dict)
    fatal: set[str] = field(default_factory=set)

    @property
    def status(self) -> str:
        """As the execution's status says it."""
        return "failed" if self.fatal else "completed"


def run(model: Model) -> End:
    """Run every step that a branch comes to."""
    end = End()
    reached = {next(iter(model))}
    answer = None
    for name, step in model.items():
        if name not in reached:
            continue
        end.ran.add(name)
        ok, value, written = _step(name, step, end.results)
        end.ctx |= written
        if ok:
            end.results[name] = value
            if step["set"]:
                end.ctx[f"k_{name}"] = number(value)
        on = _taken(step, number(value) if ok else None)
        reached |= set(on)
        if ok and not on:
            answer = name
        if not ok and not on and not step["best_effort"]:
            end.fatal.add(name)
    end.answer = None if answer is None else end.results[answer]
    return end


def number(value: Any) -> int:
    """A result as arcs and later steps look at it: lists by their sum, what is no number as nothing."""
    if isinstance(value, list):
        return sum(number(each) for each in value)
    return value if type(value) is int else 0


def _taken(step: dict[str, Any], value: int | None) -> list[str]:
    on = []
    for target, condition in step["arcs"]:
        if value is None:
            holds = condition == "failed"
        else:
            holds = condition is None or (condition != "failed" and value % condition == 0)
        if holds:
            on.append(target)
            if step["mode"] == "exclusive":
                break
    return on


def _step(name: str, step: dict[str, Any], results: dict[str, Any]) -> tuple[bool, Any, dict[str, Any]]:
    seen = sum(number(results.get(other)) for other in step["reads"])
    if step["items"] is None:
        return _tool(name, step, seen)
    values = []
    for item in step["items"]:
        ok, value, _ = _tool(name, step, seen + item)
        if not ok and not step["best_effort"]:
            return False, None, {}
        values.append(value if ok else None)
    return True, values, {}


def _tool(name: str, step: dict[str, Any], given: int) -> tuple[bool, Any, dict[str, Any]]:
    if step["tasks"] is not None:
        return _pipeline(name, step, given)
    value = given + step["gives"]
    if step["fails"] and value % step["fails"] == 0:
        return False, None, {}
    return True, value, {}


def _pipeline(name: str, step: dict[str, Any], given: int) -> tuple[bool, Any, dict[str, Any]]:
    tasks, written = step["tasks"], {}
    place, attempt, previous, jumps = 0, 1, None, 0
    for _ in range(RUNS_MAX):
        task = tasks[place]
        ok = attempt >= task["succeeds_at"]
        value = (WAITED if task["waits"] else number(previous) + given + task["gives"]) if ok else None
        rule = _rule(task, ok, value, jumps)
        do = rule["do"] if rule is not None else "continue" if ok or task["rules"] else "fail"
        if do == "retry" and rule is not None and attempt >= rule["attempts"]:
            rule, do = None, "continue" if ok else "fail"
        if rule is not None and rule["set"]:
            written[f"c_{name}_{task['name']}"] = attempt
        if do == "fail":
            return False, None, written
        if do == "retry":
            attempt += 1
            continue
        previous, attempt = value, 1
        if do == "jump" and rule is not None:
            jumps += 1
            place = rule["to"]
        else:
            place += 1
        if do == "break" or place >= len(tasks):
            return True, previous, written
    raise AssertionError("the model's pipeline has no end")


def _rule(task: dict[str, Any], ok: bool, value: Any, jumps: int) -> dict[str, Any] | None:
    for rule in task["rules"]:
        asked = {None: True, "ok": ok, "error": not ok, "odd": type(value) is int and value % 2 == 1}
        if asked[rule["when"]] and not (rule["do"] == "jump" and jumps >= 2):
            return rule  # type: ignore[no-any-return]
    return None
