"""`tool`: a step's one tool or its pipeline, from marked nodes to tasks of the blueprint.

Called by `playbooks.steps`. Every form NoETL publishes is read: a map with `kind`, a list of such maps with or
without `name`, and the older `- label: {kind: …}`; all become named tasks. Problems are noted in the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from edge.core.access import NOTHING, Access
from edge.core.limits import STEP_TASKS_MAX
from edge.core.records import record
from playbooks.credentials import read_auth
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import entries, fields, text
from playbooks.grants import compiled
from playbooks.kinds import ABSENT_KINDS, CENTRE_KINDS, Kind, all_kinds, kind_of
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.model.policy import TASK_SPEC
from playbooks.model.workflow import NAME_PATTERN
from playbooks.nodes import RESERVED_NAMES
from playbooks.policy import has_control, policy_writes, read_policy
from playbooks.problems import Source, allowed, suggest
from playbooks.results import read_output
from playbooks.shape import EFFECTS
from playbooks.spec import Spec, overlay, read_spec
from playbooks.templates import compile_tree, has_template
from playbooks.workbook import WORKBOOK, Templates, put_in_place

_LABEL: Final = re.compile(NAME_PATTERN)
#: Where a task's spec says what becomes of its result.
_SPEC_OUTPUT: Final = ("result", "output")

_WRITE: Final = "write"

#: Gives the resolver of names inside a task: `(its input names or None, labels of the pipeline, whether in a rule)`.
ResolveIn = Callable[[Collection[str] | None, Sequence[str], bool], Resolve]


@record
class TaskOutline:
    """One tool before its templates are read; `kind` is "" where it has none that is known."""

    node: Mapping_
    name: str
    kind: str

    @property
    def has_policy(self) -> bool:
        """Whether it says what follows its outcome."""
        spec = self.node.get("spec")
        return isinstance(spec, Mapping_) and has_control(spec.get("policy"))

    @property
    def calls_back(self) -> bool:
        """Whether it waits for a callback."""
        asked = self.node.get("callback") if self.kind == "wait" else None
        return asked is not None and not (isinstance(asked, Scalar) and asked.value is not True)

    def ctx_names(self) -> set[str]:
        """What its policy writes into ctx."""
        return policy_writes(self.node.get("spec"))


def outline_tasks(source: Source, node: Marked | None, step: str, templates: Templates) -> list[TaskOutline]:
    """The tools of a step, named."""
    if node is None:
        return []
    if not isinstance(node, Listing):
        made = _outline(source, node, step, templates)
        return [] if made is None else [made]
    if not node.items:
        source.refuse(node.start, "This pipeline has no task.", "Write `- {name: …, kind: …}`.")
    if len(node.items) > STEP_TASKS_MAX:
        message = f"A pipeline has at most {STEP_TASKS_MAX} tasks."
        source.refuse(node.items[STEP_TASKS_MAX].start, message, "Split it.")
    tasks: list[TaskOutline] = []
    for place, item in enumerate(node.items[:STEP_TASKS_MAX]):
        task = _outline(source, item, f"task_{place}" if len(node.items) > 1 else step, templates)
        if task is None:
            continue
        if task.name in (each.name for each in tasks):
            source.refuse(item.start, f"There are two tasks named {task.name!r}.", "Rename one of them.")
            continue
        tasks.append(task)
    return tasks


def _outline(source: Source, node: Marked, default_name: str, templates: Templates) -> TaskOutline | None:
    if not isinstance(node, Mapping_):
        source.refuse(node.start, "`tool` must be a map.", "Write tool: {kind: …}.")
        return None
    label = None
    if node.get("kind") is None and len(node.pairs) == 1 and isinstance(node.pairs[0][1], Mapping_):
        label, node = node.pairs[0][0].value, node.pairs[0][1]
    kind = node.get("kind")
    if isinstance(kind, Scalar) and kind.value == WORKBOOK:
        made = put_in_place(source, node, templates)
        if made is None:
            return None
        node = made
    name = text(source, node.get("name"), "A task's name") or label or default_name
    if not _LABEL.fullmatch(name) or name in RESERVED_NAMES:
        mend = "Use up to 64 letters, digits, _ and -, and no name of the language."
        source.refuse((node.get("name") or node).start, f"{name!r:.80} cannot be a task's name.", mend)
    return TaskOutline(node, name, _kind(source, node))


def _kind(source: Source, node: Mapping_) -> str:
    kind = node.get("kind")
    named = text(source, kind, "`kind`")
    if kind is None:
        source.refuse(node.start, "This tool has no `kind`.", allowed(all_kinds()))
    if named is None or kind is None:
        return ""
    if kind_of(named) is not None:
        return named
    message, mend = (
        f"There is no tool of kind {named!r:.80}.{suggest(named, all_kinds())}",
        allowed(all_kinds()),
    )
    if named in CENTRE_KINDS:
        message, mend = f"The {named} tool runs in a data centre, not on the edge.", CENTRE_KINDS[named]
    elif named in ABSENT_KINDS:
        message, mend = f"There is no {named} tool on the edge.", ABSENT_KINDS[named]
    source.refuse(kind.start, message, mend)
    return ""


def read_task(
    source: Source,
    task: TaskOutline,
    labels: Sequence[str],
    step_inputs: Collection[str],
    spec: Spec,
    resolve_in: ResolveIn,
) -> tuple[dict[str, Any], Spec]:
    """`(the task's part of the blueprint, the policy block it runs under)`."""
    kind = kind_of(task.kind)
    inputs = read_inputs(
        source, [task.node.get("args"), task.node.get("input")], task.kind, resolve_in(None, labels, False)
    )
    names = {*step_inputs, *inputs}
    config: dict[str, Any] = {}
    found = {key.value: value for key, value in task.node.pairs}
    if kind is not None:
        found = fields(source, task.node, f"The {task.kind} tool", kind.tool_block())
        config = kind.read(source, _own_keys(found, kind), task.node, resolve_in(names, labels, False))
    text(source, found.get("desc"), "`desc`")
    block = found.get("spec")
    own = read_spec(source, block, "The task's `spec`", TASK_SPEC)
    policy = block.get("policy") if isinstance(block, Mapping_) else None
    rules, unmatched_fails = read_policy(source, policy, labels, resolve_in(names, labels, True))
    under = overlay(Spec(memory_mb=None if kind is None else kind.memory_mb), overlay(spec, own))
    effect, access = ("read", NOTHING) if kind is None else effect_of(source, task, kind, config, own, under)
    if kind is not None:
        needs_ms = kind.fit_times(config, under.timeout_ms)
        under = under if needs_ms is None else replace(under, timeout_ms=needs_ms)
    if kind is not None and kind.check is not None:
        kind.check(source, found, task.node, access)
    made = {
        "name": task.name,
        "kind": (kind.runs_as if kind is not None else "") or task.kind or "noop",
        "effect": effect,
        "access": access.parts() if access else None,
        "breaker": list(under.breaker or ()) or None,
        "auth": read_auth(source, found.get("auth"), access, resolve_in(names, labels, False)),
        "input": tree_of(inputs),
        "config": config,
        "rules": rules,
        "unmatched_fails": unmatched_fails,
    }
    output = read_output(source, _output_blocks(found, kind, block))
    if output is not None:
        made["output"] = output
    return made, under


def _own_keys(found: dict[str, Marked], kind: Kind) -> dict[str, Marked]:
    """A tool's own keys: `output` is among those of kinds that have one, but not where it is a map."""
    if "output" in kind.block.names and isinstance(found.get("output"), Mapping_):
        return {key: value for key, value in found.items() if key != "output"}
    return found


def _output_blocks(found: dict[str, Marked], kind: Kind | None, spec: Marked | None) -> list[Marked | None]:
    """Where a tool says what becomes of its result; the task's spec is nearest."""
    blocks = [found.get("result"), found.get("output")]
    if kind is not None and "output" in kind.block.names and not isinstance(blocks[1], Mapping_):
        blocks[1] = None
    if isinstance(spec, Mapping_):
        blocks += [spec.get(key) for key in _SPEC_OUTPUT]
    return blocks


def effect_of(
    source: Source, task: TaskOutline, kind: Kind, config: dict[str, Any], own: Spec, under: Spec
) -> tuple[str, Access]:
    """`(class of effect, grants)`; a declaration of its own that its kind cannot be is refused, and grants that
    contradict it. Author code with an outside is `write` unless it says otherwise.
    """
    block = task.node.get("spec")
    refuse_odd_effect(source, block, task.kind, kind)
    granted = compiled(under.access)
    effect = kind.effect(config, under.effect)
    at = grants_node(block) or task.node
    if effect == "pure":
        if own.access is not None and granted:
            refuse_pure_grants(source, at)
        return effect, NOTHING
    if granted and under.effect is None and kind.natural is None and _WRITE in kind.effects:
        return _WRITE, granted
    if _WRITE not in kind.effects and own.access is None:
        # Nothing it could write: what the step grants is for its other tasks, whatever this one is beside them.
        return effect, replace(granted, topics=(), files=_only_read(granted))
    writing = granted.topics or len(_only_read(granted)) < len(granted.files)
    if writing and effect == "read" and kind.natural is None:
        mend = "Declare effect: write, or grant no topics and files for reading only."
        if _WRITE not in kind.effects:
            mend = f"Take them out: a {task.kind} tool writes nothing."
        source.refuse(at.start, "A read step cannot be granted topics, or files to write.", mend)
    return effect, granted


def _only_read(granted: Access) -> tuple[tuple[str, str], ...]:
    """Of the files granted, those for reading only."""
    return tuple((path, mode) for path, mode in granted.files if mode == "read")


def grants_node(block: Marked | None) -> Marked | None:
    """Where a policy block grants access itself."""
    policy = block.get("policy") if isinstance(block, Mapping_) else None
    return policy.get("access") if isinstance(policy, Mapping_) else None


def refuse_pure_grants(source: Source, node: Marked) -> None:
    """What is pure sees nothing outside."""
    mend = "Take the grants out, or declare effect: read or write."
    source.refuse(node.start, "A pure step cannot be granted access.", mend)


def refuse_odd_effect(source: Source, block: Marked | None, name: str, kind: Kind) -> None:
    """A kind that is always pure cannot be declared otherwise, nor one that asks the world be pure."""
    node = block.get("effect") if isinstance(block, Mapping_) else None
    declared = node.value if isinstance(node, Scalar) else None
    if node is None or declared not in EFFECTS or declared in kind.effects:
        return
    if kind.always_pure:
        source.refuse(node.start, f"The {name} tool is always pure.", "Take `effect` out.")
    else:
        source.refuse(node.start, f"The {name} tool cannot be {declared}.", allowed(kind.effects))


def strongest(effects: Sequence[str]) -> str:
    """The effect of a whole pipeline."""
    return max(effects, key=EFFECTS.index, default="pure")


def read_inputs(
    source: Source, blocks: Sequence[Marked | None], kind: str, resolve: Resolve
) -> dict[str, NodeList]:
    """The inputs of a step or task by name; later blocks win."""
    merged: dict[str, NodeList] = {}
    for block in blocks:
        for key, value in entries(source, block, "`input`"):
            if key.value in RESERVED_NAMES and kind != "python":
                source.refuse(
                    key.start, f"{key.value!r} is a name of the language.", "Call the input something else."
                )
            if has_template(key.value):
                source.refuse(key.start, "A key cannot be a template.", "Write the key out.")
            if not key.value or len(key.value) > 100:
                source.refuse(key.start, "An input's name has 1 to 100 characters.")
            merged[key.value] = compile_tree(source, value, resolve)
    return merged


def tree_of(inputs: dict[str, NodeList]) -> NodeList | None:
    """Inputs as one tree, None where there are none."""
    if not inputs:
        return None
    tree: NodeList = ["dict"]
    for name, node in inputs.items():
        tree += [name, node]
    return tree
