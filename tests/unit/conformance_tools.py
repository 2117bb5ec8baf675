"""Examples of the conformance set: pipelines and their policies, loops, workbooks, outputs, waits."""

from __future__ import annotations

from tests.unit.conformance_example import Example

TOOLS: dict[str, Example] = {
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
