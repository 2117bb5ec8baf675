"""A playbook drawn as a Mermaid flowchart."""

from __future__ import annotations

from playbooks.mermaid import mermaid

SOURCE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: drawn, path: t/drawn}
executor: {spec: {final_step: last}}
workflow:
  - step: first
    tool: {kind: noop}
    next:
      spec: {mode: inclusive}
      arcs: [{step: each, when: '{{ workload.a == "x" }}'}, {step: gated}]
  - step: each
    loop: {in: [1], iterator: n, spec: {mode: parallel}}
    tool:
      - {name: one, kind: noop}
      - {name: two, kind: transform, value: 1}
    next: [{step: gated, when: "{{ event.name == 'step.failed' }}"}]
  - step: gated
    spec: {effect: write, policy: {admit: [{else: {allow: true}}]}}
    tool: {kind: python, code: result = 1}
  - step: last
    tool: {kind: noop}
"""


def test_steps_arcs_and_what_they_ask() -> None:
    """Loops, gates and pipelines have their shapes, arcs their conditions; failure arcs are dotted, forks thick."""
    assert mermaid(SOURCE.encode(), "p.yaml").splitlines() == [
        "flowchart TD",
        "  %% t/drawn",
        "  start(( )) --> s0",
        '  s0["first<br/>noop"]',
        '  s0 ==>|"workload.a == #quot;x#quot;"| s1',
        "  s0 ==> s2",
        '  s1[["each<br/>for each n, in parallel<br/>one: noop → two: transform"]]',
        "  s1 -.->|\"event.name == 'step.failed'\"| s2",
        '  s2[/"gated<br/>python<br/>writes"/]',
        '  s3["last<br/>noop<br/>final"]',
        "  rest(( )) -. at rest .-> s3",
    ]
