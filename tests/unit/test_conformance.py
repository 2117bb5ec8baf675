"""Constructs of NoETL's language, one small playbook each, in the style of published ones: what they mean there they
mean here. The table in playbooks/DESIGN.md refers to these by name.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import pytest

from edge.core.codec import decode, encode
from edge.core.events import ExecutionRequested, StepDone, StepFailed
from edge.core.state import fold
from edge.testing.box import Box
from playbooks.compile import check_playbook, compile_playbook

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: c, path: conformance/c}\n"


class Example(NamedTuple):
    """A playbook, its input, and what is expected: path, answer, ctx, or the code of what ended it."""

    source: str
    given: dict[str, Any]
    path: list[str]
    result: Any = None
    ctx: dict[str, Any] | None = None
    problem: str | None = None


EXAMPLES: dict[str, Example] = {
    "workload-deep-merge": Example(
        """
        workload: {api: {host: a, port: 1}, tags: [x]}
        workflow:
          - step: start
            tool: {kind: python, input: {api: "{{ workload.api }}", tags: "{{ tags }}"}, code: "return [api, tags]"}
        """,
        {"api": {"port": 2}, "tags": []},
        ["start"],
        [{"host": "a", "port": 2}, []],
    ),
    "native-types": Example(
        """
        workload: {n: 3, on: true, list: [1, 2]}
        workflow:
          - step: start
            tool:
              kind: transform
              value: {n: "{{ n }}", on: "{{ on }}", list: "{{ list }}", text: "n is {{ n }}"}
        """,
        {},
        ["start"],
        {"n": 3, "on": True, "list": [1, 2], "text": "n is 3"},
    ),
    "first-step-begins": Example(
        """
        workflow:
          - {step: fetch, tool: {kind: noop}, next: {arcs: [{step: end}]}}
          - {step: end, tool: {kind: noop}}
        """,
        {},
        ["fetch", "end"],
    ),
    "entry-and-final-step": Example(
        """
        executor: {spec: {entry_step: b, final_step: report}}
        workflow:
          - {step: a, tool: {kind: noop}}
          - {step: b, tool: {kind: noop}, next: {arcs: [{step: c}]}}
          - {step: c, tool: {kind: noop}}
          - {step: report, tool: {kind: transform, value: "{{ args.done }}"}}
        """,
        {},
        ["b", "c", "report"],
        2,
    ),
    "no-next-is-error": Example(
        """
        executor: {spec: {no_next_is_error: true}}
        workflow:
          - step: a
            tool: {kind: noop}
            next: {arcs: [{step: b, when: "{{ workload.n is defined }}"}]}
          - {step: b, tool: {kind: noop}}
        """,
        {},
        ["a"],
        problem="no_arc_matched",
    ),
    "route-only-step": Example(
        """
        workflow:
          - step: start
            next: {spec: {mode: exclusive}, arcs: [{step: low, when: "{{ n < 10 }}"}, {step: high}]}
          - {step: low, tool: {kind: noop}}
          - {step: high, tool: {kind: noop}}
        """,
        {"n": 12},
        ["start", "high"],
    ),
    "step-set-and-ctx": Example(
        """
        workflow:
          - step: fetch
            tool: {kind: python, code: "return {'user': 'ada', 'age': 36}"}
            set: {ctx.user: "{{ fetch.user }}", age: "{{ output.data.age }}"}
            next: [greet]
          - {step: greet, tool: {kind: transform, value: "{{ ctx.user }} is {{ ctx.age }}"}}
        """,
        {},
        ["fetch", "greet"],
        "ada is 36",
        {"user": "ada", "age": 36},
    ),
    "arcs-exclusive": Example(
        """
        workflow:
          - step: start
            tool: {kind: noop}
            next:
              spec: {mode: exclusive}
              arcs: [{step: a, when: "{{ n > 1 }}"}, {step: b, when: "{{ n > 2 }}"}, {step: c}]
          - {step: a, tool: {kind: noop}}
          - {step: b, tool: {kind: noop}}
          - {step: c, tool: {kind: noop}}
        """,
        {"n": 5},
        ["start", "a"],
    ),
    "arcs-inclusive-and-fan-in": Example(
        """
        workflow:
          - step: start
            tool: {kind: noop}
            next:
              spec: {mode: inclusive}
              arcs:
                - {step: a, when: "{{ n > 1 }}"}
                - {step: b, when: "{{ n > 2 }}"}
                - {step: never, when: "{{ n > 9 }}"}
          - {step: a, tool: {kind: transform, value: 1}, next: {arcs: [{step: join}]}}
          - {step: b, tool: {kind: transform, value: 2}, next: {arcs: [{step: join}]}}
          - {step: never, tool: {kind: noop}, next: {arcs: [{step: join}]}}
          - {step: join, tool: {kind: transform, value: "{{ a + b }}"}}
        """,
        {"n": 5},
        ["start", "a", "b", "join"],
        3,
    ),
    "arc-args": Example(
        """
        workflow:
          - step: start
            tool: {kind: transform, value: {id: 7}}
            next: {arcs: [{step: use, args: {id: "{{ start.id }}"}}]}
          - {step: use, tool: {kind: transform, value: "{{ args.id + 1 }}"}}
        """,
        {},
        ["start", "use"],
        8,
    ),
    "arc-set-step-scope": Example(
        """
        workflow:
          - step: start
            tool: {kind: noop}
            next: {arcs: [{step: use, set: {ctx.kept: 1, step.passed: 2}}]}
          - {step: use, tool: {kind: transform, value: "{{ ctx.kept + args.passed }}"}}
        """,
        {},
        ["start", "use"],
        3,
        {"kept": 1},
    ),
    "on-no-match": Example(
        """
        workflow:
          - step: start
            tool: {kind: transform, value: 1}
            next: {spec: {on_no_match: complete}, arcs: [{step: b, when: "{{ start > 1 }}"}]}
          - {step: b, tool: {kind: noop}}
        """,
        {},
        ["start"],
        1,
    ),
    "failure-arc": Example(
        """
        workflow:
          - step: call
            tool: {kind: python, code: "return 1/0"}
            next:
              arcs:
                - {step: ok, when: "{{ event.name == 'step.done' }}"}
                - {step: mend, when: "{{ event.name == 'step.failed' }}"}
          - {step: ok, tool: {kind: noop}}
          - {step: mend, tool: {kind: transform, value: mended}}
        """,
        {},
        ["call", "mend"],
        "mended",
    ),
    "fail-fast": Example(
        """
        workflow:
          - {step: call, tool: {kind: python, code: "return 1/0"}, next: {arcs: [{step: b}]}}
          - {step: b, tool: {kind: noop}}
        """,
        {},
        ["call"],
        problem="python_raised",
    ),
    "best-effort": Example(
        """
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: bad}, {step: good}]}
          - step: bad
            spec: {policy: {failure: {mode: best_effort}}}
            tool: {kind: python, code: "return 1/0"}
          - {step: good, tool: {kind: transform, value: fine}}
        """,
        {},
        ["start", "bad", "good"],
        "fine",
    ),
    "admission": Example(
        """
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: guarded}, {step: opener}]}
          - step: guarded
            spec:
              policy:
                admit:
                  rules:
                    - when: "{{ ctx.open | default(false) }}"
                      then: {allow: true}
                    - else:
                        then: {allow: false}
            tool: {kind: noop}
          - {step: opener, tool: {kind: noop}, set: {ctx.open: true}}
        """,
        {},
        ["start", "opener", "guarded"],
        ctx={"open": True},
    ),
    "pipeline-labelled": Example(
        """
        workflow:
          - step: etl
            tool:
              - extract: {kind: python, code: "return [3, 1, 2]"}
              - sort: {kind: transform, value: "{{ extract | sort }}"}
              - first: {kind: transform, value: "{{ _prev[0] }}"}
        """,
        {},
        ["etl"],
        1,
    ),
    "pipeline-named": Example(
        """
        workflow:
          - step: etl
            tool:
              - {name: extract, kind: python, code: "return [3, 1, 2]"}
              - {kind: transform, value: "{{ extract | length }}"}
        """,
        {},
        ["etl"],
        3,
    ),
    "retry-and-attempts": Example(
        """
        workflow:
          - step: call
            tool:
              - try:
                  kind: python
                  input: {attempt: "{{ _attempt }}"}
                  code: |
                    if attempt < 3: raise ValueError("not yet")
                    return attempt
                  spec:
                    policy:
                      rules:
                        - when: "{{ outcome.status == 'error' }}"
                          then: {do: retry, attempts: 5, backoff: exponential, delay: 2}
                        - else: {then: {do: continue}}
        """,
        {},
        ["call"],
        3,
    ),
    "pagination-by-jump": Example(
        """
        workflow:
          - step: pages
            tool:
              - fetch:
                  kind: python
                  input: {page: "{{ iter.page | default(1) }}"}
                  code: "return {'items': [page * 10], 'next': page + 1 if page < 3 else None}"
                  spec:
                    policy:
                      rules:
                        - else:
                            then:
                              do: continue
                              set_iter: {all: "{{ iter.all | default([]) + output.data.items }}"}
              - more:
                  kind: noop
                  spec:
                    policy:
                      rules:
                        - when: "{{ fetch.next is not none }}"
                          then: {do: jump, to: fetch, set_iter: {page: "{{ fetch.next }}"}}
                        - else: {then: {do: continue}}
              - gather: {kind: transform, value: "{{ iter.all }}"}
        """,
        {},
        ["pages"],
        [10, 20, 30],
    ),
    "break-ends-the-pipeline": Example(
        """
        workflow:
          - step: s
            tool:
              - a: {kind: transform, value: 1, spec: {policy: {rules: [{else: {then: {do: break}}}]}}}
              - b: {kind: transform, value: 2}
        """,
        {},
        ["s"],
        1,
    ),
    "fail-by-rule": Example(
        """
        workflow:
          - step: s
            tool:
              - a:
                  kind: transform
                  value: {status: failed}
                  spec:
                    policy:
                      rules: [{when: "{{ outcome.result.status == 'failed' }}", then: {do: fail}}]
        """,
        {},
        ["s"],
        problem="failed_by_policy",
    ),
    "unmatched-continues": Example(
        """
        workflow:
          - step: s
            tool:
              - a:
                  kind: python
                  code: return 1/0
                  spec: {policy: {rules: [{when: "{{ false }}", then: {do: fail}}]}}
              - b: {kind: transform, value: "{{ a is none }}"}
        """,
        {},
        ["s"],
        True,
    ),
    "policy-set-ctx": Example(
        """
        workflow:
          - step: s
            tool:
              - a:
                  kind: transform
                  value: {id: 4}
                  spec: {policy: {rules: [{else: {then: {do: continue, set_ctx: {id: "{{ outcome.result.id }}"}}}}]}}
            next: {arcs: [{step: t, when: "{{ ctx.id == 4 }}"}]}
          - {step: t, tool: {kind: transform, value: "{{ ctx.id }}"}}
        """,
        {},
        ["s", "t"],
        4,
        {"id": 4},
    ),
    "loop-sequential": Example(
        """
        workload: {users: [ada, eve]}
        workflow:
          - step: each
            loop: {in: "{{ workload.users }}", iterator: user, spec: {mode: sequential}}
            tool: {kind: python, input: {user: "{{ iter.user }}", n: "{{ iter.index }}"}, code: "return [n, user]"}
        """,
        {},
        ["each"],
        [[0, "ada"], [1, "eve"]],
    ),
    "loop-parallel-and-done": Example(
        """
        workflow:
          - step: each
            loop:
              in: "{{ range(20) | list }}"
              iterator: n
              spec: {mode: parallel, max_in_flight: 4, policy: {exec: local}}
            tool: {kind: transform, value: "{{ n * n }}"}
            next: {arcs: [{step: total, when: "{{ event.name == 'loop.done' }}"}]}
          - {step: total, tool: {kind: transform, value: "{{ each | sum }}"}}
        """,
        {},
        ["each", "total"],
        2470,
    ),
    "loop-iter-is-each-items-own": Example(
        """
        workflow:
          - step: each
            loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel}}
            tool:
              - a:
                  kind: noop
                  spec: {policy: {rules: [{else: {then: {do: continue, set_iter: {mine: "{{ n * 10 }}"}}}}]}}
              - b: {kind: transform, value: "{{ iter.mine }}"}
        """,
        {},
        ["each"],
        [10, 20, 30],
    ),
    "workbook": Example(
        """
        workbook:
          double: {kind: transform, value: "{{ n * 2 }}"}
        workflow:
          - {step: s, tool: {kind: workbook, task: double, input: {n: 21}}}
        """,
        {},
        ["s"],
        42,
    ),
    "spec-layering": Example(
        """
        executor: {spec: {policy: {failure: best_effort}}}
        workflow:
          - {step: a, tool: {kind: python, code: "return 1/0"}, spec: {policy: {failure: fail_fast}}}
        """,
        {},
        ["a"],
        problem="python_raised",
    ),
    "output-select": Example(
        """
        workflow:
          - step: s
            tool:
              kind: python
              code: "return {'data': {'items': [{'id': 9}]}}"
              output: {select: [{path: "$.data.items[0].id", as: first}]}
            next: [t]
          - {step: t, tool: {kind: transform, value: "{{ s.first }}"}}
        """,
        {},
        ["s", "t"],
        9,
    ),
    "back-arcs": Example(
        """
        workflow:
          - step: count
            tool: {kind: transform, value: "{{ ctx.n | default(0) + 1 }}"}
            set: {n: "{{ count }}"}
            next: {arcs: [{step: count, when: "{{ ctx.n < 3 }}"}, {step: end}]}
          - {step: end, tool: {kind: transform, value: "{{ ctx.n }}"}}
        """,
        {},
        ["count", "count", "count", "end"],
        3,
        {"n": 3},
    ),
    "quiescence": Example(
        """
        workflow:
          - step: start
            tool: {kind: noop}
            next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}
          - {step: a, tool: {kind: transform, value: 1}}
          - {step: b, tool: {kind: transform, value: 2}}
        """,
        {},
        ["start", "a", "b"],
        2,
    ),
    "wait": Example(
        """
        workflow:
          - {step: pause, tool: {kind: wait, seconds: 0}, next: [end]}
          - {step: end, tool: {kind: transform, value: over}}
        """,
        {},
        ["pause", "end"],
        "over",
    ),
}


@pytest.mark.parametrize("name", list(EXAMPLES))
async def test_means_here_what_it_means_there(box: Box, name: str) -> None:
    """Path, answer and ctx of one construct's playbook."""
    example = EXAMPLES[name]
    source = HEAD + textwrap.dedent(example.source)
    blueprint = await box.register(compile_playbook(source.encode(), f"{name}.yaml"))
    box.submit(blueprint.path, encode(example.given), content_type="application/cbor", form="local")
    await box.settle_with_pauses()
    events = box.events()
    seq = next(event.seq for event in events if isinstance(event.body, ExecutionRequested))
    mine = [event for event in events if event.seq == seq or event.execution == seq]
    state = fold(mine)
    assert (state.problem or {}).get("code") == example.problem, state.problem
    assert state.status == ("completed" if example.problem is None else "failed")
    assert [event.step for event in mine if isinstance(event.body, StepDone | StepFailed)] == example.path
    assert state.ctx == (example.ctx or {})
    if example.result is not None:
        assert decode(box.answers[-1].payload)["result"] == example.result


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
    "unknown-kind": ("workflow: [{step: a, tool: {kind: quantum}}]\n", "no tool of kind"),
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
