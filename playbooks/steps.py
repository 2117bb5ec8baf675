"""One step of a playbook: from its marked nodes to its part of the blueprint.

Called by `playbooks.compile` for each step, after the names of all steps are known. Problems are noted in
the source; the result is of use only where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.limits import STEP_MEMORY_MB, STEP_TIMEOUT_MS, STEP_TIMEOUT_MS_MAX
from playbooks.arcs import NextOutline, outline_next, read_arcs, scoped_writes
from playbooks.credentials import check_aliases
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import fields, text
from playbooks.grants import compiled
from playbooks.kinds import kind_of
from playbooks.loader import Mapping_, Marked
from playbooks.loops import ITERATION_NAMES, iterator_of, read_loop
from playbooks.model.policy import SPEC
from playbooks.model.workflow import NAME_PATTERN, STEP
from playbooks.names import Known, Names, Reads
from playbooks.nodes import RESERVED_NAMES
from playbooks.problems import Source
from playbooks.spec import Spec, overlay, read_admit, read_spec
from playbooks.tasks import (
    TaskOutline,
    grants_node,
    outline_tasks,
    read_inputs,
    read_task,
    refuse_odd_effect,
    refuse_pure_grants,
    strongest,
    tree_of,
)
from playbooks.templates import compile_tree
from playbooks.workbook import Templates

#: Kinds that bind their process; they share it with a pure block only where they are pure too.
_AUTHOR_CODE: Final = ("python", "sql")
STEP_NAME: Final = re.compile(NAME_PATTERN)


@dataclass(slots=True)
class Outline:
    """One step before its templates are read: its entries, and the names it brings into the playbook."""

    node: Mapping_
    name: str
    found: dict[str, Marked]
    ctx: list[tuple[str, Marked]] = field(default_factory=list)
    next: NextOutline = field(default_factory=NextOutline)
    tasks: list[TaskOutline] = field(default_factory=list)

    def ctx_names(self) -> set[str]:
        """What its `set`, its arcs and the policies of its tools write."""
        names = {name for name, _ in self.ctx} | {name for arc in self.next.arcs for name, _ in arc.ctx}
        return names.union(*(task.ctx_names() for task in self.tasks))


def outline(source: Source, node: Marked, position: int, templates: Templates) -> Outline | None:
    """The step's name and the `ctx` names it sets; None where it is no step."""
    found = fields(source, node, "A step", STEP)
    if not isinstance(node, Mapping_):
        return None
    unnamed = f"step_{position}"
    if "step" not in found:
        source.refuse(node.start, "This step has no name.", "Begin it with `- step: name`.")
    name = text(source, found.get("step"), "A step's name")
    sound = name is not None and STEP_NAME.fullmatch(name) is not None and name not in RESERVED_NAMES
    if name is not None and not STEP_NAME.fullmatch(name):
        mend = "Use up to 64 letters, digits, _ and -, not beginning with a digit or -."
        source.refuse(found["step"].start, f"{name!r:.80} cannot be a step's name.", mend)
    elif name in RESERVED_NAMES:
        source.refuse(
            found["step"].start, f"{name!r} is a name of the language.", "Call the step something else."
        )
    text(source, found.get("desc"), "`desc`")
    made = Outline(node, name or unnamed, found)
    made.ctx, _ = scoped_writes(source, found.get("set"), step_scope=False)
    made.next = outline_next(source, found.get("next"))
    made.tasks = outline_tasks(source, found.get("tool"), made.name if sound else unnamed, templates)
    return made


def read_step(source: Source, made: Outline, known: Known, defaults: Spec) -> dict[str, Any]:
    """The step's part of the blueprint, without `run`."""
    reads = Reads()
    iterator = iterator_of(source, made.found.get("loop"))
    item_names = () if "loop" not in made.found else (iterator or "item", *ITERATION_NAMES)
    inside = Names(known, reads, iteration=item_names, inside=True, keychain=True).resolve
    after = Names(known, reads, output=True).resolve
    block = made.found.get("spec")
    spec = overlay(defaults, read_spec(source, block, "`spec`", SPEC))
    alone = len(made.tasks) == 1
    inputs = read_inputs(source, [made.found.get("input")], made.tasks[0].kind if alone else "", inside)
    tasks, specs = _tasks(source, made, known, reads, inputs, spec, item_names)
    if alone and tasks[0]["rules"] is None:
        # One tool without a policy needs no scope of its own: its inputs are the step's.
        inputs |= _inputs_of(tasks[0])
        tasks[0]["name"] = made.name
    effect = strongest([task["effect"] for task in tasks])
    _refuse_odd_words(source, block, effect, tasks, spec)
    at = made.found.get("tool") or made.node
    check_aliases(source, at, {"input": tree_of(inputs), "tasks": tasks}, known.aliases)
    return {
        "name": made.name,
        "effect": effect,
        "on_unknown": _on_unknown(source, made, tasks, specs),
        "timeout_ms": min(sum(each.timeout_ms or STEP_TIMEOUT_MS for each in specs), STEP_TIMEOUT_MS_MAX),
        "memory_mb": max(each.memory_mb or STEP_MEMORY_MB for each in specs),
        "input": tree_of(inputs),
        "tasks": tasks,
        "loop": read_loop(source, made.found.get("loop"), Names(known, reads, inside=True).resolve),
        "set": [[name, compile_tree(source, node, after)] for name, node in made.ctx],
        "arcs": read_arcs(
            source,
            made.next,
            known,
            lambda event: Names(known, reads, event=event).resolve,
            "loop.done" if "loop" in made.found else "step.done",
        ),
        "mode": made.next.mode,
        "no_match": made.next.no_match,
        "admit": read_admit(source, spec.admit, Names(known, reads, gate=True).resolve),
        "failure": spec.failure or "fail_fast",
        "deadline_ms": spec.deadline_ms,
        "reads": sorted(reads.steps),
        "reads_workload": reads.workload,
        "reads_ctx": reads.ctx,
        "reads_output": reads.output,
        "reads_iter": reads.iter,
    }


def _tasks(
    source: Source,
    made: Outline,
    known: Known,
    reads: Reads,
    inputs: dict[str, NodeList],
    spec: Spec,
    iteration: Collection[str],
) -> tuple[list[dict[str, Any]], list[Spec]]:
    """The step's tasks and the policy block each runs under; a step that only routes is a noop."""
    labels = [task.name for task in made.tasks]
    if not made.tasks:
        if "next" not in made.found and "tool" not in made.found:
            source.refuse(made.node.start, f"Step {made.name} has neither `tool` nor `next`.", "Give it one.")
        noop: dict[str, Any] = {"name": made.name, "kind": "noop", "effect": "pure", "input": None}
        noop |= {"access": None, "auth": None}
        return [{**noop, "config": {}, "rules": None, "unmatched_fails": False}], [spec]

    calls_back = any(task.calls_back for task in made.tasks)

    def resolve_in(names: Collection[str] | None, tasks: Sequence[str], rule: bool) -> Resolve:
        # One tool without a policy is no pipeline: nothing came before it, and nothing is tried again.
        labels = tasks if len(tasks) > 1 or made.tasks[0].has_policy else ()
        told: dict[str, Any] = {"callback": calls_back, "keychain": not rule, "inside": True}
        return Names(known, reads, inputs=names, tasks=labels, rule=rule, iteration=iteration, **told).resolve

    pairs = [read_task(source, task, labels, inputs, spec, resolve_in) for task in made.tasks]
    _refuse_mixed_blocks(source, made, [task for task, _ in pairs])
    return [task for task, _ in pairs], [each for _, each in pairs]


def _refuse_mixed_blocks(source: Source, made: Outline, tasks: list[dict[str, Any]]) -> None:
    """A process whose doors are shut for a pure block is shut for the whole pipeline."""
    pure = [task["effect"] == "pure" for task in tasks if task["kind"] == "python"]
    shared = all(task["effect"] == "pure" for task in tasks if task["kind"] in _AUTHOR_CODE)
    others = any(task["access"] for task in tasks) or not shared
    if any(pure) and others and made.found.get("tool") is not None:
        mend = "Give the pure block a step of its own."
        message = "A block declared pure cannot share a pipeline with one that is not, or that has grants."
        source.refuse(made.found["tool"].start, message, mend)


def _on_unknown(source: Source, made: Outline, tasks: list[dict[str, Any]], specs: list[Spec]) -> str:
    """What follows where nobody knows whether a write of the step happened: one word for all of them."""
    said = [
        spec.on_unknown or "fail"
        for task, spec in zip(tasks, specs, strict=True)
        if task["effect"] == "write"
    ]
    if len(set(said)) > 1 and made.found.get("tool") is not None:
        mend = "Say it once, in the step's `spec`; or give each write a step of its own."
        message = f"The writes of one pipeline say different `on_unknown`: {', '.join(said)}."
        source.refuse(made.found["tool"].start, message, mend)
    return said[0] if said else "fail"


def _inputs_of(task: dict[str, Any]) -> dict[str, NodeList]:
    """Take a task's inputs out of it, by name."""
    tree, task["input"] = task["input"] or ["dict"], None
    return dict(zip(tree[1::2], tree[2::2], strict=True))


def _refuse_odd_words(
    source: Source, block: Marked | None, effect: str, tasks: list[dict[str, Any]], spec: Spec
) -> None:
    """Words of the step's own policy block that mean nothing for its tools."""
    if not isinstance(block, Mapping_):
        return
    kinds = list(dict.fromkeys(task["kind"] for task in tasks))
    unknown = block.get("on_unknown")
    known = [found for kind in kinds if (found := kind_of(kind)) is not None]
    if len(kinds) == 1 or all(kind.always_pure for kind in known):
        refuse_odd_effect(source, block, kinds[0], known[0])
    granted = grants_node(block)
    if granted is not None and effect == "pure" and compiled(spec.access):
        refuse_pure_grants(source, granted)
    cannot_write = effect == "read" and all("write" not in kind.effects for kind in known)
    if granted is not None and cannot_write and compiled(spec.access).topics:
        mend = "Take them out: none of its tools writes."
        source.refuse(granted.start, "A read step cannot be granted topics.", mend)
    if unknown is not None and spec.on_unknown is not None and effect != "write":
        mend = "Take it out, or declare effect: write."
        source.refuse(unknown.start, f"`on_unknown` means nothing for a {effect} step.", mend)
