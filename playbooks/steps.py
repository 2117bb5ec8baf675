"""One step of a playbook: from its marked nodes to its part of the blueprint.

Called by `playbooks.compile` for each step, after the names of all steps are known. Problems are noted in
the source; the result is of use only where there are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.errors import EvaluationFailed
from edge.core.limits import STEP_MEMORY_MB, STEP_TIMEOUT_MS
from playbooks.blueprint import EFFECTS, ON_UNKNOWN
from playbooks.evaluate import truth
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, entries, fields, memory_mb, text, timeout_ms
from playbooks.kinds import CENTRE_KINDS, KINDS, LATER_KINDS, Kind
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.names import Known, Names, Reads
from playbooks.nodes import RESERVED_NAMES
from playbooks.problems import Source, allowed, suggest
from playbooks.templates import compile_condition, compile_tree, has_template

STEP_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_CTX_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

STEP_KEYS: Final = ("step", "desc", "spec", "input", "tool", "set", "next")
SPEC_KEYS: Final = ("effect", "timeout", "memory_mb", "on_unknown")
_STEP_LATER: Final = {
    "loop": "loops are not supported yet.",
    "when": "admission is `spec.policy.admit` in NoETL, which is not supported yet; put `when` on the arcs.",
    "args": "write `input`.",
    "case": "it was withdrawn from NoETL; use arcs with `when`.",
    "retry": "it was withdrawn from NoETL; task policies are not supported yet.",
    "sink": "it was withdrawn from NoETL.",
    "vars": "it was withdrawn from NoETL; use `set`.",
    "type": "it was withdrawn from NoETL; write `tool: {kind: …}`.",
}
_SPEC_LATER: Final = {
    "policy": "policies are not supported yet.",
    "next_mode": "write `next.spec.mode`.",
    "retain": "it is not supported yet.",
    "redact": "it is not supported yet.",
}
_TOOL_LATER: Final = {
    "spec": "write it under the step's `spec`; task policies are not supported yet.",
    "eval": "it was withdrawn from NoETL.",
    "script": "scripts from elsewhere are not supported yet; write `code`.",
    "auth": "credentials are not supported yet.",
    "as": "use the step's own name for its result.",
}
_ARC_LATER: Final = {
    "set": "it is not supported yet; write `set` on the step the arc leads from.",
    "args": "it was withdrawn from NoETL; write `set` on the step the arc leads from.",
    "spec": "it is not supported yet.",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """A policy block, or the defaults of one; None where nothing is said."""

    effect: str | None = None
    timeout_ms: int | None = None
    memory_mb: int | None = None
    on_unknown: str | None = None


def read_spec(source: Source, node: Marked | None, what: str) -> Spec:
    """The policy block of a step or of the playbook."""
    found = fields(source, node, what, SPEC_KEYS, _SPEC_LATER)
    return Spec(
        choice(source, found.get("effect"), "`effect`", EFFECTS),
        timeout_ms(source, found.get("timeout")),
        memory_mb(source, found.get("memory_mb")),
        choice(source, found.get("on_unknown"), "`on_unknown`", ON_UNKNOWN),
    )


@dataclass(slots=True)
class Outline:
    """One step before its templates are read: its entries, and the names it brings into the playbook."""

    node: Mapping_
    name: str
    found: dict[str, Marked]
    ctx: list[tuple[str, Marked]] = field(default_factory=list)


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
    for key, value in entries(source, found.get("set"), "`set`"):
        target = key.value.removeprefix("ctx.")
        if _CTX_NAME.fullmatch(target) and target not in (existing for existing, _ in made.ctx):
            made.ctx.append((target, value))
        else:
            mend = "Write one `name:` or `ctx.name:` for each value; iter.* and step.* are not supported yet."
            source.refuse(key.start, f"`set` cannot write {key.value!r:.80}.", mend)
    return made


def read_step(source: Source, made: Outline, known: Known, defaults: Spec) -> dict[str, Any]:
    """The step's part of the blueprint, without `run`."""
    reads = Reads()
    outside = Names(known, reads, None).resolve
    tool, kind_name = _tool(source, made)
    kind = KINDS.get(kind_name)
    inputs = _inputs(source, made, tool, kind_name, outside)
    input_names = [key for key, _ in inputs]
    config: dict[str, Any] = {}
    if kind is not None and tool is not None:
        keys = ("kind", "input", "args", "name", "desc", *kind.keys)
        entries_of = fields(source, tool, f"A {kind_name} tool", keys, _TOOL_LATER)
        config = kind.read(source, entries_of, tool, Names(known, reads, input_names).resolve)
    spec = read_spec(source, made.found.get("spec"), "`spec`")
    effect = _effect(source, made, kind, kind_name, spec, defaults)
    tree: NodeList = ["dict"]
    for key, node in inputs:
        tree += [key, node]
    return {
        "name": made.name,
        "kind": kind_name if kind else "noop",
        "effect": effect,
        "on_unknown": spec.on_unknown or (defaults.on_unknown if effect == "write" else None) or "fail",
        "timeout_ms": spec.timeout_ms or defaults.timeout_ms or STEP_TIMEOUT_MS,
        "memory_mb": spec.memory_mb or defaults.memory_mb or STEP_MEMORY_MB,
        "input": tree if inputs else None,
        "config": config,
        "set": [[name, compile_tree(source, node, outside)] for name, node in made.ctx],
        "arcs": _arcs(source, made.found.get("next"), known, Names(known, reads, None, arc=True).resolve),
        "reads": sorted(reads.steps),
        "reads_workload": reads.workload,
        "reads_ctx": reads.ctx,
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


def _arcs(source: Source, node: Marked | None, known: Known, resolve: Resolve) -> list[list[Any]]:
    """`[target name, when]` in order; the compiler turns names into indices."""
    if isinstance(node, Mapping_) and node.get("step") is None:
        router = fields(source, node, "`next`", ("spec", "arcs"), {})
        spec = fields(
            source,
            router.get("spec"),
            "`next.spec`",
            ("mode",),
            {"on_no_match": "it is not supported yet.", "policy": "it is not supported yet."},
        )
        mode = spec.get("mode")
        if isinstance(mode, Scalar) and mode.value == "inclusive":
            source.refuse(mode.start, "Inclusive arcs are not supported yet.", allowed(["exclusive"]))
        else:
            choice(source, mode, "`mode`", ("exclusive",))
        node = router.get("arcs")
    listed = node.items if isinstance(node, Listing) else () if node is None else (node,)
    arcs = [_arc(source, item, known, resolve) for item in listed]
    for earlier, item in zip(arcs, listed[1:], strict=False):
        if earlier is not None and earlier[1] is None and earlier[0] in known.steps:
            source.refuse(
                item.start, "This arc is never taken: the one before it always is.", "Give that one a `when`."
            )
    return [arc for arc in arcs if arc is not None]


def _arc(source: Source, node: Marked, known: Known, resolve: Resolve) -> list[Any] | None:
    when: NodeList | None = None
    target: Marked | None = node
    if not isinstance(node, Scalar):
        later = _ARC_LATER | {
            "then": "it was withdrawn from NoETL; write `step`.",
            "else": "write an arc without `when`.",
        }
        found = fields(source, node, "An arc", ("step", "when"), later)
        target = found.get("step")
        if target is None and isinstance(node, Mapping_):
            source.refuse(node.start, "This arc leads nowhere.", "Write `step: name`.")
        if "when" in found:
            when = _condition(source, found["when"], resolve)
    name = text(source, target, "An arc's `step`")
    if name is None or target is None:
        return None
    if name not in known.steps:
        did = suggest(name, known.steps)
        source.refuse(target.start, f"There is no step {name!r:.80}.{did}", allowed(list(known.steps)[:20]))
    return [name, when]


def _condition(source: Source, node: Marked, resolve: Resolve) -> NodeList | None:
    """The node of a `when`; one that mentions nothing is decided here."""
    made = compile_condition(source, node, resolve)
    if made is None or _mentions(made):
        return made
    try:
        return None if truth(made, {}) else ["const", False]
    except EvaluationFailed as error:
        source.refuse(node.start, f"This `when` always fails: {error.message}", error.mend)
        return None


def _mentions(node: Any) -> bool:
    """Whether a node, or anything in it, is a name."""
    if isinstance(node, dict):
        return any(_mentions(part) for part in node.values())
    if not isinstance(node, list) or not node:
        return False
    return node[0] in ("name", "step") or any(_mentions(part) for part in node[1:])
