"""Templates with statements: what Jinja2 makes of them, read back as NoETL's engines read it, within the budget."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from edge.core.errors import EvaluationFailed
from playbooks.budget import Budget
from playbooks.encodings import read_value
from playbooks.evaluate import evaluate
from playbooks.refusal import Refused
from playbooks.statements import compile_template
from tests.fuzz.grammar import Grammar
from tests.properties.jinja_oracle import JINJA_ERRORS, ORACLE, as_plain


def compiled(text: str) -> list[Any]:
    return compile_template(text, lambda name, offset: ["name", name])


def value(text: str, scope: dict[str, Any]) -> Any:
    return evaluate(compiled(text), {"ctx": {}, "workload": {}, **scope})


@pytest.mark.parametrize("seed", range(4))
def test_they_mean_what_jinja_means(seed: int) -> None:
    """Where we give a value for a random template, it is Jinja2's text (or its value, for a single expression)."""
    grammar = Grammar(random.Random(seed), wild=False)
    compared = statements = 0
    for _ in range(300):
        text, scope = grammar.template(), grammar.scope()
        grammar.locals = []
        try:
            node = compiled(text)
            ours = evaluate(node, {"ctx": {}, "workload": {}, **scope})
        except (Refused, EvaluationFailed):
            continue
        try:
            theirs = ORACLE.from_string(text).render(scope)
        except JINJA_ERRORS:
            continue  # what we give and Jinja2 does not, such as a number's text where it wants a text
        if node[0] != "template" and isinstance(ours, (list, dict)):
            continue  # a single expression keeps its kind; Jinja2 has only the text of it
        compared += 1
        statements += node[0] == "template"
        if node[0] == "template":
            assert ours == read_value(Budget(), theirs), (text, scope)
        else:
            assert str(as_plain(ours)) == theirs, (text, scope)
    assert compared > 60
    assert statements > 5


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{% if ok %}{{ n }}{% else %}0{% endif %}", 7),
        ("{% if ok %}2.50{% endif %}", 2.5),
        ("{% if not ok %}x{% endif %}", ""),
        ("{% if ok %}True{% endif %}", True),
        ("{% if ok %}none{% endif %}\n", None),
        ("[{% for x in xs %}{{ x }}{{ ', ' if not loop.last }}{% endfor %}]".replace("{{ ', ' if not loop.last }}",
         "{% if not loop.last %}, {% endif %}"), [3, 1, 2]),
        ('{"a": {% if ok %}{{ xs | tojson }}{% endif %}}', {"a": [3, 1, 2]}),
        ("{% if ok %}007{% endif %}", "007"),
        ("{% if ok %}{{ xs | join(';') }}{% endif %}", "3;1;2"),
        ("{% if ok %}[not json{% endif %}]", "[not json]"),
        ("{% if ok %}[1e999]{% endif %}", "[1e999]"),
        ("{% if ok %}99999999999999999999{% endif %}", "99999999999999999999"),
        ("{# note #}{{ xs }}", [3, 1, 2]),
        ("{{- n -}}", 7),
        ("{{ n }}{# note #} ", "7 "),
        ("&q={{ n }}{% if ok %}&start={{ xs[0] }}{% endif %}", "&q=7&start=3"),
        ("{% set ns = namespace(sum=0) %}{% for x in xs %}{% set ns.sum = ns.sum + x %}{% endfor %}{{ ns.sum }}", 6),
        ("{% for x in xs %}{% set n = x %}{% endfor %}{{ n }}", 7),
        ("{% if ok %}{% set n = 1 %}{% endif %}{{ n }}", 1),
        ("{% for x in xs if x > 1 %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% for g in rows | groupby('k') %}{{ g.grouper }}={{ g.list | length }};{% endfor %}", "a=2;b=1;"),
        ("{% for x in [] %}x{% else %}nothing{% endfor %}", "nothing"),
        ("{% raw %}{{ n }}{% endraw %}", "{{ n }}"),
        ("a\n", "a"),
    ],
)  # fmt: skip
def test_what_they_give(text: str, wanted: Any) -> None:
    """A template's text is read back where it is JSON's; sets stay in their loop; a namespace goes through it."""
    rows = [{"k": "a"}, {"k": "b"}, {"k": "a"}]
    found = value(text, {"ok": True, "n": 7, "xs": [3, 1, 2], "rows": rows})
    assert found == wanted
    assert type(found) is type(wanted)


def test_nothing_of_the_scope_is_changed() -> None:
    """A template's names live in a copy: what the scope holds is the same afterwards."""
    scope = {"ctx": {"c": 1}, "workload": {"w": [1]}, "xs": [1, 2], "m": {"a": 1}}
    before = json.dumps(scope)
    text = "{% set xs = [9] %}{% set c = 5 %}{% for m in xs %}{% set w = m %}{{ w }}{{ c }}{% endfor %}"
    assert evaluate(compiled(text), scope) == 95
    assert json.dumps(scope) == before


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("a{% macro m() %}{% endmacro %}", 4, "`{% macro %}` cannot stand"),
        ("{% include 'x' %}", 3, "cannot stand"),
        ("{% filter upper %}{% endfilter %}", 3, "cannot stand"),
        ("{%- call m() %}{% endcall %}", 4, "cannot stand"),
        ("{% extends 'x' %}", 3, "cannot stand"),
        ("{% for x in xs recursive %}{% endfor %}", 3, "recursive"),
        ("{% for x in xs %}{{ x }}", 24, "'endfor'"),
        ("  {% endif %}", 5, "endif"),
        ("{% frob %}", 3, "unknown tag"),
        ("{% set ctx = 1 %}", 7, "meaning of its own"),
        ("{% for loop in xs %}{% endfor %}", 7, "meaning of its own"),
        ("{% set a, a = xs %}", 7, "twice"),
        ("{% set ns.a = 1 %}", 7, "no namespace"),
        ("{% set ns = namespace() %}{{ ns }}", 29, "only good for"),
        ("{% set ns = namespace(1) %}", 7, "by name"),
        ("x {{- 1 1 -}}", 8, "no template"),
        ("{{ 'a }}", 3, "no template"),
        ("{% if x %}" + "{{ " + "x + " * 300 + "x }}{% endif %}", 807, "at most 400 tokens"),
        ("{% if 1 %}1{% endif %}" * 500, 8_250, "at most 3000 tokens"),
        ("{# " + "x" * 33_000 + " #}", 0, "at most 32768 bytes"),
        ("{% if 1 %}" * 60 + "{% endif %}" * 60, 116, "nested too deeply"),
        ("{% set x %}\r{% endset %}", 11, "carriage return"),
    ],
)
def test_what_is_refused_and_where(text: str, at: int, said: str) -> None:
    """What is no template of ours is refused at its offset, by name where it is Jinja2's, with the mend."""
    with pytest.raises(Refused) as caught:
        compiled(text)
    assert said in caught.value.message
    assert abs(caught.value.offset - at) <= 12, caught.value.offset
    assert caught.value.mend


def test_loops_end_within_the_budget() -> None:
    """Loops in loops, growing texts and joins end with what they ran out of, not with time."""
    scope = {"xs": list(range(500)), "t": "x" * 1000}
    long, large = "expression_too_long", "expression_too_large"
    for text, code in [
        ("{% for a in xs %}{% for b in xs %}{% for c in xs %}{% endfor %}{% endfor %}{% endfor %}", long),
        ("{% for a in xs %}{{ t }}{% endfor %}", large),
        ("{% for a in xs %}{% for b in xs %}{% set y = a ~ b %}{% endfor %}{% endfor %}", long),
        ("{% set s = namespace(x='a') %}{% for a in xs %}{% set s.x = s.x ~ s.x %}{% endfor %}", large),
        ("{% set s = namespace(x=[1]) %}{% for a in xs %}{% set s.x = s.x + s.x %}{% endfor %}", large),
        ("{% for a in xs if xs | sum > a %}{% endfor %}", long),
    ]:
        with pytest.raises(EvaluationFailed) as caught:
            value(text, scope)
        assert caught.value.problem_code == code, text
