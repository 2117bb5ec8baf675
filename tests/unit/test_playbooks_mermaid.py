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
      - name: two
        kind: transform
        value: 1
        spec: {policy: {rules: [{when: "{{ false }}", then: {do: retry}}, {else: {do: jump, to: one}}]}}
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
        '  s1[["each<br/>for each n, in parallel<br/>one: noop<br/>two: transform, may retry, may go to one"]]',
        "  s1 -.->|\"event.name == 'step.failed'\"| s2",
        '  s2[/"gated<br/>python<br/>writes"/]',
        '  s3["last<br/>noop<br/>final"]',
        "  rest(( )) -. at rest .-> s3",
    ]


def test_the_arc_that_is_left_says_so() -> None:
    """Where the first fitting arc is taken, one without a condition after others is taken otherwise."""
    source = SOURCE.replace("{mode: inclusive}", "{mode: exclusive}")
    assert '  s0 -->|"otherwise"| s2' in mermaid(source.encode(), "p.yaml").splitlines()


def test_nothing_an_author_writes_ends_or_formats_a_label() -> None:
    """Quotes, HTML, Markdown and entities stand for themselves."""
    source = SOURCE.replace('workload.a == "x"', 'workload.a in ["<b>", "#1;", "`c`", "d & e"]')
    drawn = mermaid(source.encode(), "p.yaml")
    said = "workload.a in [#quot;#lt;b#gt;#quot;, #quot;#35;1;#quot;, #quot;#96;c#96;#quot;, #quot;d #amp; e#quot;]"
    assert f'|"{said}"|' in drawn
