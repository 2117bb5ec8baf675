"""One step of a playbook: from its marked nodes to its part of the blueprint.

Called by `playbooks.compile` for each step, after the names of all steps are known. Problems are noted in
the source; the result is of use only where there are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.limits import STEP_MEMORY_MB, STEP_TIMEOUT_MS
from playbooks.arcs import NextOutline, outline_next, read_arcs, scoped_writes
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import entries, fields, text
from playbooks.kinds import CENTRE_KINDS, KINDS, LATER_KINDS, Kind
from playbooks.loader import Listing, Mapping_, Marked
from playbooks.names import Known, Names, Reads
from playbooks.nodes import RESERVED_NAMES
from playbooks.problems import Source, allowed, suggest
from playbooks.spec import Spec, overlay, read_admit, read_spec
from playbooks.templates import compile_tree, has_template

STEP_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

STEP_KEYS: Final = ("step", "desc", "spec", "input", "tool", "set", "next")
_STEP_LATER: Final = {
    "loop": "loops are not supported yet.",
    "when": "write `spec.policy.admit.rules`, or put `when` on the arcs.",
    "args": "write `input`.",
    "case": "it was withdrawn from NoETL; use arcs with `when`.",
    "retry": "it was withdrawn from NoETL; task policies are not supported yet.",
    "sink": "it was withdrawn from NoETL.",
    "vars": "it was withdrawn from NoETL; use `set`.",
    "type": "it was withdrawn from NoETL; write `tool: {kind: …}`.",
}
_TOOL_LATER: Final = {
    "spec": "write it under the step's `spec`; task policies are not supported yet.",
    "eval": "it was withdrawn from NoETL.",
    "script": "scripts from elsewhere are not supported yet; write `code`.",
    "auth": "credentials are not supported yet.",
    "as": "use the step's own name for its result.",
}


@dataclass(slots=True)
class Outline:
    """One step before its templates are read: its entries, and the names it brings into the playbook."""

    node: Mapping_
    name: str
    found: dict[str, Marked]
    ctx: list[tuple[str, Marked]] = field(default_factory=list)
    next: NextOutline = field(default_factory=NextOutline)

    def ctx_names(self) -> set[str]:
        """What its `set` and its arcs write."""
        return {name for name, _ in self.ctx} | {name for arc in self.next.arcs for name, _ in arc.ctx}


def outline(source: Source, node: Marked, position: int) -> Outline | None:
    """The step's name and the `ctx` names it sets; None where it is no step."""
    found = fields(source, node, "A step", STEP_KEYS, _STEP_LATER)
    if not isinstance(node, Mapping_):
        return None
    if "step" not in found:
        source.refuse(node.start, "This step has no name.", "Begin it with `- step: name`.")
        return None
    name = text(source, found["step"], "A step's name")
    if name is not None and not STEP_NAME.fullmatch(name):
        mend = "Use up to 64 letters, digits, _ and -, not beginning with a digit or -."
        source.refuse(found["step"].start, f"{name!r:.80} cannot be a step's name.", mend)
    elif name in RESERVED_NAMES:
        source.refuse(
            found["step"].start, f"{name!r} is a name of the language.", "Call the step something else."
        )
    text(source, found.get("desc"), "`desc`")
    made = Outline(node, name or f"step {position}", found)
    made.ctx, _ = scoped_writes(source, found.get("set"), step_scope=False)
    made.next = outline_next(source, found.get("next"))
    return made


def read_step(source: Source, made: Outline, known: Known, defaults: Spec) -> dict[str, Any]:
    """The step's part of the blueprint, without `run`."""
    reads = Reads()
    outside = Names(known, reads).resolve
    after = Names(known, reads, output=True).resolve
    tool, kind_name = _tool(source, made)
    kind = KINDS.get(kind_name)
    inputs = _inputs(source, made, tool, kind_name, outside)
    input_names = [key for key, _ in inputs]
    config: dict[str, Any] = {}
    if kind is not None and tool is not None:
        keys = ("kind", "input", "args", "name", "desc", *kind.keys)
        entries_of = fields(source, tool, f"A {kind_name} tool", keys, _TOOL_LATER)
        config = kind.read(source, entries_of, tool, Names(known, reads, inputs=input_names).resolve)
    own = read_spec(source, made.found.get("spec"), "`spec`")
    effect = _effect(source, made, kind, kind_name, own, defaults)
    spec = overlay(defaults, own)
    tree: NodeList = ["dict"]
    for key, node in inputs:
        tree += [key, node]
    return {
        "name": made.name,
        "kind": kind_name if kind else "noop",
        "effect": effect,
        "on_unknown": (spec.on_unknown if effect == "write" else None) or "fail",
        "timeout_ms": spec.timeout_ms or STEP_TIMEOUT_MS,
        "memory_mb": spec.memory_mb or STEP_MEMORY_MB,
        "input": tree if inputs else None,
        "config": config,
        "set": [[name, compile_tree(source, node, after)] for name, node in made.ctx],
        "arcs": read_arcs(
            source,
            made.next,
            known,
            lambda event: Names(known, reads, event=event).resolve,
            "step.done",
        ),
        "mode": made.next.mode,
        "no_match": made.next.no_match,
        "admit": read_admit(source, spec.admit, Names(known, reads, gate=True).resolve),
        "failure": spec.failure or "fail_fast",
        "reads": sorted(reads.steps),
        "reads_workload": reads.workload,
        "reads_ctx": reads.ctx,
        "reads_output": reads.output,
    }


def _tool(source: Source, made: Outline) -> tuple[Mapping_ | None, str]:
    """The step's one tool and its kind; a step that only routes is a noop."""
    node = made.found.get("tool")
    if node is None:
        if "next" not in made.found:
            source.refuse(made.node.start, f"Step {made.name} has neither `tool` nor `next`.", "Give it one.")
        return None, "noop"
    if isinstance(node, Listing):
        if len(node.items) != 1:
            source.refuse(
                node.start, "Pipelines of several tasks are not supported yet.", "Use one step for each."
            )
            return None, ""
        node = node.items[0]
    if not isinstance(node, Mapping_):
        source.refuse(node.start, "`tool` must be a map.", "Write tool: {kind: …}.")
        return None, ""
    if node.get("kind") is None and len(node.pairs) == 1 and isinstance(node.pairs[0][1], Mapping_):
        node = node.pairs[0][1]  # the labelled form: `- label: {kind: …}`
    named = text(source, node.get("kind"), "`kind`")
    if named is None:
        if node.get("kind") is None:
            source.refuse(node.start, "This tool has no `kind`.", allowed(sorted(KINDS)))
        return node, ""
    if named in KINDS:
        return node, named
    message = f"There is no tool of kind {named!r:.80}.{suggest(named, KINDS)}"
    if named in CENTRE_KINDS:
        message = f"A {named} tool runs in a data centre, not on the edge."
    elif named in LATER_KINDS:
        message = f"The tool kind {named!r} is not supported yet."
    kind = node.get("kind")
    assert kind is not None
    source.refuse(kind.start, message, allowed(sorted(KINDS)))
    return node, ""


def _inputs(
    source: Source, made: Outline, tool: Mapping_ | None, kind_name: str, resolve: Resolve
) -> list[tuple[str, NodeList]]:
    """The step's inputs, then the tool's; the tool's win."""
    merged: dict[str, NodeList] = {}
    blocks = [made.found.get("input")]
    if tool is not None:
        blocks += [tool.get("args"), tool.get("input")]
    for block in blocks:
        for key, value in entries(source, block, "`input`"):
            if key.value in RESERVED_NAMES and kind_name != "python":
                source.refuse(
                    key.start, f"{key.value!r} is a name of the language.", "Call the input something else."
                )
            if has_template(key.value):
                source.refuse(key.start, "A key cannot be a template.", "Write the key out.")
            if not key.value or len(key.value) > 100:
                source.refuse(key.start, "An input's name has 1 to 100 characters.")
            merged[key.value] = compile_tree(source, value, resolve)
    return list(merged.items())


def _effect(
    source: Source, made: Outline, kind: Kind | None, kind_name: str, spec: Spec, defaults: Spec
) -> str:
    block = made.found.get("spec")
    pure = kind is not None and kind.always_pure
    effect = "pure" if pure else spec.effect or defaults.effect or "read"
    if isinstance(block, Mapping_):
        declared, unknown = block.get("effect"), block.get("on_unknown")
        if pure and spec.effect not in (None, "pure") and declared is not None:
            source.refuse(declared.start, f"A {kind_name} step is always pure.", "Take `effect` out.")
        if unknown is not None and spec.on_unknown is not None and effect != "write":
            mend = "Take it out, or declare effect: write."
            source.refuse(unknown.start, f"`on_unknown` means nothing for a {effect} step.", mend)
    return effect
