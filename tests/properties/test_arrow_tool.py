"""The arrow tool against the same operations written in plain Python, on small random tables with nulls."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.values import TableRef
from edge.tools.registry import tool
from playbooks.evaluate import render

ARROW = tool("arrow")
REF = TableRef("t", b"", 0, 0, ())
INPUTS = {"limit": 2, "factor": 0.5}

Row = dict[str, Any]


class Lent:
    """A tool context over one table."""

    execution_id = step = idempotency_key = "e"

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        return render(tree, {"t": REF, "args": INPUTS, "input": INPUTS, **INPUTS})

    def table(self, ref: TableRef) -> pa.Table:
        assert ref is REF
        return self._table


def run(rows: list[Row], ops: list[Any], cut: int = 2) -> list[Row]:
    table = pa.Table.from_pylist(rows, SCHEMA)
    # Cut into pieces: how a table lies in memory must not show.
    pieces = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    answer = ARROW.run({"table": ["name", "t"], "ops": ops, "output": "rows"}, INPUTS, Lent(pieces))
    assert isinstance(answer, list)
    return answer


SCHEMA = pa.schema([("g", pa.string()), ("i", pa.int64()), ("f", pa.float64()), ("b", pa.bool_())])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "g": st.sampled_from(["a", "b", "c", None]),
            "i": st.none() | st.integers(-5, 5),
            # Sixteenths: sums are exact, so the order of additions cannot show.
            "f": st.none() | st.integers(-64, 64).map(lambda sixteenths: sixteenths / 16),
            "b": st.none() | st.booleans(),
        }
    ),
    max_size=12,
)


LEAVES = st.sampled_from(
    [
        ["name", "i"],
        ["name", "f"],
        ["name", "limit"],
        ["attr", ["name", "args"], "factor"],
        ["const", 0],
        ["const", 3],
        ["const", -0.5],
    ]
)
# Deferred, so that each refers to the other by name: nested `recursive` strategies print as 67 kB.
NUMBERS: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        LEAVES,
        LEAVES,
        st.tuples(st.sampled_from(["+", "-", "*", "/", "//", "%"]), NUMBERS, NUMBERS).map(
            lambda parts: ["bin", *parts]
        ),
        NUMBERS.map(lambda node: ["neg", node]),
        NUMBERS.map(lambda node: ["filter", "abs", node, [], {}]),
        NUMBERS.map(lambda node: ["filter", "float", node, [], {}]),
        st.tuples(CONDITIONS, NUMBERS, NUMBERS).map(lambda parts: ["if", *parts]),
    )
)
CONDITIONS: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.just(["name", "b"]),
        st.just(["cmp", ["name", "g"], [["==", ["const", "a"]]]]),
        st.tuples(NUMBERS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), NUMBERS).map(
            lambda parts: ["cmp", parts[0], [[parts[1], parts[2]]]]
        ),
        NUMBERS.map(lambda node: ["test", "none", node, []]),
        NUMBERS.map(lambda node: ["cmp", node, [["!=", ["const", None]]]]),
        CONDITIONS.map(lambda node: ["not", node]),
        st.tuples(st.sampled_from(["and", "or"]), CONDITIONS, CONDITIONS).map(list),
    )
)


def reference(node: Any, row: Row) -> Any:
    """What a node is for one row, with nulls as edge.tools.arrow_columns describes them."""
    op = node[0]
    if op == "const":
        return node[1]
    if op == "name":
        return row[node[1]] if node[1] in row else INPUTS[node[1]]
    if op == "attr":
        return INPUTS[node[2]]
    if op == "bin":
        return arithmetic(node[1], reference(node[2], row), reference(node[3], row))
    if op == "neg":
        value = reference(node[1], row)
        return None if value is None else -value
    if op == "filter":
        value = reference(node[2], row)
        return None if value is None else {"abs": abs, "float": float}[node[1]](value)
    if op == "if":
        return reference(node[2 if reference(node[1], row) else 3], row)
    return condition(node, row)


def condition(node: Any, row: Row) -> bool | None:
    op = node[0]
    if op == "test":
        return reference(node[2], row) is None
    if op == "not":
        value = reference(node[1], row)
        return None if value is None else not value
    if op in ("and", "or"):
        values = [reference(node[1], row), reference(node[2], row)]
        if (op == "or") in values:
            return op == "or"
        return None if None in values else op == "and"
    left, symbol, right = reference(node[1], row), node[2][0][0], reference(node[2][0][1], row)
    if node[2][0][1] == ["const", None]:
        return left is not None
    if left is None or right is None:
        return None
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[symbol]


def arithmetic(symbol: str, left: Any, right: Any) -> Any:
    if left is None or right is None or (symbol in "//%" and right == 0):
        return None
    if symbol == "+":
        return left + right
    if symbol == "-":
        return left - right
    if symbol == "*":
        return left * right
    if symbol == "/":
        return left / right
    whole = isinstance(left, int) and isinstance(right, int)
    quotient = left // right if whole else math.floor(left / right)
    return quotient if symbol == "//" else left - quotient * right


def close(found: Any, expected: Any) -> bool:
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return found is expected or (isinstance(expected, str) and found == expected)
    if found is None or isinstance(found, bool):
        return False
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)


def steady(node: Any) -> bool:
    """Whether the node stays clear of what the evaluator refuses in a part that names no column."""
    if node[0] == "bin" and node[1] in ("/", "//", "%") and not names_column(node):
        return False
    return all(steady(part) for part in children(node))


def names_column(node: Any) -> bool:
    if node[0] == "name":
        return node[1] != "args"
    return any(names_column(part) for part in children(node))


def children(node: Any) -> list[Any]:
    if node[0] == "cmp":
        return [node[1], *(part for _, part in node[2])]
    return [part for part in node[1:] if isinstance(part, list) and part and isinstance(part[0], str)]


@settings(max_examples=150, deadline=None)
@given(ROWS, NUMBERS.filter(steady), st.integers(0, 12))
def test_projections(rows: list[Row], node: Any, cut: int) -> None:
    """A computed column holds, row by row, what plain Python computes."""
    found = run(rows, [["project", [["x", node]]]], cut)
    for made, row in zip(found, rows, strict=True):
        assert close(made["x"], reference(node, row)), (node, row)


@settings(max_examples=150, deadline=None)
@given(ROWS, CONDITIONS.filter(steady), st.integers(0, 12))
def test_filters(rows: list[Row], node: Any, cut: int) -> None:
    """A filter keeps exactly the rows whose condition is true: neither false nor null."""
    found = run(rows, [["filter", node]], cut)
    assert found == [row for row in rows if reference(node, row) is True]


FUNCTIONS = ["count", "sum", "mean", "min", "max", "first", "last", "stddev", "variance", "median"]


def aggregated(function: str, values: list[Any]) -> Any:
    there = [value for value in values if value is not None]
    if function == "count":
        return len(there)
    if not there or (function in ("stddev", "variance") and len(there) < 2):
        return None
    return {
        "sum": lambda: sum(there),
        "mean": lambda: sum(there) / len(there),
        "min": lambda: min(there),
        "max": lambda: max(there),
        "first": lambda: there[0],
        "last": lambda: there[-1],
        "stddev": lambda: statistics.stdev(there),
        "variance": lambda: statistics.variance(there),
        "median": lambda: statistics.median(there),
    }[function]()


@settings(max_examples=150, deadline=None)
@given(
    ROWS,
    st.sampled_from([[], ["g"], ["i"], ["g", "b"], ["f"]]),
    st.lists(st.tuples(st.sampled_from(FUNCTIONS), st.sampled_from(["i", "f"])), min_size=1, max_size=4),
    st.integers(0, 12),
)
def test_aggregates(rows: list[Row], by: list[str], wanted: list[tuple[str, str]], cut: int) -> None:
    """Groups stand in the order of their first rows and hold what plain Python computes of them."""
    asked = [[f"x{at}", function, ["name", name]] for at, (function, name) in enumerate(wanted)]
    found = run(rows, [["aggregate", by, asked]], cut)
    groups: dict[Any, list[Row]] = {} if by else {(): []}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    assert [tuple(made[name] for name in by) for made in found] == list(groups)
    for made, (key, members) in zip(found, groups.items(), strict=True):
        for at, (function, name) in enumerate(wanted):
            expected = aggregated(function, [row[name] for row in members])
            assert close(made[f"x{at}"], expected), (function, key, members)


@settings(max_examples=150, deadline=None)
@given(
    ROWS,
    st.sampled_from([[], ["g"], ["b", "g"]]),
    st.sampled_from([[], ["i"], [["f", "desc"], "i"]]),
    st.integers(1, 5),
    st.sampled_from(FUNCTIONS),
    st.sampled_from(["i", "f"]),
    st.integers(0, 12),
)
def test_windows(
    rows: list[Row], by: list[str], order: list[Any], width: int, function: str, name: str, cut: int
) -> None:
    """Each row gets its window's value, and every row stays where it is."""
    found = run(rows, [["window", by, order, width, [["x", function, ["name", name]]]]], cut)
    assert [{key: made[key] for key in row} for made, row in zip(found, rows, strict=True)] == rows
    places = list(range(len(rows)))
    for item in reversed(order):
        column, down = (item, False) if isinstance(item, str) else (item[0], item[1] == "desc")
        there = [at for at in places if rows[at][column] is not None]
        there.sort(key=lambda at: rows[at][column] * (-1 if down else 1))
        places = there + [at for at in places if rows[at][column] is None]
    for at in range(len(rows)):
        group = [other for other in places if all(rows[other][key] == rows[at][key] for key in by)]
        here = group.index(at)
        values = [rows[other][name] for other in group[max(0, here - width + 1) : here + 1]]
        assert close(found[at]["x"], aggregated(function, values)), (at, values)
