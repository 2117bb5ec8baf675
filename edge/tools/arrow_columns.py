"""Expressions over a table's columns: the playbook's nodes (playbooks.nodes), run by Arrow's kernels.

Used by the `arrow` kind. A part of an expression that names no column is one value for all rows and is left
to the playbook's own evaluator; only what touches a column is translated here.

Nulls, everywhere: what is computed from a null is null; a comparison with null is null, so a filter does not
keep the row; `x == none` and `x is none` ask for nulls; `and` and `or` follow SQL; a null condition counts as
false. A division by zero is null. `//` and `%` of numbers with fractions round the quotient down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import EvaluationFailed, ToolFailed
from edge.tools.arrow_kernels import (
    BINARY,
    COMPARE,
    FILTERS,
    FLOAT,
    TESTS,
    Column,
    choose,
    compared,
    is_condition,
    truth,
)
from edge.tools.contract import ToolContext
from playbooks.nodes import Prepared

#: Names that are never columns: the scopes of the playbook.
_SCOPES: Final = frozenset({"workload", "ctx", "args", "input", "input_data", "execution_id"})
_TYPES: Final = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
}


#: Tables of how many different shapes one step may see before all that was prepared is forgotten.
_PLANS_MAX: Final = 64
_INT: Final = pa.int64()


Plans = dict[tuple[str, ...], dict[int, "ColumnRun"]]
"""By a table's column names: the closure of each node met so far, by the node's identity.

Whoever owns one keeps the nodes alive as long (`edge.tools.arrow` keeps it beside the config they stand in).
"""


class Columns:
    """Evaluates nodes against one table. `plans` keeps what was prepared for the next table with these names."""

    def __init__(
        self, table: pa.Table, inputs: Mapping[str, Any], context: ToolContext, plans: Plans
    ) -> None:
        self.table = table
        self.inputs = inputs
        self.context = context
        self.names = tuple(table.schema.names)
        prepared = plans.get(self.names)
        if prepared is None:
            if len(plans) >= _PLANS_MAX:
                plans.clear()
            prepared = plans[self.names] = {}
        self._prepared = prepared

    def evaluate(self, node: Any, what: str) -> Column:
        """The column, or the one value, a node stands for; `what` names it in messages. Raises ToolFailed."""
        try:
            run = self._prepared.get(id(node))
            if run is None:
                run = self._prepared[id(node)] = _prepare(node, self.names)
            return run(self)
        except pa.ArrowNotImplementedError as error:
            raise ToolFailed(
                f"{what}: these columns do not fit together: {_first_line(error)}.",
                code="column_type",
                mend=f"Convert with `| float`, `| int` or `| string`. The table has {describe(self.table)}.",
            ) from error
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            code = "overflow" if "overflow" in str(error) else "column_type"
            raise ToolFailed(
                f"{what}: cannot be computed: {_first_line(error)}.",
                code=code,
                mend="Convert with `| float` where whole numbers grow too large."
                if code == "overflow"
                else "",
            ) from error

    def full(self, node: Any, what: str) -> pa.ChunkedArray:
        """The node as a column of the table's length; one value is repeated."""
        column = self.evaluate(node, what)
        if type(column) is pa.ChunkedArray:
            return column
        if isinstance(column, pa.Scalar):
            column = pa.repeat(column, self.table.num_rows)
        return pa.chunked_array([column])

    def mask(self, node: Any, what: str) -> pa.ChunkedArray:
        """The node as a condition on every row, nulls left in."""
        column = truth(self.evaluate(node, what))
        if isinstance(column, pa.Scalar):
            column = pa.repeat(column, self.table.num_rows)
        return column


ColumnRun = Callable[[Columns], Column]


def _prepare(node: Any, names: Sequence[str]) -> ColumnRun:
    """A closure for a node over tables with these columns. Raises ToolFailed for what no column can be.

    The same trade as in playbooks.nodes: a playbook's expressions are few and run for ever.
    """
    if not _touches(node, names):
        if node[0] == "const":
            constant = scalar(node[1])
            return lambda columns: constant
        tree = node if isinstance(node, Prepared) else Prepared(node)
        return lambda columns: scalar(columns.context.render(tree))
    op = node[0]
    if op in ("name", "step"):
        return _name(node[1], names)
    build = _OPS.get(op)
    if build is None:
        raise _refused(f"`{op}`", _OPS)
    return build(node, names)


def _touches(node: Any, names: Sequence[str]) -> bool:
    """Whether a node names a column, or a name nobody knows (a column that is not there)."""
    if not isinstance(node, (list, tuple)) or not node:
        return False
    if node[0] == "const":
        return False
    if node[0] in ("name", "step"):
        # The compiler cannot know the columns, so it may take a column for a step of the same name.
        return node[1] in names or (node[0] == "name" and node[1] not in _SCOPES)
    return any(_touches(part, names) for part in _parts(node))


def _name(name: str, names: Sequence[str]) -> ColumnRun:
    if name in names:
        place = names.index(name)
        return lambda columns: columns.table.column(place)
    tree = Prepared(["name", name])

    def run(columns: Columns) -> Column:
        if name in columns.inputs:
            return scalar(columns.inputs[name])
        try:
            return scalar(columns.context.render(tree))
        except EvaluationFailed as error:
            raise ToolFailed(
                f"The table has no column {name!r}, and no input is called so.",
                code="column_unknown",
                mend=f"It has {describe(columns.table)}.",
            ) from error

    return run


def _pair(left: Any, right: Any, names: Sequence[str]) -> Callable[[Columns], tuple[Column, Column]]:
    """Both sides of an operator, fitted to each other; a constant beside a column is fitted ahead."""
    if right[0] == "const" and type(right[1]) is int:
        return _beside_constant(_prepare(left, names), right[1])
    if left[0] == "const" and type(left[1]) is int:
        beside = _beside_constant(_prepare(right, names), left[1])
        return lambda columns: beside(columns)[::-1]
    first, second = _prepare(left, names), _prepare(right, names)
    return lambda columns: fitted(first(columns), second(columns))


def _beside_constant(run: ColumnRun, number: int) -> Callable[[Columns], tuple[Column, Column]]:
    whole = scalar(number)
    exact = _as_exact_float(whole, FLOAT)

    def pair(columns: Columns) -> tuple[Column, Column]:
        column = run(columns)
        if isinstance(column, pa.Scalar) or not column.type.equals(FLOAT):
            return column, whole
        return column, exact

    return pair


def _binary(node: Any, names: Sequence[str]) -> ColumnRun:
    work = BINARY.get(node[1])
    if work is None:
        raise _refused(f"`{node[1]}`", BINARY)
    pair = _pair(node[2], node[3], names)
    return lambda columns: work(*pair(columns))


def _negate(node: Any, names: Sequence[str]) -> ColumnRun:
    inner = _prepare(node[1], names)

    def run(columns: Columns) -> Column:
        column = inner(columns)
        if pa.types.is_unsigned_integer(column.type):
            column = pc.cast(column, pa.int64())
        return pc.negate_checked(column)

    return run


def _not(node: Any, names: Sequence[str]) -> ColumnRun:
    inner = _prepare(node[1], names)
    return lambda columns: pc.invert(truth(inner(columns)))


def _and(node: Any, names: Sequence[str]) -> ColumnRun:
    first, second = _prepare(node[1], names), _prepare(node[2], names)

    def run(columns: Columns) -> Column:
        left, right = first(columns), second(columns)
        if is_condition(left) and is_condition(right):
            return pc.and_kleene(truth(left), truth(right))
        return choose(left, right, left)

    return run


def _or(node: Any, names: Sequence[str]) -> ColumnRun:
    first, second = _prepare(node[1], names), _prepare(node[2], names)

    def run(columns: Columns) -> Column:
        left, right = first(columns), second(columns)
        if is_condition(left) and is_condition(right):
            return pc.or_kleene(truth(left), truth(right))
        return choose(left, left, right)

    return run


def _if(node: Any, names: Sequence[str]) -> ColumnRun:
    test, then, other = (_prepare(part, names) for part in node[1:4])
    return lambda columns: choose(test(columns), then(columns), other(columns))


def _compare(node: Any, names: Sequence[str]) -> ColumnRun:
    for symbol, _ in node[2]:
        if symbol not in COMPARE:
            raise _refused(f"`{symbol}`", COMPARE)
    sides = [node[1], *(part for _, part in node[2])]
    steps = [(symbol, _pair(sides[at], sides[at + 1], names)) for at, (symbol, _) in enumerate(node[2])]
    if len(steps) == 1:
        only, pair = steps[0]
        return lambda columns: compared(only, *pair(columns))

    def run(columns: Columns) -> Column:
        found: Column = None
        for symbol, pair in steps:
            one = compared(symbol, *pair(columns))
            found = one if found is None else pc.and_kleene(found, one)
        return found

    return run


def _filter(node: Any, names: Sequence[str]) -> ColumnRun:
    work = FILTERS.get(node[1])
    if work is None:
        raise _refused(f"The filter `{node[1]}`", FILTERS)
    inner, args = _prepare(node[2], names), [_prepare(part, names) for part in node[3]]
    return lambda columns: work(inner(columns), *[part(columns) for part in args])


def _test(node: Any, names: Sequence[str]) -> ColumnRun:
    work = TESTS.get(node[1])
    if work is None:
        raise _refused(f"The test `{node[1]}`", TESTS)
    inner = _prepare(node[2], names)
    return lambda columns: work(inner(columns))


_OPS: Final[dict[str, Callable[[Any, Sequence[str]], ColumnRun]]] = {
    "bin": _binary,
    "neg": _negate,
    "pos": lambda node, names: _prepare(node[1], names),
    "not": _not,
    "and": _and,
    "or": _or,
    "cmp": _compare,
    "if": _if,
    "filter": _filter,
    "test": _test,
}


def describe(table: pa.Table) -> str:
    """The table's columns with their types, for messages."""
    listed = [f"{field.name} ({field.type})" for field in table.schema]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return f"the columns {', '.join(listed[:20])}{more}" if listed else "no columns"


def fitted(left: Column, right: Column) -> tuple[Column, Column]:
    """The pair, with a whole number beside a column of floats as a float: Arrow does the same for 10–25 µs a call."""
    if isinstance(left, pa.Scalar) and not isinstance(right, pa.Scalar):
        return _as_exact_float(left, right.type), right
    if isinstance(right, pa.Scalar) and not isinstance(left, pa.Scalar):
        return left, _as_exact_float(right, left.type)
    return left, right


def _as_exact_float(one: pa.Scalar, beside: pa.DataType) -> pa.Scalar:
    if beside.equals(FLOAT) and one.type.equals(_INT):
        value = one.as_py()
        if value is not None and -(2**53) <= value <= 2**53:
            return pa.scalar(float(value), FLOAT)
    return one


def scalar(value: Any) -> pa.Scalar:
    """A plain value as Arrow's. Raises ToolFailed for what no row can be compared with."""
    kind = type(value)
    if value is None or kind in _TYPES:
        # Whole numbers above 63 bits are left to Arrow's own choice of type.
        typed = kind is not int or -(2**63) <= value < 2**63
        return pa.scalar(value, _TYPES.get(kind)) if typed else pa.scalar(value)
    raise ToolFailed(
        f"A {type(value).__name__} stands where a column expression wants one value.",
        code="column_type",
        mend="Name a column, a number or a text.",
    )


def _parts(node: Any) -> list[Any]:
    """The nodes inside a node, whatever its form."""
    op = node[0]
    if op == "cmp":
        return [node[1], *(part for _, part in node[2])]
    if op in ("filter", "test", "call"):
        named = node[4].values() if len(node) > 4 else ()
        return [node[2], *node[3], *named]
    if op == "range":
        return list(node[1])
    if op == "bin":
        return [node[2], node[3]]
    return [part for part in node[1:] if isinstance(part, (list, tuple))]


def _refused(what: str, known: Mapping[str, Any]) -> ToolFailed:
    return ToolFailed(
        f"{what} cannot be used on columns.", code="column_type", mend=f"There are {', '.join(known)}."
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")
