"""What expressions give: operators, filters, tests, methods, names, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.errors import EvaluationFailed
from edge.core.values import TableRef
from playbooks.evaluate import evaluate, render, truth
from playbooks.expressions import compile_expression
from playbooks.nodes import Prepared
from playbooks.scope import build_scope

TABLE = TableRef("k", b"d" * 32, 640, 12, ("temp", "room"))
NEW_TABLE = TableRef("k", b"d" * 32, 640, None, None)
SCOPE = build_scope(
    {
        "limit": 70,
        "name": "Ada",
        "rows": [{"a": 3, "b": "x"}, {"a": 1, "b": "Y"}, {"a": 2, "b": "x"}],
        "m": {"k": 1, "items": 5, "deep": {"er": [10, 20]}},
        "none": None,
        "same": "from workload",
        "table": TABLE,
        "new": NEW_TABLE,
        "blob": b"\x00",
    },
    {"hot": True, "same": "from ctx"},
    {"check": {"rows": 3, "ok": True}, "limit": 71},
    "x1",
    {"gain": 2.5},
)


def value(text: str, scope: Any = SCOPE) -> Any:
    return evaluate(compile_expression(text, lambda name, offset: ["name", name]), scope)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 + 2 * 3", 7),
        ("7 // 2", 3),
        ("-7 % 3", 2),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("(-1) ** 1000001", -1),
        ("10 / 4", 2.5),
        ("-limit", -71),
        ("+3", 3),
        ("'a' ~ 1 ~ none ~ true", "a1NoneTrue"),
        ("'ab' * 2", "abab"),
        ("3 * 'x'", "xxx"),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("'a' + 'b'", "ab"),
        ("1 < 2 < 3", True),
        ("1 < 2 > 3", False),
        ("1 == 1.0", True),
        ("[1, {'a': 2}] == [1, {'a': 2}]", True),
        ("[1] == [1, 2]", False),
        ("{'a': 1} == {'b': 1}", False),
        ("{'a': 1} != {'a': 2}", True),
        ("2 in [1, 2]", True),
        ("[2] in [[1], [2]]", True),
        ("'k' in m", True),
        ("'d' not in 'abc'", True),
        ("1 if hot else 2", 1),
        ("0 or 'x'", "x"),
        ("1 and ''", ""),
        ("not ''", True),
        ("m.k", 1),
        ("m['k']", 1),
        ("m.items", 5),
        ("m.deep.er[-1]", 20),
        ("m.deep.er.0", 10),
        ("'abc'[1:]", "bc"),
        ("[1, 2, 3, 4][::-2]", [4, 2]),
        ("(1, 'a')", [1, "a"]),
        ("{'a': limit}", {"a": 71}),
        ("range(3)", [0, 1, 2]),
        ("range(1, 7, 3)", [1, 4]),
        ("m.get('no', 9)", 9),
        ("m.get('no')", None),
        ("m.deep.items()", [["er", [10, 20]]]),
        ("m.deep.keys()", ["er"]),
        ("m.deep.values()", [[10, 20]]),
        ("' Ab '.strip().upper()", "AB"),
        ("'xxa'.lstrip('x') ~ 'axx'.rstrip('x')", "aa"),
        ("'a,b'.split(',')", ["a", "b"]),
        ("'-'.join(['a', 1])", "a-1"),
        ("'abc'.startswith('a') and 'abc'.endswith('c')", True),
        ("'aXa'.replace('a', 'b', 1)", "bXa"),
    ],
)
def test_what_expressions_give(text: str, wanted: Any) -> None:
    """Operators, paths, slices, literals and methods give what Jinja2 would, as native values."""
    found = value(text)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nope | default(3)", 3),
        ("m.a.b.c | d('x')", "x"),
        ("limit | default(nope)", 71),
        ("nope | default(nope2) | default(4)", 4),
        ("none | default(3)", None),
        ("'' | default('x', true)", "x"),
        ("'' | default('x', boolean=true)", "x"),
        ("rows | length", 3),
        ("'abc' | count", 3),
        ("'12' | int + 1", 13),
        ("'4.9' | int", 4),
        ("'x' | int", 0),
        ("'x' | int(7)", 7),
        ("none | int(default=7)", 7),
        ("true | int", 1),
        ("'1e3' | float", 1000.0),
        ("'x' | float", 0.0),
        ("'nan' | float(1.5)", 1.5),
        ("2.5 | string ~ 'a'", "2.5a"),
        ("'true' | bool", True),
        ("0 | bool", False),
        ("'aB' | upper ~ 'aB' | lower", "ABab"),
        ("'ab cd' | title", "Ab Cd"),
        ("'aBC' | capitalize", "Abc"),
        ("' a ' | trim", "a"),
        ("'xax' | trim('x')", "a"),
        ("'aaa' | replace('a', 'b', 2)", "bba"),
        ("'a b' | split", ["a", "b"]),
        ("'a,b,c' | split(',', 1)", ["a", "b,c"]),
        ("[1, 2] | join(', ')", "1, 2"),
        ("rows | join('', attribute='b')", "xYx"),
        ("[5, 6] | first", 5),
        ("[5, 6] | last", 6),
        ("[] | first | default(1)", 1),
        ("[3, 1, 2] | min", 1),
        ("[3, 1, 2] | max", 3),
        ("rows | max(attribute='a')", {"a": 3, "b": "x"}),
        ("[1, 2.5] | sum", 3.5),
        ("rows | sum(attribute='a')", 6),
        ("[1] | sum(start=10)", 11),
        ("-3 | abs", 3),
        ("(0 - 3) | abs", 3),
        ("2.567 | round(2)", 2.57),
        ("2.1 | round(method='ceil')", 3.0),
        ("2.19 | round(1, 'floor')", 2.1),
        ("'abc' | list", ["a", "b", "c"]),
        ("['b', 'A'] | sort", ["A", "b"]),
        ("['b', 'A'] | sort(true)", ["b", "A"]),
        ("['a', 'B'] | sort(case_sensitive=true)", ["B", "a"]),
        ("rows | sort(attribute='a') | map(attribute='a')", [1, 2, 3]),
        ("[1, 2, 1, none, none] | unique", [1, 2, None]),
        ("rows | unique(attribute='b') | length", 2),
        ("[1, 2] | reverse", [2, 1]),
        ("'abc' | reverse", "cba"),
        ("{'b': 1, 'a': 2} | dictsort", [["a", 2], ["b", 1]]),
        ("{'b': 1, 'a': 2} | dictsort(by='value')", [["b", 1], ["a", 2]]),
        ("{'a': 1} | items", [["a", 1]]),
        ("{'a': 1} | keys + {'a': 1} | values", ["a", 1]),
        ("['a'] | map('upper')", ["A"]),
        ("['1'] | map('int', default=2)", [1]),
        ("rows | map(attribute='z', default=0)", [0, 0, 0]),
        ("m.deep.er | select('gt', 10)", [20]),
        ("[0, 1, ''] | select", [1]),
        ("[0, 1] | reject", [0]),
        ("[1, none] | reject('none')", [1]),
        ("rows | selectattr('b', 'eq', 'x') | length", 2),
        ("rows | rejectattr('b', 'in', ['x']) | map(attribute='a')", [1]),
        ("rows | selectattr('z', 'defined')", []),
        ("[{'ok': true}, {'ok': false}] | selectattr('ok') | length", 1),
        ("{'b': [1, null_ | d(none)], 'a': '<é>'} | tojson", '{"a": "<\\u00e9>", "b": [1, null]}'),
    ],
)
def test_what_filters_give(text: str, wanted: Any) -> None:
    """Every filter gives a plain value, never a generator."""
    found = value(text)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    "text",
    [
        "m.k is defined",
        "m.z is not defined",
        "z.y is undefined",
        "none is none",
        "0 is not none",
        "true is true",
        "1 is not true",
        "false is false",
        "1 is integer",
        "true is not integer",
        "true is boolean",
        "1.0 is float",
        "1 is number",
        "'a' is string",
        "m is mapping",
        "[1] is sequence",
        "'a' is iterable",
        "3 is odd",
        "4 is even",
        "9 is divisibleby 3",
        "1 is in [1]",
        "1 is eq 1",
        "1 is equalto 1",
        "1 is ne 2",
        "1 is lt 2",
        "2 is ge 2",
        "'a' is lessthan 'b'",
    ],
)
def test_what_tests_say(text: str) -> None:
    """Every test answers true for what it names."""
    assert value(text) is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limmit", "Did you mean `limit`"),
        ("check.row", "There are the keys ok, rows"),
        ("check.row + 1", "`check.row` is not defined"),
        ("not nope", "`nope` is not defined"),
        ("nope or 1", "`nope` is not defined"),
        ("nope | d(nope2)", "`nope2` is not defined"),
        ("nope == 1", "`nope` is not defined"),
        ("[nope]", "`nope` is not defined"),
        ("nope ~ 'a'", "`nope` is not defined"),
        ("nope.a.b", "`nope` is not defined"),
        ("nope | upper", "`nope` is not defined"),
        ("nope is none", "`nope` is not defined"),
        ("none.a", "is not defined"),
        ("m.deep.er[7]", "there are 2 elements"),
        ("[] | first", "the first element of an empty list"),
        ("1 + 'a'", "`+` cannot work on a number and a text"),
        ("1 < 'a'", "`<` cannot work"),
        ("1 in 2", "`in` cannot work"),
        ("1 / 0", "divided by zero"),
        ("1 % 0", "divided by zero"),
        ("1 // 0", "divided by zero"),
        ("0 ** -1", "divided by zero"),
        ("[1] * 2", "cannot be repeated"),
        ("(-8) ** 0.5", "not a real number"),
        ("1e300 * 1e300", "not a finite number"),
        ("9 ** 9 ** 9", "too large"),
        ("10.0 ** 400", "too large"),
        ("9223372036854775807 * 9", "64 bits"),
        ("range(100000000)", "more than 262144 bytes"),
        ("range(9223372036854775807)", "more than"),
        ("range(0, 5, 0)", "step 0"),
        ("'abc'[::0]", "step 0"),
        ("('aaaa' * 1000) | replace('', 'b' * 100)", "more than 262144 bytes"),
        ("range(30000) | list | list", "more than"),
        ("table.temp", "this is a table"),
        ("table + 1", "cannot work on a table"),
        ("table ~ ''", "cannot stand in a text"),
        ("table | length", "Use its `.rows`"),
        ("table and 1", "neither true nor false"),
        ("new.rows", "not known until a step has opened this table"),
        ("'a'.b", "a text has no keys"),
        ("'a' | int('x') | abs", "`abs` cannot work on a text"),
        ("[1, 'a'] | sort", "numbers and texts together"),
        ("[none] | sort", "has no order"),
        ("rows | sort", "attribute"),
        ("['a'] | sum", "adds numbers"),
        ("[1] ~ ''", "tojson"),
        ("blob ~ ''", "python step"),
        ("[blob] | tojson", "JSON cannot hold"),
        ("2 | bool", "`bool` wants"),
        ("1.5 | round(99)", "at most 15 digits"),
        ("'a' | round", "cannot work on a text"),
        ("1 | round(1, 'up')", "'common', 'ceil' or 'floor'"),
        ("m[1]", "keys of a map are texts"),
        ("[1]['a']", "whole number"),
        ("3 is divisibleby 0", "given 0"),
        ("'a'.get('b')", "wants a map"),
        ("[[1], [2]] | map(attribute=-3) | list", "is not defined"),
        ("[[1], [2]] | map(attribute='9' * 5000) | list", "is not defined"),
        ("5 | first", "wants a list"),
        ("'a' | split('')", "at least one character"),
    ],
)
def test_what_evaluation_refuses(text: str, said: str) -> None:
    """What cannot be worked out fails with one sentence naming the path or the operator."""
    with pytest.raises(EvaluationFailed, match=None) as caught:
        value(text)
    assert said in str(caught.value)


def test_precedence_of_bare_names() -> None:
    """Inputs and results win over ctx, ctx over workload; ctx may be replaced in a copied scope."""
    assert value("limit") == 71
    assert value("workload.limit") == 70
    assert value("same") == "from ctx"
    assert value("gain + args.gain + input.gain + input_data.gain") == 10.0
    assert value("execution_id") == "x1"
    assert value("same", {**SCOPE, "ctx": {"same": "patched"}}) == "patched"


def test_a_table_passes_whole() -> None:
    """A table reference goes through a whole expression, and its size can be asked for."""
    assert value("table") is TABLE
    assert value("[table.rows, table.size_bytes, table.columns]") == [12, 640, ["temp", "room"]]
    assert value("table['rows']") == 12
    assert value("table == new") is True


def test_literals_are_made_anew() -> None:
    """Two evaluations never share a map or list that the author's code could change."""
    node = Prepared(["dict", "a", ["list", ["const", 1]]])
    first, second = render(node, SCOPE), render(node, SCOPE)
    assert first == second
    assert first["a"] is not second["a"]


def test_truth() -> None:
    """A condition holds for what Python calls true, and fails for what is not there."""
    assert truth(["name", "hot"], SCOPE) is True
    assert truth(["const", 0], SCOPE) is False
    with pytest.raises(EvaluationFailed):
        truth(["name", "nope"], SCOPE)


def test_a_tree_that_repeats_what_it_reads_is_measured() -> None:
    """A small template over a large value cannot make a huge one."""
    scope = build_scope({"t": "a" * 1_000_000}, {}, {}, "x", None)
    tree = ["list", *([["name", "t"]] * 17)]
    with pytest.raises(EvaluationFailed, match="larger than"):
        render(tree, scope)
    assert len(render(tree[:9], scope)) == 8


def test_long_texts_are_looked_through_only_so_often() -> None:
    """Looking for a text in a large one is charged, so that it cannot be done again and again."""
    scope = build_scope({"t": "a" * 8_000_000}, {}, {}, "x", None)
    assert value("'b' in t", scope) is False
    with pytest.raises(EvaluationFailed, match="steps"):
        value("'b' in t or 'c' in t", scope)
