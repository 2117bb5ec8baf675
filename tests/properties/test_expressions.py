"""Random expressions on random values: the evaluator is total, bounded and deterministic."""

from __future__ import annotations

import random
from typing import Any

import jinja2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.core.codec import check_plain
from edge.core.errors import EvaluationFailed, PayloadInvalid
from edge.core.limits import EVALUATION_BYTES_MAX
from edge.core.values import TableRef
from playbooks.budget import Budget, Undefined
from playbooks.evaluate import evaluate, truth
from playbooks.expressions import compile_expression
from playbooks.filters import FILTERS
from playbooks.methods import METHODS
from playbooks.nodes import Prepared
from playbooks.predicates import TESTS
from playbooks.refusal import Refused
from playbooks.scope import build_scope

NAMES = ("a", "b", "c", "workload", "ctx", "args", "execution_id", "missing", "table")
ATOMS = st.one_of(
    st.sampled_from(NAMES),
    st.integers(-5, 40).map(str),
    st.sampled_from(
        ("1.5", "1e300", "9223372036854775807", "''", "'ab'", "'a' * 500", "none", "true", "[]", "{}")
    ),
    st.sampled_from(
        ("range(400)", "range(9, 0, -2)", "[a, b]", "{'a': b}", "a.k", "c['x']", "b[0]", "b[1:]")
    ),
)


OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or",
             "if b else")  # fmt: skip


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(OPERATORS)
    arguments = st.lists(inner, max_size=2).map(", ".join)
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"),
        st.tuples(st.sampled_from(("-", "not ", "+")), inner).map(lambda parts: f"{parts[0]}({parts[1]})"),
        st.tuples(inner, st.sampled_from(sorted(FILTERS)), arguments).map(
            lambda parts: f"({parts[0]}) | {parts[1]}({parts[2]})"
        ),
        st.tuples(inner, st.sampled_from(sorted(FILTERS))).map(lambda parts: f"({parts[0]}) | {parts[1]}"),
        st.tuples(inner, st.sampled_from(sorted(FILTERS))).map(
            lambda parts: f"({parts[0]}) | map('{parts[1]}')"
        ),
        st.tuples(inner, st.sampled_from(sorted(name for name in TESTS if name.isalpha())), arguments).map(
            lambda parts: f"({parts[0]}) is {parts[1]}({parts[2]})"
        ),
        st.tuples(inner, st.sampled_from(sorted(METHODS)), arguments).map(
            lambda parts: f"({parts[0]}).{parts[1]}({parts[2]})"
        ),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}:{parts[2]}]"),
    )


EXPRESSIONS = st.recursive(ATOMS, _wider, max_leaves=8)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8), st.binary(max_size=4),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abkx"), inner, max_size=3)
    ),
    max_leaves=8,
)
TABLES = st.builds(TableRef, st.just("k"), st.just(b"d"), st.just(9), st.none() | st.just(3), st.none())


def compiled(text: str) -> Prepared | None:
    try:
        return Prepared(compile_expression(text, lambda name, offset: ["name", name]))
    except Refused as error:
        refused = error
    assert 0 <= refused.offset <= len(text)
    return None


@settings(max_examples=250, deadline=None)
@given(EXPRESSIONS, VALUES, VALUES, VALUES, TABLES)
@example("('b' * 30000) | map('replace', '', 'x' * 9)", None, None, None, None)
@example("(range(9000) | list) == (range(9000) | list)", None, None, None, None)
def test_the_evaluator_is_total(text: str, a: Any, b: Any, c: Any, table: Any) -> None:
    """Any expression on any values ends within its budget, with a plain value or EvaluationFailed."""
    node = compiled(text)
    if node is None:
        return
    scope = build_scope({"a": a, "x": [a, b]}, {"b": b}, {"c": c, "table": table}, "id", {"k": a})
    budget = Budget()
    try:
        raw = node.run(scope, budget)
    except EvaluationFailed:
        return
    assert budget.steps >= 0
    assert 0 <= budget.size_bytes <= EVALUATION_BYTES_MAX
    if type(raw) is Undefined:
        return
    found = evaluate(node, scope)
    assert repr(found) == repr(evaluate(node, scope))
    assert _is_plain(found)
    try:
        assert truth(node, scope) in (True, False)
    except EvaluationFailed:
        assert isinstance(found, TableRef)


def _is_plain(value: Any) -> bool:
    if isinstance(value, TableRef):
        return True
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    try:
        check_plain(value)
    except PayloadInvalid:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab1.,:|()[]{}'\"+-*/%~<>=! \n\\_inot", max_size=40))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    """Random text gives a node or Refused with an offset inside it, and nothing else."""
    compiled(text)


def test_deep_and_long_texts_are_refused() -> None:
    """What would exhaust Jinja2's parser or our walk is refused before it does."""
    for text in ("(" * 2000, "[" * 25 + "]" * 25, "-" * 399 + "1", "not " * 390 + "a", "a" + ".b" * 190,
                 "a if b else " * 90 + "c", "a" + "[0]" * 120, "a" + " | upper" * 180, "'" + "\\" * 99):  # fmt: skip
        compiled(text)


ARITHMETIC = st.recursive(
    st.one_of(st.integers(0, 9).map(str), st.sampled_from(("x", "y", "2.5"))),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(("+", "-", "*", "<", "==", ">=", "and", "or")), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"not {text}"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        st.tuples(inner, inner).map(lambda parts: f"([{parts[0]}, {parts[1]}] | max)"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} ~ {parts[1]})"),
    ),
    max_leaves=10,
)


@settings(max_examples=250, deadline=None)
@given(ARITHMETIC, st.integers(-9, 9), st.integers(-9, 9))
def test_it_means_what_jinja_means(text: str, x: int, y: int) -> None:
    """Where we give a value, Jinja2's own compiled expression gives the same one."""
    node = compiled(text)
    if node is None:
        return
    try:
        ours = evaluate(node, build_scope({}, {"x": x, "y": y}, {}, "id", None))
    except EvaluationFailed:
        return
    theirs = jinja2.Environment(autoescape=False).compile_expression(text)(x=x, y=y)
    assert ours == theirs
    assert str(ours) == str(theirs)


def test_random_nodes_are_nodes_or_value_errors() -> None:
    """Mutilated nodes are refused when they are prepared, or run as nodes; nothing else happens."""
    chance = random.Random(7)
    whole = compiled("(a.b[1:] | default([1]) | map('upper') | join(',')) ~ (1 if c is none else -x ** 2)")
    assert whole is not None
    for _ in range(1_000):
        node = _mutilated(whole.node, chance)
        try:
            prepared = Prepared(node)
        except ValueError:
            continue
        try:
            evaluate(prepared, {"a": {"b": ["x", "y"]}, "x": 3})
        except EvaluationFailed:
            continue


def _mutilated(node: Any, chance: random.Random) -> Any:
    if chance.random() < 0.04:
        return chance.choice([None, 1, "x", [], ["name"], {}, ["const", None], ["attr", 1, 2], True])
    if isinstance(node, (list, tuple)):
        return [_mutilated(part, chance) for part in node]
    return {key: _mutilated(part, chance) for key, part in node.items()} if isinstance(node, dict) else node
