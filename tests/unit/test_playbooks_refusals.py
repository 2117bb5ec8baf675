"""What the compiler refuses, and where it says the mistake stands."""

from __future__ import annotations

import pytest

from edge.core.limits import PLAYBOOK_BYTES_MAX, PLAYBOOK_STEPS_MAX
from playbooks.compile import check_playbook
from playbooks.loader import Scalar, load
from playbooks.problems import Source
from playbooks.scalars import origins

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\n"
STEP = HEAD + "workflow:\n  - step: a\n"
ARROW = STEP + "    tool: {kind: arrow, table: '{{ x }}', "
NEXT = "workflow: [{step: a, next: []}]"


def marked(source: str) -> tuple[str, int, int]:
    """The source without its `¶`, and the line and column where that stood."""
    before, _, after = source.partition("¶")
    return before + after, before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        # YAML itself
        (HEAD + "workload: {a: ¶*x}\n", "alias *x"),
        (HEAD + "workload: {a: ¶&x 1}\n", "anchor &x"),
        (HEAD + "workload: {a: ¶!!str 1}\n", "tag"),
        (HEAD + "workload: {a: ¶!x {b: 1}}\n", "tag !x"),
        (HEAD + "workload: {a: 1, ¶a: 2}\n", "stands twice"),
        (HEAD + "workload: {¶<<: {b: 1}}\n", "Merge keys"),
        (HEAD + "workload: {¶1: 2}\n", "A key must be a text"),
        (HEAD + "workload: {¶[a]: 2}\n", "A key must be a text"),
        (HEAD + "workload: {a: 1}\n¶---\na: 1\n", "second document"),
        ("¶%YAML 1.1\n---\na: 1\n", "directives"),
        (HEAD + "workload: {a: ¶0x1F}\n", "different things"),
        (HEAD + "workload: {a: ¶007}\n", "different things"),
        (HEAD + "workload: {a: ¶1_000}\n", "different things"),
        (HEAD + "workload: {a: ¶.inf}\n", "different things"),
        (HEAD + "workload: {a: ¶1e999}\n", "not a finite number"),
        (HEAD + "workload: {a: ¶99999999999999999999}\n", "64 bits"),
        (HEAD + "workload: " + "[" * 23 + "¶[1]" + "]" * 23 + "\n", "deeper than 24"),
        (HEAD + "workload: {a: ¶\x07}\n", "character"),
        (HEAD + 'workload: {a: "b"¶"c"}\n', "valid YAML"),
        (HEAD + "workload: {a: [1\n¶", "valid YAML"),
        ("¶", "holds nothing"),
        ("¶[1]", "A playbook must be a map"),
        # the root
        (HEAD + "¶worklod: {}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "Did you mean 'workload'"),
        (HEAD + "keychain: ¶{}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "must be a list"),
        (HEAD + "workbook: {t: ¶{}}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "is no tool"),
        (HEAD + "workbook: [¶{tool: {kind: noop}}]\nworkflow: [{step: a, tool: {kind: noop}}]\n", "with a `name`"),
        (HEAD + "workbook: {tim: {kind: noop}}\nworkflow: [{step: a, tool: {kind: workbook, task: ¶tom}}]\n",
         "Did you mean 'tim'"),
        (HEAD + "workbook: {}\nworkflow: [{step: a, tool: ¶{kind: workbook}}]\n", "which template it is"),
        (HEAD + "workbook: {t: {kind: ¶workbook, task: t}}\nworkflow: [{step: a, tool: {kind: workbook, task: t}}]\n",
         "made of another"),
        (HEAD + "¶vars: {}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "withdrawn"),
        (HEAD + "workload: {a: '{{ ¶ctx.x }}'}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "means nothing"),
        (HEAD + "workload: ¶[]\nworkflow: [{step: a, tool: {kind: noop}}]\n", "`workload` must be a map"),
        (HEAD + "workflow: ¶{}\n", "must be a list"),
        (HEAD + "workflow: ¶[]\n", "no steps"),
        (HEAD + "spec: {¶effct: pure}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "Did you mean 'effect'"),
        ("apiVersion: ¶noetl.io/v1\nkind: Playbook\nmetadata: {name: p, path: p}\n" + NEXT,
         "noetl.io/v2"),
        ("apiVersion: noetl.io/v2\nkind: ¶Subscription\nmetadata: {name: p, path: p}\n" + NEXT,
         "This is a subscription"),
        ("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: ¶{name: p}\n" + NEXT, "no `path`"),
        ("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: ¶a/#}\n" + NEXT,
         "cannot be a path"),
        # steps
        (HEAD + "workflow:\n  - ¶name: a\n", "no name"),
        (HEAD + "workflow:\n  - step: ¶1a\n    next: []\n", "cannot be a step's name"),
        (HEAD + "workflow:\n  - step: ¶ctx\n    next: []\n", "name of the language"),
        (HEAD + "workflow:\n  - {step: a, next: []}\n  - ¶{step: a, next: []}\n", "two steps named 'a'"),
        (HEAD + "workflow:\n  - ¶step: a\n", "neither `tool` nor `next`"),
        (STEP + "    loop: ¶{in: []}\n    next: []\n", "has no `iterator`"),
        (STEP + "    loop: ¶{iterator: x}\n    next: []\n", "has no `in`"),
        (STEP + "    loop: {in: [], iterator: ¶iter}\n    next: []\n", "cannot be an iterator's name"),
        (STEP + "    loop: {in: [], iterator: x, spec: {mode: ¶side}}\n    next: []\n", "Allowed: sequential"),
        (STEP + "    loop: {in: [], iterator: x, spec: {max_in_flight: ¶0}}\n    next: []\n", "1 to 2048"),
        (STEP + "    loop: {cursor: ¶{}, iterator: x}\n    next: []\n", "has the mode `cursor`"),
        (STEP + "    set: {a: '{{ ¶iter.x }}'}\n    next: []\n", "inside a tool"),
        (STEP + "    ¶when: x\n    next: []\n", "put `when` on the arcs"),
        (STEP + "    spec: {policy: {¶rules: []}}\n    next: []\n", "stand under the tool"),
        (STEP + "    spec: {policy: {admit: ¶{}}}\n    next: []\n", "has no `rules`"),
        (STEP + "    spec: {policy: {admit: {rules: [¶{when: true}]}}}\n    next: []\n", "does not say what to do"),
        (STEP + "    spec: {policy: {admit: {rules: [{else: {¶do: fail}}]}}}\n    next: []\n", "task's own policy"),
        (STEP + "    spec: {policy: {admit: {rules: [{else: {allow: ¶perhaps}}]}}}\n    next: []\n", "true or false"),
        (STEP + "    spec: {policy: {admit: [{when: '{{ ¶a }}', then: {allow: true}}]}}\n    next: []\n",
         "cannot look at the result"),
        (STEP + "    spec: {policy: {failure: ¶never}}\n    next: []\n", "Allowed: fail_fast, best_effort"),
        (STEP + "    spec: {policy: {¶emit: {}}}\n    next: []\n", "not the playbook's to choose"),
        (STEP + "    spec: {timeout: ¶5 minutes}\n    next: []\n", "length of time"),
        (STEP + "    spec: {timeout: ¶2h}\n    next: []\n", "1 ms to 300 s"),
        (STEP + "    spec: {timeout: ¶6m}\n    next: []\n", "1 ms to 300 s"),
        (STEP + "    spec: {memory_mb: ¶4}\n    next: []\n", "8 to 2048"),
        (STEP + "    spec: {effect: ¶reed}\n    next: []\n", "Did you mean 'read'"),
        (STEP + "    spec: {effect: ¶write}\n    tool: {kind: noop}\n", "always pure"),
        (STEP + "    spec: {on_unknown: ¶retry}\n    tool: {kind: noop}\n", "means nothing for a pure step"),
        (STEP + "    tool: ¶[{kind: python, code: result = 1, spec: {effect: write, on_unknown: retry}}, "
         "{kind: python, code: result = 1, spec: {effect: write}}]\n", "different `on_unknown`: retry, fail"),
        (STEP + "    set: {¶iter.x: 1}\n    next: []\n", "`set` cannot write"),
        (STEP + "    set: {x: 1, ¶ctx.x: 2}\n    next: []\n", "writes 'x' twice"),
        (STEP + "    set: {¶step.x: 1}\n    next: []\n", "`set` cannot write"),
        (STEP + "    next: [¶b]\n", "no step 'b'"),
        (STEP + "    next: [{step: a, set: {¶iter.x: 1}}]\n", "`set` cannot write"),
        (STEP + "    next: [{step: a, args: {x: 1, ¶1a: 1}}]\n", "cannot write '1a'"),
        (STEP + "    next: [{step: a, ¶then: b}]\n", "withdrawn"),
        (STEP + "    next: [a, ¶{step: a, when: true}]\n", "never taken"),
        (HEAD + "executor: {spec: {entry_step: ¶b}}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "no step 'b'"),
        (HEAD + "executor: {spec: {final_step: a}}\nworkflow: [{step: a, next: [¶b]}, {step: b, next: []}]\n",
         "final step; nothing follows it"),
        (HEAD + "executor: {requires: {tools: [¶postgres]}}\nworkflow: [{step: a, tool: {kind: noop}}]\n",
         "no such tool here"),
        (HEAD + "executor: {¶profil: local}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "Did you mean 'profile'"),
        (STEP + "    next: [¶{when: true}]\n", "leads nowhere"),
        (STEP + "    next: {spec: {mode: inclusive, on_no_match: ¶stop}, arcs: []}\n", "Allowed: complete, quiet"),
        (STEP + "    next: [{step: a, when: ¶x > 1}]\n", "one whole expression"),
        (STEP + "    next: [{step: a, when: ¶'{{ x }} and y'}]\n", "one whole expression"),
        (STEP + "    next: [{step: a, when: ¶'{{ 1 / 0 }}'}]\n", "always fails"),
        (STEP + "    next: [{step: a, when: ¶[]}]\n", "one expression"),
        # tools
        (STEP + "    tool: {kind: ¶rhai}\n", "There is no rhai tool"),
        (STEP + "    tool: {kind: ¶postgres}\n", "runs in a data centre"),
        (STEP + "    tool: {kind: ¶pyton}\n", "Did you mean 'python'"),
        (STEP + "    tool: ¶{code: x}\n", "no `kind`"),
        (STEP + "    tool: ¶[]\n", "no task"),
        (STEP + "    tool: [{name: t, kind: noop}, ¶{name: t, kind: noop}]\n", "two tasks named 't'"),
        (STEP + "    tool: [{name: ¶1t, kind: noop}, {kind: noop}]\n", "cannot be a task's name"),
        (STEP + "    tool: {kind: noop, spec: {policy: ¶{}}}\n", "has no `rules`"),
        (STEP + "    tool: {kind: noop, spec: {policy: {¶admit: []}}}\n", "cannot have the key 'admit'"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [¶{then: {}}]}}}\n", "what to do"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: ¶stop}}]}}}\n", "Allowed: continue,"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: jump, to: ¶x}}]}}}\n", "no task 'x'"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [¶{then: {do: jump}}]}}}\n", "say where"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: break, attempts: ¶3}}]}}}\n",
         "means nothing with do: break"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: retry, attempts: ¶0}}]}}}\n", "1 to 100"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: retry, delay: ¶-1}}]}}}\n", "0 to 3600"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: continue, set: {¶step.x: 1}}}]}}}\n",
         "cannot write 'step.x'"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{then: {do: fail, ¶allow: true}}]}}}\n",
         "step's `policy.admit`"),
        (STEP + "    tool: {kind: noop, spec: {policy: {rules: [{when: '{{ ¶event.name }}', then: {do: fail}}]}}}\n",
         "only there in an arc"),
        (STEP + "    tool: {kind: noop, ¶auth: x}\n", "goes by no credential"),
        (STEP + "    tool: {kind: noop, ¶url: x}\n", "cannot have the key 'url'"),
        (STEP + "    tool: {kind: noop, spec: {¶tmeout: 5}}\n", "Did you mean 'timeout'"),
        (STEP + "    tool: ¶{kind: transform}\n", "needs `value`"),
        (STEP + "    tool: ¶{kind: python}\n", "needs `code`"),
        (STEP + "    tool: {kind: python, code: ¶'x = 1'}\n", "three forms"),
        (STEP + "    tool: {kind: python, code: result = 1, libs: {a: ¶'os;x'}}\n", "no module name"),
        (STEP + "    tool: {kind: python, code: result = 1, libs: {¶a-b: os}}\n", "name in Python"),
        (STEP + "    input: ¶'{{ x }}'\n    tool: {kind: noop}\n", "must be a map"),
        (STEP + "    input: {¶ctx: 1}\n    tool: {kind: noop}\n", "name of the language"),
        (STEP + "    input: {¶'{{ x }}': 1}\n    tool: {kind: noop}\n", "key cannot be a template"),
        (STEP + "    input: {a: '{{ ¶input_data.b }}'}\n    tool: {kind: noop}\n", "only there inside a tool"),
        (STEP + "    tool: ¶{kind: transform, value: '{{ keychain.x }}'}\n", "read here and not granted"),
        (STEP + "    tool: {kind: transform, value: 'a {% if x %}¶b'}\n", "'endif'"),
        (STEP + "    tool: {kind: transform, value: 'a {% ¶macro x() %}{% endmacro %}'}\n", "`{% macro %}` cannot"),
        (STEP + "    tool: ¶{kind: transform, value: 'a {% if keychain %}{% endif %}'}\n", "taken whole"),
        (STEP + "    tool: {kind: transform, value: '{% for x in y %}{{ x | ¶upp }}{% endfor %}'}\n", "'upper'"),
        (STEP + "    tool:\n      kind: transform\n      value: |\n        {% if x %}{{ y | ¶upp }}{% endif %}",
         "'upp'"),
        (STEP + "    tool: {kind: transform, value: '{% set ¶workload = 1 %}'}\n", "meaning of its own"),
        (STEP + "    tool: {kind: transform, value: '{# x #}{{- 1 ¶1 }}'}\n", "no template"),
        (STEP + "    tool: {kind: transform, value: 'a ¶{{ x '}\n", "never closed"),
        (STEP + "    tool: {kind: transform, value: \"a {{ ¶'x }}\"}\n", "never closed"),
        (STEP + "    tool: {kind: transform, value: {¶'{{ x }}': 1}}\n", "key cannot be a template"),
        # the arrow tool
        (STEP + "    tool: {kind: arrow, table: ¶x}\n", "gives a table"),
        (ARROW + "output: ¶csv}\n", "Allowed: table, rows, row"),
        (ARROW + "ops: [{¶filtr: x}]}\n", "Did you mean 'filter'"),
        (ARROW + "ops: [¶{filter: '{{ x }}', project: {a: 1}}]}\n", "one key"),
        (ARROW + "ops: [{filter: '{{ a > b | ¶upper }}'}]}\n", "'upper' cannot be used"),
        (ARROW + "ops: [{filter: '{{ ¶a in [1] }}'}]}\n", "`in` cannot"),
        (ARROW + "ops: [{filter: ¶'a > {{ 1 }}'}]}\n", "one whole"),
        (ARROW + "ops: [{project: {a: '{{ b¶.c }}'}}]}\n", "on a column"),
        (ARROW + "ops: [{project: ¶{}}]}\n", "at least one column"),
        (ARROW + "ops: [{aggregate: {values: {n: '{{¶ a }}'}}}]}\n", "outermost"),
        (ARROW + "ops: [{window: ¶{values: {n: '{{ a | min }}'}}}]}\n", "rows"),
    ],
)  # fmt: skip
def test_what_is_refused_and_where(source: str, said: str) -> None:
    """Each mistake is named at its own line and column."""
    text, line, column = marked(source)
    problems = check_playbook(text.encode(), "p.yaml")
    assert problems, "nothing was refused"
    fitting = [problem for problem in problems if said in str(problem)]
    assert fitting, [str(problem) for problem in problems]
    assert (fitting[0].line, fitting[0].column) == (line, column), str(fitting[0])


@pytest.mark.parametrize(
    "body",
    [
        '"{{ ¶foo() }}"',
        "'it''s {{ 1 + ¶foo() }}'",
        '"\\u263A\\t{{ ¶foo() }}"',
        "plain {{ ¶foo() }}",
        "plain\n          folded\n\n          {{ ¶foo() }}",
        '"quoted\n          folded  \\\n            more\n\n          {{ ¶foo() }}"',
        "|\n          one\n\n            two {{\n            ¶foo() }}",
        ">-\n          one\n          two\n\n          three\n            kept\n          {{ ¶foo() }}",
        "|2\n          x {{ ¶foo() }}\n",
    ],
)
def test_columns_inside_every_kind_of_text(body: str) -> None:
    """A mistake in an expression is shown at its exact place, whatever YAML did to the text."""
    text, line, column = marked(
        STEP + "    tool:\n      kind: transform\n      value:\n        v: " + body + "\n"
    )
    (problem,) = check_playbook(text.encode(), "p.yaml")
    assert "no function foo()" in problem.message
    at = text.split("\n")[problem.line - 1][problem.column - 1 :]
    assert at.startswith(("foo(", "(")), str(problem)
    assert problem.line == line
    assert 0 <= problem.column - column <= 3


def test_python_mistakes_stand_at_their_line() -> None:
    """A mistake in a python block is shown at the line and column of the file."""
    text, line, column = marked(
        STEP
        + "    tool:\n      kind: python\n      code: |\n        x = 1\n\n        if x:\n            y = ¶)\n"
    )
    (problem,) = check_playbook(text.encode(), "p.yaml")
    assert "not valid Python" in problem.message
    assert (problem.line, problem.column) == (line, column)


@pytest.mark.parametrize(
    ("code", "form"),
    [
        ("def main(a):\\n  return a", "main"),
        ("return 1", "return"),
        ("if args:\\n  return 1\\nelse:\\n  return 2", "return"),
        ("result = 1", "result"),
        ("for result in [1]: pass", "result"),
        ("x, result = 1, 2", "result"),
        ("def f():\\n  result = 1", None),
        ("def f():\\n  return 1", None),
        ("print(1)", None),
        ("async def main(a):\\n  return a", None),
        ("break", None),
        ("result = 1\\nbreak", None),
        ("return 1\\nawait x", None),
        ("\\0", None),
    ],
)
def test_forms_of_python(code: str, form: str | None) -> None:
    """Code has one of three forms, or is refused."""
    source = STEP + f'    tool: {{kind: python, code: "{code}"}}\n'
    problems = check_playbook(source.encode(), "p.yaml")
    assert bool(problems) is (form is None)


def test_all_problems_at_once_in_order() -> None:
    """One run finds every mistake, sorted by position; very many are cut short."""
    source = STEP + "    tool: {kind: nope}\n    bad: 1\n    next: [x, y]\n    spec: {effect: z}\n"
    problems = check_playbook(source.encode(), "p.yaml")
    assert [problem.line for problem in problems] == sorted(problem.line for problem in problems)
    assert len({problem.line for problem in problems}) == 4
    many = HEAD + "workflow:\n" + "  - {step: a, bad: 1, next: []}\n" * 200
    cut = check_playbook(many.encode(), "p.yaml")
    assert len(cut) == 51
    assert "further problems" in cut[-1].message


def test_bounds() -> None:
    """Too many bytes, too many steps and text that is not UTF-8 are refused."""
    assert "bytes" in check_playbook(b"a" * (PLAYBOOK_BYTES_MAX + 1), "p")[0].message
    steps = "".join(f"  - {{step: s{n}, next: []}}\n" for n in range(PLAYBOOK_STEPS_MAX + 1))
    assert "at most 256 steps" in check_playbook((HEAD + "workflow:\n" + steps).encode(), "p")[0].message
    (problem,) = check_playbook(b"a: 1\nbc: \xff\n", "p")
    assert (problem.line, problem.column) == (2, 5)
    assert "UTF-8" in problem.message


def test_yaml_values() -> None:
    """Only true and false are booleans; dates, times and `on` are texts; numbers are decimal."""
    source = Source(
        "[true, False, yes, on, ~, null, 1, -2, 1.5, .5, 1e3, 2026-01-02, 12:30:00, '1', +7, -, ., 1.2.3]",
        "p",
    )
    node = load(source)
    assert source.problems == []
    values = [item.value for item in node.items if isinstance(item, Scalar)]  # type: ignore[union-attr]
    assert values == [
        True, False, "yes", "on", None, None, 1, -2, 1.5, 0.5, 1000.0,
        "2026-01-02", "12:30:00", "1", 7, "-", ".", "1.2.3",
    ]  # fmt: skip


def test_origins_of_a_text() -> None:
    """Every visible character of a text is found again at its place in the file."""
    text = (
        "a: \"x\\u00e9 \\\"q\\\" \\\n   z\"\nb: >\n  one\n  two\n\n   three\nc: plain\n  more\nd: 'it''s'\n"
    )
    source = Source(text, "p")
    node = load(source)
    for _, scalar in node.pairs:  # type: ignore[union-attr]
        assert isinstance(scalar, Scalar)
        found = origins(source, scalar)
        assert len(found) == len(scalar.value) + 1
        assert found == sorted(found)
        for index, character in zip(found, scalar.value, strict=False):
            if not character.isspace() and text[index] != "\\":
                assert text[index] == character


def test_what_is_not_granted_is_said_beside_other_problems() -> None:
    """One mistake elsewhere hides neither a missing grant nor an alias without a name, nor one that is no name."""
    tools = (
        "{kind: http, url: 'https://a.b/'}",
        "{kind: mqtt, topic: a/b}",
        "{kind: shell, cmd: [/bin/true]}",
        "{kind: noop, nope: 1}",
    )
    steps = "".join(f"  - {{step: s{n}, tool: {tool}}}\n" for n, tool in enumerate(tools))
    source = HEAD + "keychain: [{kind: bearer}, {name: 'a b'}]\nworkflow:\n" + steps
    said = "\n".join(map(str, check_playbook(source.encode(), "p.yaml")))
    for part in ("host of this", "topic of this", "The program", "'nope'", "no `name`", "cannot be an alias"):
        assert part in said, said
