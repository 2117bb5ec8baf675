"""`spec`: the policy block of a playbook, its executor or a step, and how the inner ones overlay the outer.

Called by the compiler. NoETL's order is kind → executor → step → loop → task, scalars inner-win and maps merged; each
block is read into a `Spec` whose None says nothing, and `overlay` puts one over another.
"""

from __future__ import annotations

from dataclasses import fields as dataclass_fields
from typing import Any

from edge.core.limits import STEP_MEMORY_MB_MAX, STEP_MEMORY_MB_MIN, STEP_TIMEOUT_MS_MAX, WAIT_S_MAX
from edge.core.records import record
from playbooks.breaker import read_breaker
from playbooks.conditions import read_rule
from playbooks.expressions import Resolve
from playbooks.fields import choice, fields, flag, items, length_ms, timeout_ms, whole
from playbooks.grants import Grants, merged, read_access
from playbooks.loader import Mapping_, Marked
from playbooks.model.parts import Block
from playbooks.model.policy import (
    ADMIT,
    ADMIT_RULE,
    ADMIT_THEN,
    FAILURE_BLOCK,
    LIFECYCLE,
    POLICY,
    TASK_SPEC,
    TIMEOUT,
)
from playbooks.problems import Source
from playbooks.shape import EFFECTS, FAILURE, ON_UNKNOWN


@record
class Spec:
    """A policy block, or the defaults of one; None where nothing is said. `admit` is not read yet."""

    effect: str | None = None
    timeout_ms: int | None = None
    memory_mb: int | None = None
    on_unknown: str | None = None
    failure: str | None = None
    admit: Marked | None = None
    access: Grants | None = None
    #: `[trip_after, probe_after_ms]`; empty where it is switched off.
    breaker: tuple[int, ...] | None = None
    deadline_ms: int | None = None


def read_spec(source: Source, node: Marked | None, what: str, block: Block) -> Spec:
    """A policy block; a task's `policy`, and keys that only this block has, are read by somebody else."""
    found = fields(source, node, what, block)
    node = found.get("policy")
    policy = {} if block is TASK_SPEC else fields(source, node, "`policy`", POLICY)
    granted = node.get("access") if isinstance(node, Mapping_) else None
    lifecycle = fields(source, policy.get("lifecycle"), "`lifecycle`", LIFECYCLE)
    failure = policy.get("failure")
    if isinstance(failure, Mapping_):
        failure = fields(source, failure, "`failure`", FAILURE_BLOCK).get("mode")
    return Spec(
        choice(source, found.get("effect"), "`effect`", EFFECTS),
        _timeout_ms(source, found.get("timeout") or lifecycle.get("timeout_s")),
        whole(source, found.get("memory_mb"), "`memory_mb`", STEP_MEMORY_MB_MIN, STEP_MEMORY_MB_MAX),
        choice(source, found.get("on_unknown"), "`on_unknown`", ON_UNKNOWN),
        choice(source, failure, "The failure `mode`", FAILURE),
        policy.get("admit"),
        read_access(source, granted),
        read_breaker(source, node.get("breaker") if isinstance(node, Mapping_) else None),
        length_ms(source, lifecycle.get("deadline_s"), "`deadline_s`", WAIT_S_MAX * 1_000),
    )


def _timeout_ms(source: Source, node: Marked | None) -> int | None:
    """How long a claim may take: a length of time, or NoETL's two parts of one."""
    if not isinstance(node, Mapping_):
        return timeout_ms(source, node)
    parts = fields(source, node, "`timeout`", TIMEOUT)
    lengths = [timeout_ms(source, part) for part in parts.values()]
    return min(sum(length or 0 for length in lengths), STEP_TIMEOUT_MS_MAX) or None


def overlay(outer: Spec, inner: Spec) -> Spec:
    """`inner` over `outer`: what the inner one says wins; grants are merged kind by kind."""
    names = [field.name for field in dataclass_fields(Spec)]
    said = {name: getattr(inner, name) for name in names if getattr(inner, name) is not None}
    said["access"] = merged(outer.access, inner.access)
    return Spec(**{name: getattr(outer, name) for name in names} | said)


def read_admit(source: Source, node: Marked | None, resolve: Resolve) -> list[list[Any]] | None:
    """Admission rules, `[when, allow]` each, the first that holds decides; None where there are none."""
    if node is None:
        return None
    if isinstance(node, Mapping_):
        found = fields(source, node, "`admit`", ADMIT)
        choice(source, found.get("mode"), "`mode`", ("exclusive",))
        if "rules" not in found:
            source.refuse(
                node.start, "`admit` has no `rules`.", "Write rules: [{when: …, then: {allow: true}}]."
            )
        node = found.get("rules")
    return [rule for item in items(source, node, "`rules`") if (rule := _admit_rule(source, item, resolve))]


def _admit_rule(source: Source, node: Marked, resolve: Resolve) -> list[Any] | None:
    when, then = read_rule(source, node, ADMIT_RULE, resolve)
    action = fields(source, then, "`then`", ADMIT_THEN)
    allow = flag(source, action.get("allow"), "`allow`")
    if allow is None and isinstance(node, Mapping_):
        source.refuse(node.start, "This rule does not say what to do.", "Write then: {allow: true}.")
    return None if allow is None else [when, allow]
