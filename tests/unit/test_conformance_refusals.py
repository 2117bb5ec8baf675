"""What NoETL's language withdrew, keeps for later or runs elsewhere, one line each: refused, and saying why.

The table in playbooks/DESIGN.md refers to these by name.
"""

from __future__ import annotations

import pytest

from playbooks.compile import check_playbook
from tests.unit.conformance_example import HEAD

ONE = "workflow: [{step: a, tool: {kind: noop}}]\n"
TOOL = "workflow: [{step: a, tool: {kind: noop, %s}}]\n"
REFUSED: dict[str, tuple[str, str]] = {
    "unknown-root-key": (ONE + "extras: {}\n", "cannot have the key"),
    "root-vars": (ONE + "vars: {}\n", "withdrawn"),
    "step-when": ("workflow: [{step: a, when: '{{ true }}', tool: {kind: noop}}]\n", "spec.policy.admit"),
    "case-block": ("workflow: [{step: a, case: [], tool: {kind: noop}}]\n", "withdrawn"),
    "retry-block": ("workflow: [{step: a, retry: {}, tool: {kind: noop}}]\n", "withdrawn"),
    "sink-block": ("workflow: [{step: a, sink: {}, tool: {kind: noop}}]\n", "withdrawn"),
    "step-type": ("workflow: [{step: a, type: python}]\n", "withdrawn"),
    "tool-eval": (TOOL % "eval: []", "withdrawn"),
    "tool-expr": (TOOL % "expr: x", "cannot have the key"),
    "next-mode-in-spec": (
        "workflow: [{step: a, spec: {next_mode: inclusive}, tool: {kind: noop}}]\n",
        "next.spec.mode",
    ),
    "next-policy": (
        "workflow: [{step: a, next: {spec: {policy: {}}, arcs: [{step: a}]}}]\n",
        "keeps it for later",
    ),
    "arc-spec": ("workflow: [{step: a, next: {arcs: [{step: a, spec: {}}]}}]\n", "keeps it for later"),
    "policy-before": (TOOL % "spec: {policy: {rules: [], before: []}}", "keeps it for later"),
    "policy-without-rules": (TOOL % "spec: {policy: {on_unmatched: fail}}", "has no `rules`"),
    "control-in-admission": (
        "workflow: [{step: a, spec: {policy: {admit: {rules: [{else: {do: fail}}]}}}, tool: {kind: noop}}]\n",
        "the task's own policy",
    ),
    "event-in-admission": (
        "workflow: [{step: a, spec: {policy: {admit: [{when: '{{ event }}', then: {allow: true}}]}}}]\n",
        "in an arc's `when`",
    ),
    "policy-in-loop-spec": (
        "workflow: [{step: a, loop: {in: [1], iterator: x, spec: {timeout: 5}}, tool: {kind: noop}}]\n",
        "`loop.spec` cannot have the key 'timeout'",
    ),
    "steps-of-one-name": (
        "workflow: [{step: a, tool: {kind: noop}}, {step: a, tool: {kind: noop}}]\n",
        "two steps",
    ),
    "arc-to-nowhere": (
        "workflow: [{step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}}]\n",
        "There is no step",
    ),
    "loop-without-iterator": ("workflow: [{step: a, loop: {in: []}, tool: {kind: noop}}]\n", "no `iterator`"),
    "step-without-tool-and-next": ("workflow: [{step: a}]\n", "neither `tool` nor `next`"),
    "tasks-of-one-name": (
        "workflow: [{step: a, tool: [{x: {kind: noop}}, {x: {kind: noop}}]}]\n",
        "two tasks",
    ),
    "jump-to-nowhere": (
        TOOL % "spec: {policy: {rules: [{else: {do: jump, to: b}}]}}",
        "has no task",
    ),
    "unknown-kind": ("workflow: [{step: a, tool: {kind: telegraph}}]\n", "no tool of kind"),
    "unknown-feature": ("executor: {requires: {features: [gpu]}}\n" + ONE, "not known here"),
    "emit-policy": (
        "workflow: [{step: a, spec: {policy: {emit: {}}}, tool: {kind: noop}}]\n",
        "the log holds",
    ),
    "api-version": (ONE, "cannot be 'noetl.io/v1'"),
    **{
        f"kind-{kind}": (f"workflow: [{{step: a, tool: {{kind: {kind}}}}}]\n", "runs in a data centre")
        for kind in (
            "postgres",
            "container",
            "snowflake",
            "gcs",
            "nats",
            "ducklake",
            "transfer",
            "clickhouse",
        )
    },
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_is_refused_with_its_reason(name: str) -> None:
    """What NoETL withdrew, keeps for later or runs elsewhere: refused while compiling, saying why."""
    source, said = REFUSED[name]
    head = HEAD.replace("/v2", "/v1") if name == "api-version" else HEAD
    problems = check_playbook((head + source).encode(), "p.yaml")
    assert any(said in str(problem) for problem in problems), problems
