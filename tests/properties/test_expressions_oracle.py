"""Every filter, test and method means what Jinja2 itself makes of it, on random values."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import EvaluationFailed
from playbooks.evaluate import evaluate
from playbooks.expressions import Refused, compile_expression
from playbooks.filters import FILTERS
from playbooks.methods import METHODS
from playbooks.nodes import Prepared
from playbooks.predicates import TESTS
from tests.fuzz.grammar import Grammar
from tests.properties.jinja_oracle import JINJA_ERRORS, ORACLE, as_plain

TEXTS = st.one_of(
    st.text(alphabet="aAbB zZ\n\t-_.,<>&'\"%{}é1 0", max_size=14),
    st.sampled_from(
        ("", "12", "-3.5", "true", '{"a": [1, 2.5]}', "[1]", "aGVsbG8=", "it's a-b (cd) <ef", "x\r\ny\n\n")
    ),
)
NUMBERS = st.one_of(
    st.integers(-99, 99), st.floats(-99, 99).map(lambda value: round(value, 3)), st.booleans()
)
LISTS = st.one_of(
    st.lists(st.integers(-9, 9), max_size=6), st.lists(TEXTS, max_size=5), st.lists(NUMBERS, max_size=5)
)
MAPS = st.dictionaries(st.sampled_from(("a", "b", "B", "c d")), st.integers(-9, 9), max_size=4)
ROWS = st.lists(
    st.fixed_dictionaries({"a": st.integers(-3, 3), "b": st.sampled_from(("x", "Y", "y", "z"))}), max_size=6
)

FILTER_CASES = {
    "default": ["missing | default(n)", "t | default('x', true)", "m.zz | d(t)"],
    "d": ["missing | d", "'' | d('x', boolean=true)"],
    "length": ["t | length", "l | length", "m | length"],
    "count": ["l | count"],
    "len": ["l | len"],
    "int": ["t | int", "n | int", "t | int(7)", "none | int(3)", "'1f' | int(0, 16)", "'z' | int(base=36)"],
    "float": ["t | float", "n | float", "t | float(1.5)"],
    "string": ["n | string", "t | string", "none | string"],
    "safe": ["t | safe"],
    "format": ["'%s-%05.1f' | format(t, n)", "'%(a)s%%' | format(a=t)", "'%x' | format(255)", "'%-9s|' | format(t)"],
    "abs": ["n | abs"],
    "round": [
        "n | round", "n | round(1)", "n | round(1, 'ceil')", "n | round(0, method='floor')", "1234 | round(-2)",
    ],
    "tojson": ["l | tojson", "m | tojson(2)", "t | tojson"],
    "fromjson": ["(l | tojson) | fromjson", "'{\"a\": [1, null]}' | fromjson"],
    "b64encode": ["t | b64encode", "n | b64encode"],
    "b64decode": ["t | b64encode | b64decode"],
    "get": ["m | get('a')", "m | get('q', n)"],
    "items": ["m | items | list"],
    "keys": ["m | keys"],
    "values": ["m | values"],
    "upper": ["t | upper", "n | upper"],
    "lower": ["t | lower"],
    "title": ["t | title"],
    "capitalize": ["t | capitalize"],
    "trim": ["t | trim", "t | trim('a ')"],
    "replace": ["t | replace('a', 'xx')", "t | replace('', '.', 2)", "n | replace('1', '2')"],
    "split": ["t | split", "t | split('a')", "t | split('a', 1)"],
    "join": ["l | join(', ')", "t | join('-')", "rows | join('+', attribute='b')", "m | join(1)"],
    "center": ["t | center(20)", "t | center"],
    "indent": [
        "t | indent", "t | indent(2, true)", "t | indent('> ', blank=true)", "t | indent(width=3, first=true)",
    ],
    "truncate": ["t | truncate(6)", "t | truncate(5, true)", "t | truncate(4, false, '~', 0)", "t | truncate"],
    "wordcount": ["t | wordcount"],
    "escape": ["t | escape", "n | escape"],
    "e": ["t | e"],
    "forceescape": ["t | forceescape"],
    "urlencode": ["t | urlencode", "m | urlencode", "[['a b', t], ['c', n]] | urlencode"],
    "first": ["l | first", "t | first", "m | first"],
    "last": ["l | last", "t | last", "m | last"],
    "min": ["l | min", "rows | min(attribute='a')", "t | min"],
    "max": ["l | max", "rows | max(attribute='b')", "l | max(true)"],
    "sum": ["l | sum", "rows | sum('a')", "rows | sum(attribute='a', start=10)"],
    "sort": [
        "l | sort", "rows | sort(attribute='b,a')", "l | sort(true)", "rows | sort(true, true, 'b')", "m | sort",
    ],
    "unique": ["l | unique | list", "rows | unique(attribute='b') | list", "l | unique(true) | list"],
    "groupby": [
        "rows | groupby('b') | map('last') | list",
        "rows | groupby('b', case_sensitive=true) | map('first') | list",
        "rows | groupby('zz', default=n) | map('first') | list",
    ],
    "batch": ["l | batch(2) | list", "l | batch(3, 0) | list"],
    "slice": ["l | slice(3) | list", "l | slice(4, 'x') | list"],
    "reverse": ["t | reverse", "l | reverse | list"],
    "list": ["l | list", "t | list", "m | list"],
    "dictsort": ["m | dictsort", "m | dictsort(true, 'value')", "m | dictsort(reverse=true)"],
    "map": [
        "l | map('string') | list", "rows | map(attribute='a') | list", "rows | map(attribute='q', default=1) | list",
    ],
    "select": ["l | select | list", "l | select('in', l[:2]) | list"],
    "reject": ["l | reject('equalto', 1) | list"],
    "selectattr": ["rows | selectattr('a') | list", "rows | selectattr('a', 'gt', 0) | list"],
    "rejectattr": ["rows | rejectattr('b', 'eq', 'x') | list"],
    "bool": ["true | bool"],
}  # fmt: skip

TEST_CASES = {
    "defined": ["t is defined", "missing is not defined"],
    "undefined": ["missing is undefined", "m.a is undefined"],
    "none": ["none is none", "n is none"],
    "true": ["n is true"],
    "false": ["n is false"],
    "boolean": ["n is boolean"],
    "integer": ["n is integer"],
    "float": ["n is float"],
    "number": ["n is number", "t is number"],
    "string": ["t is string"],
    "mapping": ["m is mapping"],
    "sequence": ["l is sequence", "t is sequence", "n is sequence"],
    "iterable": ["m is iterable"],
    "odd": ["i is odd"],
    "even": ["i is even"],
    "divisibleby": ["i is divisibleby 3"],
    "sameas": ["n is sameas true", "none is sameas none", "n is sameas false"],
    "lower": ["t is lower"],
    "upper": ["t is upper"],
    "in": ["i is in l", "t is in t"],
    **{
        name: [f"i is {name} 3"]
        for name in (
            "eq", "equalto", "ne", "lt", "lessthan", "le", "gt", "greaterthan", "ge",
        )
    },
}  # fmt: skip

METHOD_CASES = {
    "get": ["m.get('a')", "m.get('q', 1)"],
    "items": ["m.items() | list"],
    "keys": ["m.keys() | list"],
    "values": ["m.values() | list"],
    "upper": ["t.upper()"],
    "lower": ["t.lower()"],
    "title": ["t.title()"],
    "capitalize": ["t.capitalize()"],
    "strip": ["t.strip()", "t.strip('a1')"],
    "lstrip": ["t.lstrip()", "t.lstrip('aA')"],
    "rstrip": ["t.rstrip()", "t.rstrip('\\n')"],
    "split": ["t.split()", "t.split('a', 1)"],
    "rsplit": ["t.rsplit()", "t.rsplit('a', 1)"],
    "splitlines": ["t.splitlines()"],
    "replace": ["t.replace('a', 'b')", "t.replace('', '-', 2)"],
    "removeprefix": ["t.removeprefix('a')"],
    "removesuffix": ["t.removesuffix('\\n')"],
    "startswith": ["t.startswith('a')"],
    "endswith": ["t.endswith('')"],
    "join": ["', '.join(['a', t])"],
    "format": ["'{}-{:>8}|{{'.format(t, n)", "'{1:05d}{0:.2f}'.format(n, i)", "'{:,}'.format(i * 12345)"],
    "zfill": ["t.zfill(7)"],
    "ljust": ["t.ljust(9)", "t.ljust(9, '.')"],
    "rjust": ["t.rjust(9)"],
    "center": ["t.center(9)"],
    "find": ["t.find('b')"],
    "index": ["l.index(1)", "t.index('a')"],
    "count": ["t.count('a')", "l.count(1)"],
    **{
        name: [f"t.{name}()"]
        for name in (
            "isdigit",
            "isdecimal",
            "isnumeric",
            "isalpha",
            "isalnum",
            "isspace",
            "islower",
            "isupper",
        )
    },
}

CASES = sorted(
    text for table in (FILTER_CASES, TEST_CASES, METHOD_CASES) for texts in table.values() for text in texts
)


def test_every_name_has_a_case() -> None:
    """No filter, test or method stands in the language without being compared with Jinja2."""
    assert set(FILTER_CASES) == set(FILTERS)
    assert {name for name in TESTS if name.isalpha()} == set(TEST_CASES)
    assert set(METHOD_CASES) == set(METHODS)


OURS = {text: Prepared(compile_expression(text, lambda name, offset: ["name", name])) for text in CASES}
THEIRS = {text: ORACLE.compile_expression(text, undefined_to_none=False) for text in CASES}


@settings(max_examples=80, deadline=None)
@given(t=TEXTS, n=NUMBERS, i=st.integers(-99, 99), items=LISTS, m=MAPS, rows=ROWS)
def test_it_means_what_jinja_means(
    t: str, n: Any, i: int, items: list[Any], m: dict[str, Any], rows: list[Any]
) -> None:
    """Where we give a value, Jinja2's own expression gives the same one, of the same kind."""
    scope = {"t": t, "n": n, "i": i, "l": items, "m": m, "rows": rows}
    for text in CASES:
        try:
            ours = evaluate(OURS[text], {**scope, "ctx": {}, "workload": {}})
        except EvaluationFailed:
            continue
        theirs = as_plain(THEIRS[text](**scope))
        assert theirs == ours, text
        assert type(ours) is type(theirs), text


@pytest.mark.parametrize("text", CASES)
def test_most_of_it_gives_a_value(text: str) -> None:
    """None of the cases passes only because we refuse it: on ordinary values each gives something."""
    scope = {
        "t": "a1 B", "n": 2.5, "i": 6, "l": [3, 1, 2], "m": {"a": 1, "b": 2}, "ctx": {}, "workload": {},
        "rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "Y"}],
    }  # fmt: skip
    evaluate(compile_expression(text, lambda name, offset: ["name", name]), scope)


@pytest.mark.parametrize("seed", range(3))
def test_random_expressions_mean_what_jinja_means(seed: int) -> None:
    """Filters on filters, methods of sums, slices of formats: where both give a value it is one value of one kind."""
    grammar = Grammar(random.Random(seed), wild=False)
    compared = 0
    for _ in range(400):
        text, scope = grammar.expression(), grammar.scope()
        try:
            node = compile_expression(text, lambda name, offset: ["name", name])
            ours = evaluate(node, {**scope, "ctx": {}, "workload": {}})
            theirs = as_plain(ORACLE.compile_expression(text, undefined_to_none=False)(**scope))
        except (Refused, EvaluationFailed, *JINJA_ERRORS):
            continue
        compared += 1
        assert ours == theirs, (text, scope)
        assert type(ours) is type(theirs), (text, scope)
    assert compared > 100
