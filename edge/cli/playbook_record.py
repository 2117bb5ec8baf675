"""`edge playbook test --record`: run a playbook for real, once, and write down what happened as a case.

Called by `edge.cli.playbook_test`. What tools that reach outside gave becomes the case's effects, taken from the
run's own log; how it ended becomes what is expected. It adds to the file of cases and changes nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.cli.inputs import read_input, read_source
from edge.cli.run import answer_of, run_once
from edge.cli.subplaybooks import found_below
from edge.core.codec import decode
from edge.core.errors import RequestRefused
from edge.core.events import Event, LoopItems, StepDone, StepFailed, TaskDone
from edge.core.state import fold
from edge.rehearsal.stand_ins import RUN_HERE
from edge.store.journal import read_groups
from playbooks.blueprint import Blueprint
from playbooks.model.cases import PROBLEM
from playbooks.nodes import Prepared
from playbooks.shape import Step
from playbooks.walks import inside


def record_case(path: Path, name: str, given: str | None, data: Path | None) -> int:
    """Run the playbook and add the case `name`; 0 where it is written. Raises RequestRefused."""
    from playbooks.cases import ENDING, read_cases
    from playbooks.compile import compile_playbook

    source = read_source(path)
    blueprint = compile_playbook(source, str(path))
    target = path.with_name(path.stem + ENDING)
    if target.exists() and name in (case.name for case in read_cases(read_source(target), str(target)).cases):
        raise RequestRefused(f"{target} has a case {name!r} already.", mend="Give this one another name.")
    payload, content_type = read_input(given)
    if content_type != "application/json":
        raise RequestRefused("A case's input is a map.", mend="Give --input as JSON.")
    lines: list[str] = []
    below, _ = found_below(blueprint, path.resolve().parent, ())
    with run_once(blueprint, payload, content_type, timeout_s=600.0, below=below, data=data) as done:
        events = [
            event
            for _, group, _ in read_groups(done.settings.journal_folder)
            for event in group.events()
            if event.execution == done.seq or event.seq == done.seq
        ]
        result = answer_of(done)
        lines = case_lines(name, json.loads(payload), blueprint, events, result)
    # Read back before it is kept: a value that a case cannot hold is better noticed now.
    before = target.read_text("utf-8") if target.exists() else "cases:\n"
    text = before + ("" if before.endswith("\n") else "\n") + "\n".join(lines) + "\n"
    read_cases(text.encode(), str(target))
    target.write_text(text, "utf-8")
    print(f"{target}: case {name!r} is written; look at what it expects.")
    return 0


def case_lines(
    name: str, given: dict[str, Any], blueprint: Blueprint, events: list[Event], result: Any
) -> list[str]:
    """The case as lines of YAML; values stand in JSON, which is YAML."""
    state = fold(events)
    lines = [f"  - case: {_json(name)}", f"    input: {_json(given)}"]
    if keychain := _made_up(blueprint):
        lines.append(f"    keychain: {_json(keychain)}")
    effects = [each for event in events for each in _effects(event, blueprint)]
    if effects:
        lines += ["    effects:", *(f"      - {_json(effect)}" for effect in effects)]
    path = [event.step for event in events if isinstance(event.body, StepDone | StepFailed)]
    lines += ["    expect:", f"      status: {state.status}", f"      path: {_json(path)}"]
    if state.problem is not None:
        lines.append(f"      problem: {_json(state.problem.get('code'))}")
    elif result is not None:
        lines.append(f"      result: {_json(result)}")
    if state.ctx:
        lines.append(f"      ctx: {_json(state.ctx)}")
    return lines


def _made_up(blueprint: Blueprint) -> dict[str, dict[str, str]]:
    """Credentials for the blocks that a rehearsal runs: the aliases they are granted, the fields anybody reads."""
    tasks = [task for step in blueprint.steps for task in step.tasks]
    run = [task for task in tasks if task.kind in RUN_HERE and task.effect != "write"]
    made: dict[str, dict[str, str]] = {alias: {} for task in run for alias in task.access.keychain}
    trees = [step.input for step in blueprint.steps] + [task.input for task in tasks]
    trees += [value for task in run for value in task.config.values() if isinstance(value, Prepared)]
    left = [tree.node for tree in trees if tree is not None]
    while left:
        node = left.pop()
        left.extend(inside(node))
        if node[0] == "attr" and node[1][0] == "attr" and node[1][1] == ["name", "keychain"]:
            made.get(node[1][2], {})[node[2]] = f"made-up-{node[2]}"
    return made


def _effects(event: Event, blueprint: Blueprint) -> Iterator[dict[str, Any]]:
    """What an event says of tools that reached outside."""
    body = event.body
    if not isinstance(body, TaskDone | StepDone | StepFailed | LoopItems):
        return
    step = blueprint.steps[blueprint.step_index[event.step or ""]]
    if isinstance(body, TaskDone):
        task = next(task for task in step.tasks if task.name == body.task)
    elif not step.pipeline and (step.loop is None or isinstance(body, LoopItems)):
        task = step.tasks[0]
    else:
        return  # its tools have events of their own
    if task.kind in RUN_HERE and task.effect != "write":
        return
    made: dict[str, Any] = {"step": step.name}
    if len(step.tasks) > 1:
        made["task"] = task.name
    if event.visit or _comes_back(step, blueprint):
        made["visit"] = event.visit
    if event.iteration:
        made["item"] = event.iteration[0]
    if isinstance(body, LoopItems):
        failed = body.failed or {}
        for item, value in enumerate(decode(body.results), body.first):
            outcome = _problem(failed[item]) if item in failed else {"value": value}
            yield {**made, "item": item, **outcome}
    elif isinstance(body, TaskDone | StepDone) and body.value is not None:
        yield {**made, "value": decode(body.value)}
    elif not isinstance(body, StepDone) and body.problem is not None:
        yield {**made, **_problem(body.problem)}
    else:
        raise RequestRefused(
            f"Step {step.name} got a table or a large value from outside.",
            mend="A case holds values of up to 64 KiB; write this one by hand.",
        )


def _problem(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem as a case has it."""
    return {"problem": {key: problem[key] for key in PROBLEM.names if key in problem}}


def _comes_back(step: Step, blueprint: Blueprint) -> bool:
    """Whether an arc leads back to the step, so that it may have several visits."""
    here = blueprint.step_index[step.name]
    return any(arc.back and arc.target == here for each in blueprint.steps for arc in each.arcs)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestRefused(
            f"What happened cannot be written as JSON: {error}", mend="Write this case by hand."
        ) from error
