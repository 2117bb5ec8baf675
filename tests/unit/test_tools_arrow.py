"""The arrow kind: outputs, nulls, names and refusals; its arithmetic is in tests/properties."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import ToolFailed
from edge.core.values import TableRef
from edge.tools.registry import tool
from playbooks.evaluate import render

ARROW = tool("arrow")
REF = TableRef("t", b"", 0, 0, ())
TABLE = pa.table(
    {
        "device": ["a", "b", "a", None, "b"],
        "celsius": [20.0, 30.5, None, 10.0, 31.5],
        "n": [1, 2, 3, 4, 5],
        "ok": [True, False, None, True, True],
    }
)


class Lent:
    execution_id = step = idempotency_key = "e"

    def __init__(self, table: pa.Table, scope: Mapping[str, Any]) -> None:
        self._table, self._scope = table, scope

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        return render(tree, {"t": REF, **self._scope})

    def table(self, ref: TableRef) -> pa.Table:
        return self._table


def run(
    *ops: Any, output: str = "rows", table: pa.Table = TABLE, node: Any = ("name", "t"), **inputs: Any
) -> Any:
    scope = {"args": inputs, "input": inputs, "workload": {"w": 7}, **inputs}
    config = {"table": list(node), "ops": list(ops), "output": output}
    return ARROW.run(config, inputs, Lent(table, scope))


def refused(*ops: Any, **settings: Any) -> ToolFailed:
    with pytest.raises(ToolFailed) as caught:
        run(*ops, **settings)
    return caught.value


def column(name: str) -> list[Any]:
    return ["name", name]


def const(value: Any) -> list[Any]:
    return ["const", value]


def compare(left: Any, symbol: str, right: Any) -> list[Any]:
    return ["cmp", left, [[symbol, right]]]


def test_outputs() -> None:
    """A table, its rows as maps, or exactly one row."""
    assert run(output="table") is TABLE
    assert run(output="rows")[0] == {"device": "a", "celsius": 20.0, "n": 1, "ok": True}
    assert run(["filter", compare(column("n"), "==", const(3))], output="row")["n"] == 3
    assert refused(output="row").problem_code == "row_expected"
    many = pa.table({"x": pa.arange(0, 1_001)})
    assert refused(table=many).problem_code == "rows_too_many"
    assert len(run(table=many.slice(0, 1_000))) == 1_000


def test_the_pipeline_of_the_readme() -> None:
    """Filter, compute, group: the steps follow one another."""
    found = run(
        ["filter", ["not", ["test", "none", column("celsius"), []]]],
        [
            "project",
            [
                ["device", column("device")],
                ["f", ["bin", "+", ["bin", "*", column("celsius"), const(1.8)], const(32)]],
            ],
        ],
        ["aggregate", ["device"], [["mean", "mean", column("f")], ["n", "count", const(1)]]],
    )
    assert found == [
        {"device": "a", "mean": 68.0, "n": 1},
        {"device": "b", "mean": pytest.approx(87.8), "n": 2},
        {"device": None, "mean": 50.0, "n": 1},
    ]


def test_names_are_columns_then_inputs_then_scope() -> None:
    """A bare name is a column if the table has it, else an input, else what the playbook's scope says."""
    assert len(run(["filter", compare(column("n"), ">", column("limit"))], limit=3)) == 2
    assert len(run(["filter", compare(column("n"), ">", ["attr", column("args"), "n"])], n=3)) == 2
    assert len(run(["filter", compare(column("n"), ">", column("n"))], n=3)) == 0
    assert len(run(["filter", compare(column("n"), "<", column("w"))])) == 5
    problem = refused(["filter", compare(column("kelvin"), ">", const(3))])
    assert problem.problem_code == "column_unknown"
    assert "celsius (double)" in problem.mend


def test_nulls() -> None:
    """Null compares to nothing, is asked for by name, and a null condition does not hold."""
    assert [row["n"] for row in run(["filter", compare(column("celsius"), "<", const(100))])] == [1, 2, 4, 5]
    assert [row["n"] for row in run(["filter", ["not", compare(column("celsius"), ">", const(100))]])] == [
        1,
        2,
        4,
        5,
    ]
    assert [row["n"] for row in run(["filter", compare(column("celsius"), "==", const(None))])] == [3]
    assert [row["n"] for row in run(["filter", column("ok")])] == [1, 4, 5]
    assert [row["n"] for row in run(["filter", ["not", column("ok")]])] == [2]
    chosen = run(["project", [["x", ["if", column("ok"), const("yes"), const("no")]]]])
    assert [row["x"] for row in chosen] == ["yes", "no", "no", "yes", "yes"]
    filled = run(["project", [["x", ["or", column("celsius"), const(-1)]]]])
    assert [row["x"] for row in filled] == [20.0, 30.5, -1.0, 10.0, 31.5]


def test_division_by_zero_is_null() -> None:
    """A quotient or a rest without a divisor is null, for whole numbers and fractions."""
    for symbol in ("/", "//", "%"):
        for zero in (const(0), const(0.0)):
            found = run(["project", [["x", ["bin", symbol, column("n"), ["bin", "*", column("n"), zero]]]]])
            assert [row["x"] for row in found] == [None] * 5


def test_whole_numbers_divide_as_in_python() -> None:
    """`//` and `%` round down for negative numbers too."""
    table = pa.table({"a": [7, -7, 7, -7], "b": [2, 2, -2, -2]})
    found = run(
        [
            "project",
            [["q", ["bin", "//", column("a"), column("b")]], ["r", ["bin", "%", column("a"), column("b")]]],
        ],
        table=table,
    )
    assert [(row["q"], row["r"]) for row in found] == [(3, 1), (-4, 1), (-4, -1), (3, -1)]


def test_conversions() -> None:
    """Texts that are no numbers become null; fractions are cut, not rounded."""
    table = pa.table(
        {"s": ["12", " +3 ", "4.9", "x", "", None, "1e3"], "f": [1.9, -1.9, 2.5, 3.5, 0.0, None, 1.0]}
    )
    found = run(
        [
            "project",
            [
                ["i", ["filter", "int", column("s"), [], {}]],
                ["f", ["filter", "float", column("s"), [], {}]],
                ["cut", ["filter", "int", column("f"), [], {}]],
                ["round", ["filter", "round", column("f"), [], {}]],
                ["text", ["filter", "string", column("f"), [], {}]],
            ],
        ],
        table=table,
    )
    assert [row["i"] for row in found] == [12, 3, None, None, None, None, None]
    assert [row["f"] for row in found] == [12.0, 3.0, 4.9, None, None, None, 1000.0]
    assert [row["cut"] for row in found] == [1, -1, 2, 3, 0, None, 1]
    assert [row["round"] for row in found] == [2.0, -2.0, 2.0, 4.0, 0.0, None, 1.0]
    assert found[0]["text"] == "1.9"


def test_overflow_is_refused() -> None:
    """Whole numbers never wrap round, neither row by row nor in a sum."""
    table = pa.table({"x": [2**62, 2**62]})
    assert (
        refused(["project", [["y", ["bin", "+", column("x"), column("x")]]]], table=table).problem_code
        == "overflow"
    )
    assert refused(["aggregate", [], [["s", "sum", column("x")]]], table=table).problem_code == "overflow"
    as_float = ["filter", "float", column("x"), [], {}]
    assert run(["aggregate", [], [["s", "sum", as_float]]], table=table) == [{"s": float(2**63)}]
    assert run(["aggregate", [], [["s", "mean", column("x")]]], table=table) == [{"s": float(2**62)}]


@pytest.mark.parametrize(
    ("ops", "code"),
    [
        ([["filter", compare(column("device"), ">", const(3))]], "column_type"),
        ([["project", [["x", ["bin", "*", column("device"), const(2)]]]]], "column_type"),
        ([["project", [["x", ["bin", "/", column("device"), const(2)]]]]], "column_type"),
        ([["project", [["x", ["neg", column("device")]]]]], "column_type"),
        ([["project", [["x", ["attr", column("device"), "y"]]]]], "column_type"),
        ([["project", [["x", ["filter", "upper", column("device"), [], {}]]]]], "column_type"),
        ([["project", [["x", column("n")], ["x", column("n")]]]], "column_twice"),
        ([["project", [["x", ["bin", "+", column("n"), column("other")]]]]], "column_type"),
        ([["aggregate", ["device"], [["device", "count", column("n")]]]], "column_twice"),
        ([["aggregate", ["nothing"], []]], "column_unknown"),
        ([["aggregate", [], [["x", "mode", column("n")]]]], "aggregate_unknown"),
        ([["aggregate", [], [["x", "sum", column("device")]]]], "column_type"),
        ([["aggregate", [], [["x", "median", column("device")]]]], "column_type"),
        ([["window", [], ["nothing"], 2, [["x", "sum", column("n")]]]], "column_unknown"),
        ([["window", [], [], 0, [["x", "sum", column("n")]]]], "window_invalid"),
    ],
)
def test_refusals(ops: list[Any], code: str) -> None:
    """What cannot be done names the operation, and what to write instead."""
    problem = refused(*ops, other={"a": 1})
    assert problem.problem_code == code
    assert problem.message.startswith("Operation 1 (")


def test_work_is_bounded() -> None:
    """A window over many rows that looks far back is refused before it starts."""
    table = pa.table({"x": pa.arange(0, 100_000)})
    problem = refused(["window", [], [], 50_000, [["m", "mean", column("x")]]], table=table)
    assert problem.problem_code == "window_too_large"


def test_not_a_table() -> None:
    """`table` given as something else is said so."""
    for value in (None, 3, "text", [1], {"a": 1}):
        problem = refused(node=["name", "v"], v=value)
        assert problem.problem_code == "table_expected"


def test_a_window_may_replace_a_column() -> None:
    """A window named like a column takes its place; all others stay."""
    found = run(["window", ["device"], ["n"], 2, [["n", "sum", column("n")]]])
    assert [row["n"] for row in found] == [1, 2, 4, 4, 7]
    assert list(found[0]) == ["device", "celsius", "n", "ok"]


def test_groups_by_fractions_and_by_dictionary() -> None:
    """0.0 and -0.0 are one group, NaN is one group, and an encoded column groups like a plain one."""
    table = pa.table(
        {
            "f": [0.0, -0.0, float("nan"), float("nan")],
            "d": pa.array(["x", "y", "x", "x"]).dictionary_encode(),
        }
    )
    count = [["n", "count", const(1)]]
    assert [
        row["n"] for row in run(["aggregate", ["f"], count], ["project", [["n", column("n")]]], table=table)
    ] == [2, 2]
    assert run(["aggregate", ["d"], count], table=table) == [{"d": "x", "n": 3}, {"d": "y", "n": 1}]


def test_rows_hold_plain_values_only() -> None:
    """Times and decimals are given as texts; what is not finite is refused with the way round it."""
    table = pa.table(
        {
            "t": pa.array([1_704_164_645_000_000], pa.timestamp("us")),
            "d": pa.array([1]).cast(pa.decimal128(21, 2)),
            "x": [float("nan")],
        }
    )
    plain = ["project", [["t", column("t")], ["d", column("d")]]]
    assert run(plain, table=table) == [{"t": "2024-01-02 03:04:05.000000", "d": "1.00"}]
    assert refused(table=table).problem_code == "result_invalid"
    healed = ["project", [["x", ["if", compare(column("x"), "==", column("x")), column("x"), const(None)]]]]
    assert run(healed, table=table) == [{"x": None}]


def test_empty_tables() -> None:
    """No rows give no groups, one row of nothing without groups, and no windows."""
    empty = TABLE.slice(0, 0)
    wanted = [["n", "count", column("n")], ["s", "sum", column("n")], ["m", "median", column("n")]]
    assert run(["aggregate", ["device"], wanted], table=empty) == []
    assert run(["aggregate", [], wanted], table=empty) == [{"n": 0, "s": None, "m": None}]
    assert run(["window", ["device"], [], 3, [["m", "median", column("n")]]], table=empty) == []
    assert run(["filter", const(False)]) == []
    assert len(run(["filter", const(True)])) == 5


def test_a_column_wins_over_a_step_of_its_name() -> None:
    """The compiler may take a column for a step it knows; the table decides."""
    assert run(["project", [["x", ["step", "n"]]]])[0] == {"x": 1}


def test_one_row_is_the_same_as_rows_of_one() -> None:
    """`row` straight from the aggregates is what `rows` gives for the same table, whatever the types."""
    table = pa.table(
        {
            "f": [1.5, None, 2.5],
            "i": [3, 1, None],
            "t": ["b", None, "a"],
            "ok": [True, None, False],
            "at": pa.array([1_000, None, 2_000], pa.timestamp("ms")),
            "money": pa.array([None, 125, 250], pa.decimal128(9, 2)),
            "none": pa.nulls(3),
        }
    )
    wanted = [
        [f"{function}_{name}", function, column(name)]
        for name in table.column_names
        for function in ("count", "min", "max")
    ]
    wanted += [
        [f"{function}_{name}", function, column(name)]
        for name in "fi"
        for function in ("sum", "mean", "median", "stddev", "first", "last")
    ]
    wanted.append(["rows", "count", None])
    operation = ["aggregate", [], wanted]
    row = run(operation, output="row", table=table)
    assert [row] == run(operation, output="rows", table=table)
    assert (row["count_f"], row["count_none"], row["rows"], row["max_money"]) == (2, 0, 3, "250.00")


def test_one_row_that_cannot_be_kept_is_refused() -> None:
    """NaN in the one row is refused as it is in rows."""
    table = pa.table({"x": [float("nan")]})
    error = refused(["aggregate", [], [["m", "max", column("x")]]], output="row", table=table)
    assert error.problem_code == "result_invalid"


def test_one_config_sees_tables_of_many_shapes() -> None:
    """What was prepared for one table's columns is not used for another's, in whatever order they come."""
    config = {
        "table": ["name", "t"],
        "ops": [["project", [["y", ["bin", "-", const(10), column("x")]]]]],
        "output": "rows",
    }
    shapes = [
        pa.table({"x": [1]}),
        pa.table({"a": [0], "x": [2.5]}),
        pa.table({"x": ["text"]}),
        pa.table({"a": [0]}),
        pa.table({"x": [3]}),
    ]
    seen: list[Any] = []
    for table in shapes:
        try:
            seen.append(ARROW.run(config, {}, Lent(table, {"args": {}, "input": {}, "workload": {}})))
        except ToolFailed as error:
            seen.append(error.problem_code)
    assert seen == [[{"y": 9}], [{"y": 7.5}], "column_type", "column_unknown", [{"y": 7}]]


def test_a_filter_that_keeps_all_rows_copies_nothing() -> None:
    """Where every row stays the table itself is answered; one null in the condition leaves its row out."""
    keep_all, one_null = (
        ["cmp", column("n"), [[">", const(0)]]],
        ["cmp", column("celsius"), [[">", const(0)]]],
    )
    before = pa.total_allocated_bytes()
    kept = run(["filter", keep_all], output="table")
    assert kept.column("celsius").chunk(0).buffers()[1].address == (
        TABLE.column("celsius").chunk(0).buffers()[1].address
    )
    assert pa.total_allocated_bytes() - before < 1_024
    assert run(["filter", one_null], output="table").num_rows == 4
