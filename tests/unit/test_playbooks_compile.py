"""Playbooks that compile, and what their blueprints say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge.core.errors import PlaybookInvalid
from playbooks.blueprint import Blueprint, Step
from playbooks.compile import check_playbook, compile_playbook
from playbooks.evaluate import render, truth
from playbooks.scope import build_scope

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\n"


def compiled(body: str) -> Blueprint:
    return compile_playbook((HEAD + body).encode(), "p.yaml")


def step(body: str, index: int = 0) -> Step:
    return compiled(body).steps[index]


def run_lengths(body: str) -> list[int]:
    return [found.run for found in compiled("workflow:\n" + body).steps]


def test_a_whole_playbook() -> None:
    """A playbook with every supported construct compiles, decodes and runs by hand."""
    blueprint = compiled("""
spec: {timeout: 5s, memory_mb: 32}
workload: {limit: 70, names: [a, b]}
workflow:
  - step: shape
    desc: picks the hot ones
    input: {a: "{{ limit }}", b: step}
    tool:
      kind: transform
      input: {b: "{{ workload.names | length }}"}
      value: {a: "{{ a + 1 }}", text: "b={{ args.b }}", list: ["{{ a }}", 2]}
    set: {ctx.hot: "{{ shape.a > 70 }}", count: 3}
    next:
      spec: {mode: exclusive}
      arcs:
        - {step: act, when: "{{ ctx.hot and count == 3 }}"}
        - end
  - step: act
    spec: {effect: write, timeout: 2m, on_unknown: retry, memory_mb: 128}
    tool:
      - kind: python
        libs: {j: json, p: os.path}
        code: |
          result = 1
    next: [{step: end}]
  - step: end
    tool: {kind: noop}
""")
    assert (blueprint.name, blueprint.path) == ("p", "a/p")
    assert blueprint.workload == {"limit": 70, "names": ["a", "b"]}
    assert blueprint.step_index == {"shape": 0, "act": 1, "end": 2}
    shape, act, end = blueprint.steps
    outer = build_scope(blueprint.workload, {}, {}, "x", None)
    assert shape.input is not None
    inputs = render(shape.input, outer)
    assert inputs == {"a": 70, "b": 2}
    inner = build_scope(blueprint.workload, {}, {}, "x", inputs)
    made = render(shape.tasks[0].config["value"], inner)
    assert made == {"a": 71, "text": "b=2", "list": [70, 2]}
    after = build_scope(blueprint.workload, {}, {"shape": made}, "x", None)
    assert [(name, render(tree, after)) for name, tree in shape.set] == [("hot", True), ("count", 3)]
    assert shape.arcs[0].when is not None
    assert truth(shape.arcs[0].when, {**after, "ctx": {"hot": True, "count": 3}})
    assert [arc.target for arc in shape.arcs] == [1, 2]
    assert (shape.effect, shape.timeout_ms, shape.memory_mb) == ("pure", 5_000, 32)
    assert (act.effect, act.timeout_ms, act.memory_mb, act.on_unknown) == ("write", 120_000, 128, "retry")
    assert act.tasks[0].config == {
        "code": "result = 1\n",
        "form": "result",
        "libs": {"j": "json", "p": "os.path"},
        "line": 27,
    }
    assert (end.tasks[0].kind, end.arcs, end.on_unknown) == ("noop", (), "fail")


def test_the_same_source_gives_the_same_blueprint() -> None:
    """The digest depends on the meaning only: not on the file's name, line ends or a byte order mark."""
    body = HEAD + "workflow:\n  - step: a\n    tool: {kind: transform, value: {b: 1, a: [x]}}\n"
    first = compile_playbook(body.encode(), "one.yaml")
    second = compile_playbook(b"\xef\xbb\xbf" + body.replace("\n", "\r\n").encode(), "two.yaml")
    assert first.digest == second.digest
    assert first.data == second.data
    assert Blueprint.decode(first.data) == first
    assert list(render(first.steps[0].tasks[0].config["value"], {})) == ["b", "a"]


def test_daemons_import_neither_yaml_nor_jinja() -> None:
    """What the scheduler and the workers load brings no YAML, no Jinja2 and no pydantic with it."""
    code = (
        "import sys, playbooks.blueprint, playbooks.evaluate, playbooks.scope\n"
        "print(sorted({'yaml', 'jinja2', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("spelling", "targets"),
    [
        ("next: [b, c]", None),
        ("next: [b]", [1]),
        ("next: b", [1]),
        ("next: {step: b}", [1]),
        ("next: [{step: b}]", [1]),
        ("next: {arcs: [{step: c}]}", [2]),
        ("next: {spec: {mode: exclusive}, arcs: [{step: b, when: '{{ x }}'}, {step: c}]}", [1, 2]),
        ("next: []", []),
        ("next: {arcs: [{step: a}]}", [0]),
    ],
)
def test_spellings_of_next(spelling: str, targets: list[int] | None) -> None:
    """The published spellings of `next` give the same arcs; an arc that can never be taken is refused."""
    source = f"workflow:\n  - step: a\n    tool: {{kind: noop}}\n    {spelling}\n"
    source += "  - step: b\n    tool: {kind: noop}\n  - step: c\n    tool: {kind: noop}\n"
    if targets is None:
        assert "never taken" in str(check_playbook((HEAD + source).encode(), "p")[0])
    else:
        assert [arc.target for arc in step(source).arcs] == targets


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("\"{{ event.name == 'step.done' }}\"", True),
        ("\"{{ event.name == 'step.failed' }}\"", False),
        ("true", True),
        ("false", False),
        ('"{{ 1 < 2 }}"', True),
        ("|\n          {{ workload.x }}\n", None),
    ],
)
def test_conditions_that_are_decided_while_compiling(condition: str, wanted: bool | None) -> None:
    """A `when` that mentions no value is decided once; an arc that always holds is unconditional."""
    arc = step(
        "workflow:\n  - step: a\n    tool: {kind: noop}\n    next:\n      - step: a\n        when: "
        + condition
    ).arcs[0]
    if wanted is None:
        assert arc.when is not None
        assert arc.when.node == ["attr", ["name", "workload"], "x"]
    elif wanted:
        assert arc.when is None
    else:
        assert arc.when is not None
        assert arc.when.node == ["const", False]


@pytest.mark.parametrize(
    "tool",
    [
        "tool: {kind: noop}",
        "tool: [{kind: noop}]",
        "tool: [{name: t, kind: noop}]",
        "tool: [{t: {kind: noop}}]",
        "tool: {kind: noop, desc: d}",
        "next: []",
    ],
)
def test_spellings_of_tool(tool: str) -> None:
    """One tool may be written as a map, in a list, named or labelled; a step that only routes is a noop."""
    assert step(f"workflow:\n  - step: a\n    {tool}\n").tasks[0].kind == "noop"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("5", 5_000), ("0.25", 250), ('"5s"', 5_000), ("500ms", 500), ("2m", 120_000), ("1.5s", 1_500)],
)
def test_timeouts(text: str, wanted: int) -> None:
    """A timeout is seconds, or a number with its unit."""
    assert (
        step(f"workflow:\n  - {{step: a, spec: {{timeout: {text}}}, tool: {{kind: noop}}}}").timeout_ms
        == wanted
    )


@pytest.mark.parametrize(
    ("root", "own", "kind", "wanted"),
    [
        ("", "", "python", ("read", "fail")),
        ("", "effect: pure", "python", ("pure", "fail")),
        ("", "effect: write, on_unknown: ask", "python", ("write", "ask")),
        ("effect: write, on_unknown: retry", "", "python", ("write", "retry")),
        ("effect: write, on_unknown: retry", "effect: read", "python", ("read", "fail")),
        ("effect: write, on_unknown: retry", "", "noop", ("pure", "fail")),
        ("", "effect: pure", "noop", ("pure", "fail")),
    ],
)
def test_effects(root: str, own: str, kind: str, wanted: tuple[str, str]) -> None:
    """A step's own policy wins over the playbook's; what is pure by nature stays pure."""
    tool = "kind: python, code: 'result = 1'" if kind == "python" else "kind: noop"
    found = step(f"spec: {{{root}}}\nworkflow:\n  - {{step: a, spec: {{{own}}}, tool: {{{tool}}}}}")
    assert (found.effect, found.on_unknown) == wanted


@pytest.mark.parametrize(
    ("spec", "wanted"), [("{effect: write, on_unknown: retry}", "retry"), ("{effect: write}", "fail")]
)
def test_a_pipelines_write_says_what_follows_where_nobody_knows(spec: str, wanted: str) -> None:
    """Wherever in the pipeline the write stands; what its other tasks say of it means nothing."""
    read = "{kind: python, code: result = 1, spec: {on_unknown: RETRY}}".replace("RETRY", "ask")
    tool = f"[{read}, {{kind: python, code: result = 1, spec: {spec}}}]"
    source = f"{HEAD}workflow: [{{step: a, tool: {tool}}}]\n"
    assert compile_playbook(source.encode(), "p.yaml").steps[0].on_unknown == wanted


def test_straight_runs() -> None:
    """A claim carries on over pure steps joined by single unconditional arcs, and stops where it must."""
    pure = "  - {step: %s, tool: {kind: noop}, next: [%s]}\n"
    assert run_lengths(pure % ("a", "b") + pure % ("b", "c") + pure % ("c", "")) == [2, 1, 0]
    assert run_lengths(pure % ("a", "b") + pure % ("b", "a")) == [1, 1]
    assert run_lengths(pure % ("a", "a")) == [0]
    with_set = "  - {step: b, tool: {kind: noop}, set: {x: 1}, next: [c]}\n"
    assert run_lengths(pure % ("a", "b") + with_set + pure % ("c", "")) == [1, 0, 0]
    asks = "  - {step: b, tool: {kind: noop}, next: [{step: c, when: '{{ x }}'}]}\n"
    assert run_lengths(pure % ("a", "b") + asks + pure % ("c", "")) == [1, 0, 0]
    reads = "  - {step: b, tool: {kind: python, code: 'result = 1'}, next: [c]}\n"
    assert run_lengths(pure % ("a", "b") + reads + pure % ("c", "")) == [0, 0, 0]


@pytest.mark.parametrize(
    ("template", "reads", "workload", "ctx"),
    [
        ("1", (), False, False),
        ("workload.x", (), True, False),
        ("ctx.x", (), False, True),
        ("bare", (), True, False),
        ("patched", (), True, True),
        ("b.x + a.x", ("a", "b"), False, False),
        ("shared", ("shared",), True, False),
        ("inp + args.inp", (), False, False),
        ("execution_id", (), False, False),
        ("[a] | map('default', workload)", ("a",), True, False),
    ],
)
def test_what_a_step_reads(template: str, reads: tuple[str, ...], workload: bool, ctx: bool) -> None:
    """A step says which results, and whether workload and ctx, its templates mention."""
    found = step(
        f"""workload: {{shared: 1}}
workflow:
  - step: a
    input: {{inp: 1}}
    tool: {{kind: transform, value: "{{{{ {template} }}}}"}}
  - {{step: b, tool: {{kind: noop}}, set: {{patched: 1}}}}
  - {{step: shared, tool: {{kind: noop}}}}
"""
    )
    assert (found.reads, found.reads_workload, found.reads_ctx) == (reads, workload, ctx)


def test_a_step_name_means_its_result_only() -> None:
    """A step's name nobody else bears is never looked up in a request's own keys."""
    found = step(
        'workflow:\n  - {step: a, tool: {kind: transform, value: "{{ b }}"}}\n  - {step: b, tool: {kind: noop}}'
    )
    assert found.tasks[0].config["value"].node == ["step", "b"]


def test_native_and_mixed_text() -> None:
    """One whole expression keeps its type, also in a block; anything mixed is a text."""
    found = step("""workload: {n: 3}
workflow:
  - step: a
    tool:
      kind: transform
      value:
        whole: "{{ n }}"
        spaced: " {{ n }}"
        mixed: "{{ n }}{{ n }}"
        block: |
          {{ n }}
        folded: >-
          {{ n
             + 1 }}
        braces: "{{ {'a': {'b': '}}'}} | tojson }} }"
        plain: 12:30
        yes: no
""")
    assert render(found.tasks[0].config["value"], build_scope({"n": 3}, {}, {}, "x", {})) == {
        "whole": 3,
        "spaced": " 3",
        "mixed": "33",
        "block": 3,
        "folded": 4,
        "braces": '{"a": {"b": "}}"}} }',
        "plain": "12:30",
        "yes": "no",
    }


def test_the_arrow_tool() -> None:
    """Column expressions stay plain data, in the documented form."""
    found = step("""workflow:
  - step: a
    tool:
      kind: arrow
      table: "{{ workload.table }}"
      input: {limit: 3}
      ops:
        - filter: "{{ (t > limit and not (l is none)) or t < args.limit }}"
        - project: {t: "{{ t | round(1) }}", one: 1, p: "{{ -l % 2 if t == 'x' else none }}"}
        - aggregate: {values: {n: "{{ t | count }}", avg: "{{ (t + 1) | avg }}"}}
        - window: {by: [room], order: [at], rows: 5, values: {m: "{{ t | max }}"}}
      output: row
""")
    t, limit = ["name", "t"], ["name", "limit"]
    assert found.tasks[0].config["ops"] == [
        [
            "filter",
            [
                "or",
                ["and", ["cmp", t, [[">", limit]]], ["not", ["test", "none", ["name", "l"], []]]],
                ["cmp", t, [["<", ["attr", ["name", "args"], "limit"]]]],
            ],
        ],
        [
            "project",
            [
                ["t", ["filter", "round", t, [["const", 1]], {}]],
                ["one", ["const", 1]],
                ["p", ["if", ["cmp", t, [["==", ["const", "x"]]]],
                       ["bin", "%", ["neg", ["name", "l"]], ["const", 2]], ["const", None]]],
            ],
        ],
        ["aggregate", [], [["n", "count", t], ["avg", "mean", ["bin", "+", t, ["const", 1]]]]],
        ["window", ["room"], ["at"], 5, [["m", "max", t]]],
    ]  # fmt: skip
    assert found.tasks[0].config["output"] == "row"
    assert found.tasks[0].config["table"].node == ["attr", ["name", "workload"], "table"]
    assert (found.effect, found.reads_workload) == ("pure", True)


def test_refusals_carry_their_problems() -> None:
    """The error a caller catches is PlaybookInvalid and lists every problem, in order."""
    with pytest.raises(PlaybookInvalid) as caught:
        compile_playbook(b"kind: Playbok\nfoo: 1\n", "p.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("p.yaml:1:1: The playbook has no `apiVersion`.")
    assert "p.yaml:1:7: `kind` cannot be 'Playbok'. Did you mean 'Playbook'? Allowed: Playbook." in lines
    assert any(line.startswith("p.yaml:2:1: A playbook cannot have the key 'foo'.") for line in lines)
    assert len(caught.value.problems) == len(lines)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "workbook",
    [
        "{double: {kind: transform, value: '{{ args.x * 2 }}', input: {x: 1, y: 5}}}",
        "{tasks: {double: {kind: transform, value: '{{ args.x * 2 }}', input: {x: 1, y: 5}}}}",
        "[{name: double, tool: {kind: transform, value: '{{ args.x * 2 }}', input: {x: 1, y: 5}}}]",
        "[{name: double, kind: transform, value: '{{ args.x * 2 }}', input: {x: 1, y: 5}}]",
    ],
)
@pytest.mark.parametrize(
    "tool", ["{kind: workbook, task: double, input: {x: 4}}", "{kind: workbook, name: double, input: {x: 4}}"]
)
def test_a_template_takes_the_place_of_its_name(workbook: str, tool: str) -> None:
    """Every published form of a workbook gives the blueprint of the tool written out, its inputs merged."""
    written_out = "{kind: transform, value: '{{ args.x * 2 }}', input: {x: 4, y: 5}}"
    used = compiled(f"workbook: {workbook}\nworkflow:\n  - {{step: a, tool: {tool}}}")
    assert used.data == compiled(f"workflow:\n  - {{step: a, tool: {written_out}}}").data
    piped = compiled(f"workbook: {workbook}\nworkflow:\n  - {{step: a, tool: [{{kind: noop}}, {tool}]}}")
    assert [task.kind for task in piped.steps[0].tasks] == ["noop", "transform"]
