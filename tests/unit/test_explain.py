"""`edge explain`: decisions evaluated again from the log, beside what the log says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.cli.main import main
from edge.core.events import CatalogRegistered, Event, ExecutionRequested, StepDone
from edge.replay.decisions import CHANGED, Decision
from edge.replay.explain import explain
from edge.testing.box import Box
from playbooks.blueprint import Blueprint
from playbooks.compile import compile_playbook
from playbooks.spoken import looked_at, spoken

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\nworkload: {n: 1, limit: 2}\n"
PLAYBOOK = (
    HEAD
    + """
workflow:
  - step: start
    tool: {kind: transform, value: {double: "{{ n * 2 }}"}}
    set: {seen: "{{ start.double }}"}
    next:
      spec: {mode: inclusive}
      arcs:
        - {step: a, when: "{{ output.double > limit }}"}
        - step: b
        - {step: c, when: "{{ n > 100 }}"}
  - step: a
    tool:
      - ask:
          kind: python
          spec:
            policy:
              rules:
                - when: "{{ outcome.status == 'error' and _attempt < 3 }}"
                  then: {do: retry, attempts: 3, delay: 1}
                - else: {do: continue, set: {ctx.tried: "{{ _attempt }}"}}
          code: "return 1/0"
      - make: {kind: transform, value: {ok: "{{ ask is none }}"}}
    next: [join]
  - step: b
    spec:
      policy:
        admit:
          rules:
            - {when: "{{ ctx.tried is defined }}", then: {allow: true}}
            - else: {allow: false}
    tool: {kind: python, code: "return {'b': 1}"}
    next: [join]
  - {step: c, tool: {kind: noop}}
  - step: join
    tool: {kind: transform, value: "{{ [a.ok, b.b] }}"}
    next:
      - {step: each, when: "{{ join | length == 2 }}"}
      - step: c
  - step: each
    loop: {in: "{{ [1, 2] }}", iterator: i}
    tool:
      - one:
          kind: python
          input: {i: "{{ i }}"}
          code: return i * 2
          spec: {policy: {rules: [{when: "{{ output.data > 2 }}", then: {do: break}}]}}
      - two: {kind: transform, value: "{{ one + 1 }}"}
"""
)


async def ran(box: Box, source: str, payload: bytes = b"{}") -> tuple[Blueprint, list[Event]]:
    """The blueprint, and the events of one execution of it."""
    blueprint = await box.register(compile_playbook(source.encode(), "p.yaml"))
    box.submit(blueprint.path, payload)
    await box.settle_with_pauses()
    events = box.events()
    seq = next(event.seq for event in events if isinstance(event.body, ExecutionRequested))
    return blueprint, [event for event in events if event.seq == seq or event.execution == seq]


def told(decisions: list[Decision]) -> list[str]:
    """Each decision in one line."""
    return [
        f"{each.kind} {each.step}: {each.chosen}{f' ({each.status})' * bool(each.status)}"
        for each in decisions
    ]


async def test_each_decision_is_told_with_what_it_looked_at(box: Box) -> None:
    """Branches, a retry, an admission that waits, a fan-in, a loop's item: all as recorded."""
    blueprint, events = await ran(box, PLAYBOOK, b'{"n": 3}')
    decisions = explain(blueprint, events, {"n": 3, "limit": 2}, "x-3", item=1)
    assert told(decisions) == [
        "arcs start: arc 1 to a, arc 2 to b",
        "admission b: not let in; asked again after the next outcome",
        "rule a/ask: retry after attempt 1",
        "rule a/ask: retry after attempt 2",
        "rule a/ask: continue",
        "arcs a: arc 1 to join",
        "wait join: waits: a has come, b can still lead here",
        "admission b: let in",
        "arcs b: arc 1 to join",
        "arcs join: arc 1 to each",
        "rule each/one: break",
        "item each: gave 4",
        "end : completed, answers with the result of each",
    ]
    arcs = decisions[0].asked
    assert [(one.condition, one.outcome, one.values) for one in arcs] == [
        ("output.double > limit", "holds", {"output.double": 6, "limit": 2}),
        ("always", "holds", {}),
        ("n > 100", "does not hold", {"n": 3}),
    ]
    assert decisions[9].asked[1].outcome == "not asked"
    assert [each.item for each in decisions if each.kind in ("rule", "item")] == [None, None, None, 1, 1]


async def test_rules_see_inputs_and_what_no_log_holds_is_named(box: Box) -> None:
    """A rule that looks at its task's input is told; one that looks at a token is not recomputed, and says why."""
    rule = "spec: {policy: {rules: [{when: '{{ WHEN }}', then: {do: continue}}]}}"
    source = HEAD + (
        "workflow:\n  - step: a\n    tool:\n"
        f"      - one: {{kind: transform, input: {{m: 3}}, value: 1, {rule.replace('WHEN', 'm > args.m - 1')}}}\n"
        "      - two: {kind: transform, input: {t: '{{ callback.token }}'}, value: 2,\n"
        f"              {rule.replace('WHEN', 't | length > 3')}}}\n"
        "      - ask: {kind: wait, callback: true, timeout: 1}\n"
    )
    blueprint, before = await ran(box, source)
    await box.pass_time(2)
    events = [event for event in box.events() if event.execution == before[0].seq]
    decisions = explain(blueprint, events, {"n": 1, "limit": 2}, "x-3")
    assert told(decisions)[:2] == ["rule a/one: continue", "rule a/two: unknown (not recomputed)"]
    assert decisions[1].note == "it looks at a callback token, which no log holds"


async def test_what_comes_out_otherwise_is_marked(box: Box) -> None:
    """A log whose arc, or whose ctx, is not what the evaluator gives now."""
    source = HEAD + (
        "workflow:\n"
        "  - step: a\n    tool: {kind: transform, value: 5}\n    set: {kept: '{{ a }}'}\n"
        "    next: [{step: b, when: '{{ a > 3 }}'}, {step: c}]\n"
        "  - {step: b, tool: {kind: noop}}\n  - {step: c, tool: {kind: noop}}\n"
    )
    blueprint, events = await ran(box, source)

    def with_body(**changes: Any) -> list[Event]:
        return [
            replace(event, body=replace(event.body, **changes))
            if event.step == "a"
            else replace(event, step="c")
            if event.step == "b" and "arc" in changes
            else event
            for event in events
        ]

    assert not [each for each in explain(blueprint, events, {}, "x") if each.status]
    other = explain(blueprint, with_body(arc=1), {}, "x")
    assert [(each.step, each.status, each.note) for each in other if each.status] == [
        ("a", CHANGED, "now it takes arc 1")
    ]
    assert isinstance(events[1].body, StepDone)
    other = explain(blueprint, with_body(ctx={"kept": 6}), {}, "x")
    assert [each.status for each in other if each.kind == "arcs"] == [CHANGED]


async def test_what_the_log_lacks_is_named(box: Box) -> None:
    """A large pure result stands in the log by its digest: what looked at it is not guessed."""
    source = HEAD + (
        "workflow:\n"
        "  - step: a\n    tool: {kind: transform, value: \"{{ 'x' * 3000 }}\"}\n"
        "    next: [{step: b, when: '{{ a | length > 3 }}'}]\n"
        "  - {step: b, tool: {kind: noop}}\n"
    )
    blueprint, events = await ran(box, source)
    first = explain(blueprint, events, {}, "x")[0]
    assert first.status == "not recomputed"
    assert "digest alone" in first.note
    assert first.chosen == "arc 1 to b"


async def test_failures_are_told(box: Box) -> None:
    """Arcs after a failure, and a failure that ends the execution."""
    source = HEAD + (
        "workflow:\n"
        "  - step: a\n    tool: {kind: python, code: return 1/0}\n"
        "    next: [{step: b}, {step: c, when: \"{{ event.name == 'step.failed' }}\"}]\n"
        "  - {step: b, tool: {kind: noop}}\n"
        "  - {step: c, tool: {kind: python, code: return 1/0}}\n"
    )
    blueprint, events = await ran(box, source)
    decisions = explain(blueprint, events, {}, "x")
    assert told(decisions)[0] == "arcs a: arc 2 to c"
    assert decisions[0].asked[0].condition == "only after success"
    assert decisions[-1].chosen.startswith("failed: ")


async def test_what_an_open_execution_waits_for(box: Box) -> None:
    """A wait, and a step that waits for the branch the wait is in."""
    source = HEAD + (
        "workflow:\n"
        "  - {step: a, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}\n"
        "  - {step: b, tool: {kind: wait, duration: 2h}, next: [d]}\n"
        "  - {step: c, tool: {kind: noop}, next: [d]}\n"
        "  - {step: d, tool: {kind: noop}}\n"
    )
    blueprint, events = await ran(box, source)
    waits = [each for each in explain(blueprint, events, {}, "x") if each.kind == "wait"]
    assert [(each.step, each.chosen.partition(" event")[0]) for each in waits] == [
        ("d", "waits: c has come, b can still lead here"),
        ("b", "waits since"),
    ]
    assert waits[1].chosen.endswith("wait of task b")


async def test_an_admission_that_says_no_now_is_marked(box: Box) -> None:
    """A step is in the log as done, and its rules would not let it in."""
    source = HEAD + (
        "workflow:\n"
        "  - step: a\n    tool: {kind: noop}\n"
        "    spec: {policy: {admit: [{when: '{{ n < 5 }}', then: {allow: true}}, {else: {allow: false}}]}}\n"
    )
    blueprint, events = await ran(box, source)
    assert [each.status for each in explain(blueprint, events, {"n": 1}, "x")] == ["", ""]
    other = explain(blueprint, events, {"n": 9}, "x")
    assert [each.note for each in other if each.status == CHANGED] == [
        "step a began although its admission says no now"
    ]


async def test_the_command_reads_a_stopped_boxs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By number or id, as text or JSON; what is no execution is refused."""
    box = Box(tmp_path)
    _, events = await ran(box, PLAYBOOK, b'{"n": 3}')
    await box.close()
    number = str(events[0].seq)
    assert main(["explain", number, "--data", str(tmp_path), "--item", "1"]) == 0
    text = capsys.readouterr().out
    assert "output.double > limit  [holds]  output.double = 6, limit = 2" in text
    assert "each/one item 1" in text
    assert main(["explain", number, "--data", str(tmp_path), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["kind"] == "arcs"
    assert lines[0]["asked"][0]["values"] == {"output.double": 6, "limit": 2}
    assert main(["explain", number, "--data", str(tmp_path), "--item", "2"]) == 2
    assert "has an item 2: each has 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["explain", number, "--data", str(tmp_path), "--item", "-1"])
    assert "argument --item: '-1' is not a whole number from 0 up" in capsys.readouterr().err
    for wrong in ("x", "99", "1", f"abc-{number}"):
        assert main(["explain", wrong, "--data", str(tmp_path)]) == 2, wrong


@pytest.mark.parametrize(
    ("written", "words", "paths"),
    [
        ("a.b[0] > 1 and not c", "(a.b[0] > 1) and not c", ["a.b[0]", "c"]),
        ("x | default('y') ~ 'z'", '(x | default("y")) ~ "z"', ["x"]),
        ("[a, {'k': b}][i]", '[a, {"k": b}][i]', ["a", "b", "i"]),
        ("a if b is defined else -c", "a if (b is defined) else -c", ["b", "a", "c"]),
        ("s.upper() in t[1:]", "s.upper() in t[1:]", ["s", "t"]),
        ("n * 2 + range(3) | length", "(n * 2) + (range(3) | length)", ["n"]),
        ("s[a] and x is defined", "s[a] and (x is defined)", ["s", "a", "x"]),
    ],
)
def test_expressions_in_words_again(written: str, words: str, paths: list[str]) -> None:
    """What is compiled can be read, and the names it looks at are found."""
    value = json.dumps("{{ " + written + " }}")
    source = HEAD + f"workflow:\n  - step: st\n    tool: {{kind: transform, value: {value}}}\n"
    names = "input: {a: 1, b: 1, c: 1, x: 1, i: 0, s: q, t: r}"
    blueprint = compile_playbook((source + f"    {names}\n").encode(), "p.yaml")
    node = blueprint.steps[0].tasks[0].config["value"].node
    if node[0] == "text":
        node = ["bin", "~", *node[1:]]
    assert spoken(node) == spoken(["quiet", node]) == words
    assert sorted(name for name, _ in looked_at(node)) == sorted(paths)


@pytest.mark.parametrize("when", ["event.name == 'step.failed'", "event.error.code == 'x'"])
def test_events_are_spoken_of_as_they_are_written(when: str) -> None:
    """The compiler puts a map in place of `event`; nobody is shown that."""
    source = (
        HEAD
        + "workflow:\n  - step: a\n    tool: {kind: noop}\n    next: [{step: b, when: WHEN}]\n  - step: b\n"
    )
    source = source.replace("WHEN", json.dumps("{{ output.status == 'error' and " + when + " }}"))
    blueprint = compile_playbook((source + "    tool: {kind: noop}\n").encode(), "p.yaml")
    condition = blueprint.steps[0].arcs[0].when_failed
    assert condition is not None
    assert when.replace("'", '"') in spoken(condition.node)
    assert when.partition(" ")[0] in [name for name, _ in looked_at(condition.node)]


def test_the_catalog_is_in_the_log(tmp_path: Path) -> None:
    """What explain needs of a blueprint is the event that registered it."""
    blueprint = compile_playbook(PLAYBOOK.encode(), "p.yaml")
    event = CatalogRegistered(blueprint.path, blueprint.digest, blueprint.data)
    assert Blueprint.decode(event.blueprint).digest == blueprint.digest
