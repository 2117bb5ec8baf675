"""`edge playbook test --record`: run a playbook for real, once, and write down what happened as a case.

Called by `edge.cli.playbook_test`. What tools that reach outside gave becomes the case's effects, taken from the
run's own log; how it ended becomes what is expected. The case is run again before it is written, so that one which
does not hold is told at once. It adds to the file of cases and changes nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.cli.inputs import read_input, read_source
from edge.cli.rehearsal_child import rehearse
from edge.cli.run import answer_of, run_once
from edge.cli.subplaybooks import found_below
from edge.core.codec import decode
from edge.core.errors import RequestRefused
from edge.core.events import Event, LoopItems, StepDone, StepFailed, TaskDone
from edge.core.records import record
from edge.core.state import fold
from edge.rehearsal.compare import differences
from edge.rehearsal.stand_ins import RUN_HERE
from edge.store.journal import read_groups
from playbooks.blueprint import Blueprint
from playbooks.model.cases import PROBLEM
from playbooks.nodes import Prepared
from playbooks.shape import Step, Task
from playbooks.walks import inside


def record_case(path: Path, name: str, given: str | None, data: Path | None) -> int:
    """Run the playbook and add the case `name`; 0 where it holds when it is run again, 1 where not.

    Raises RequestRefused.
    """
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
    below, _ = found_below(blueprint, path.resolve().parent, ())
    with run_once(blueprint, payload, content_type, timeout_s=600.0, below=below, data=data) as done:
        events = [
            event
            for _, group, _ in read_groups(done.settings.journal_folder)
            for event in group.events()
            if event.execution == done.seq or event.seq == done.seq
        ]
        result = answer_of(done)
    lines, differ = _tried(_Record(name, json.loads(payload), blueprint, events, result))
    # Read back before it is kept: a value that a case cannot hold is better noticed now.
    before = target.read_text("utf-8") if target.exists() else "cases:\n"
    added = ("" if before.endswith("\n") else "\n") + "\n".join(lines) + "\n"
    read_cases((before + added).encode(), str(target))
    add_to(target, added if target.exists() else before + added)
    if not differ:
        print(f"{target}: case {name!r} is written, and holds when it is run again; look at what it expects.")
        return 0
    print(f"{target}: case {name!r} is written, but is not as expected when it is run again:")
    for line in differ:
        print(f"    {line}")
    print("What varies from run to run cannot be expected: take it out of the case's `expect`.")
    return 1


def add_to(target: Path, text: str) -> None:
    """Add text to the end of a file, or leave it as it was: a full drive must not cost the cases there were.

    Raises OSError.
    """
    with target.open("ab", buffering=0) as file:
        before_bytes = file.tell()
        data = text.encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(before_bytes)
            raise


@record
class _Record:
    """One run that is to become a case."""

    name: str
    given: dict[str, Any]
    blueprint: Blueprint
    events: list[Event]
    result: Any

    def expected(self) -> dict[str, Any]:
        """How the run ended, as a case expects it."""
        state = fold(self.events)
        path = [event.step for event in self.events if isinstance(event.body, StepDone | StepFailed)]
        made: dict[str, Any] = {"status": state.status, "path": path}
        if state.problem is not None:
            made["problem"] = state.problem.get("code")
        elif self.result is not None:
            made["result"] = self.result
        if state.ctx:
            made["ctx"] = state.ctx
        return made

    def lines(self, effects: list[dict[str, Any]]) -> list[str]:
        """The case as lines of YAML; values stand in JSON, which is YAML. Raises RequestRefused."""
        lines = [f"  - case: {_json(self.name)}", f"    input: {_json(self.given)}"]
        if keychain := _made_up(self.blueprint):
            lines.append(f"    keychain: {_json(keychain)}")
        if effects:
            lines += ["    effects:", *(f"      - {_json(effect)}" for effect in effects)]
        return [
            *lines,
            "    expect:",
            *(f"      {key}: {_json(said)}" for key, said in self.expected().items()),
        ]


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


@record
class _Effect:
    """What a task gave. `maybe`: the log does not say whether it was this one that ended its pipeline."""

    said: dict[str, Any]
    maybe: bool = False


def _tried(record: _Record) -> tuple[list[str], list[str]]:
    """`(the run as a case, how that differs when it is run again)`.

    Each task that may have ended its pipeline is tried with that outcome; what nothing asks for is taken out.
    Blocks that only read are run in a case; where it does not hold so, since what they give varies, what they gave is
    taken from the record too. Raises RequestRefused.
    """
    tries = []
    for whole in (False, True):
        found = [each for event in record.events for each in _effects(event, record.blueprint, whole=whole)]
        run = _run_again(record, [each.said for each in found])
        asked = run.get("asked", [])
        kept = [each.said for each, used in zip(found, asked, strict=True) if used or not each.maybe]
        differ = differences(record.expected(), _run_again(record, kept))
        tries.append((record.lines(kept), differ))
        if not differ:
            break
    return min(tries, key=lambda each: len(each[1]))


def _run_again(record: _Record, effects: list[dict[str, Any]]) -> dict[str, Any]:
    """What becomes of the case."""
    from playbooks.cases import read_cases

    text = "\n".join(["cases:", *record.lines(effects), ""])
    return rehearse([(record.blueprint.data, read_cases(text.encode(), "what was recorded").cases[0])])[0]


def _effects(event: Event, blueprint: Blueprint, *, whole: bool) -> Iterator[_Effect]:
    """What an event says of tools that reached outside; with `whole`, of blocks that only read too."""
    body = event.body
    if not isinstance(body, TaskDone | StepDone | StepFailed | LoopItems):
        return
    step = blueprint.steps[blueprint.step_index[event.step or ""]]
    maybe = False
    if isinstance(body, TaskDone):
        tasks = [task for task in step.tasks if task.name == body.task]
    elif step.loop is not None and not isinstance(body, LoopItems):
        return  # its items have events of their own
    else:
        # The last outcome of a pipeline is the step's and has no event of its own; a failure always has.
        tasks, maybe = list(step.tasks), step.pipeline
        if maybe and isinstance(body, StepFailed):
            return
    for task in tasks:
        if _reaches_out(task, whole=whole):
            for said in _outcomes(
                event, step, {"task": task.name} if len(step.tasks) > 1 else {}, maybe, blueprint
            ):
                yield _Effect(said, maybe)


def _reaches_out(task: Task, *, whole: bool) -> bool:
    """Whether a case says what the task gave, in place of running it."""
    if task.effect == "write" or task.kind not in RUN_HERE:
        return task.effect != "pure"
    return whole and task.effect == "read" and task.kind != "wait"


def _outcomes(
    event: Event, step: Step, named: dict[str, Any], maybe: bool, blueprint: Blueprint
) -> Iterator[dict[str, Any]]:
    """One outcome, or those of a loop's items. Raises RequestRefused where it cannot stand in a case."""
    body = event.body
    made: dict[str, Any] = {"step": step.name, **named}
    if event.visit or _comes_back(step, blueprint):
        made["visit"] = event.visit
    if event.iteration:
        made["item"] = event.iteration[0]
    if isinstance(body, LoopItems):
        failed = body.failed or {}
        for item, value in enumerate(decode(body.results), body.first):
            if item not in failed:
                yield {**made, "item": item, "value": value}
            elif not maybe:
                yield {**made, "item": item, **_problem(failed[item])}
    elif isinstance(body, TaskDone | StepDone) and body.value is not None:
        yield {**made, "value": decode(body.value)}
    elif isinstance(body, TaskDone | StepFailed) and body.problem is not None:
        yield {**made, **_problem(body.problem)}
    elif not maybe:
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
