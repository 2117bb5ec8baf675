"""Examples of the conformance set: workloads, steps, arcs, failures, admission."""

from __future__ import annotations

from tests.unit.conformance_example import Example

ROUTING: dict[str, Example] = {
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
}
