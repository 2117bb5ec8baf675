"""Expressions over a table's columns: the playbook's nodes (playbooks.nodes), run by Arrow's kernels.

Used by the `arrow` kind. A part of an expression that names no column is one value for all rows and is left
to the playbook's own evaluator; only what touches a column is translated here.

Nulls, everywhere: what is computed from a null is null; a comparison with null is null, so a filter does not
keep the row; `x == none` and `x is none` ask for nulls; `and` and `or` follow SQL; a null condition counts as
false. A division by zero is null. `//` and `%` of numbers with fractions round the quotient down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import EvaluationFailed, ToolFailed
from edge.tools.arrow_kernels import (
    BINARY,
    COMPARE,
    FILTERS,
    TESTS,
    Column,
    choose,
    compared,
    is_condition,
    truth,
)
from edge.tools.contract import ToolContext

#: Names that are never columns: the scopes of the playbook.
_SCOPES: Final = frozenset({"workload", "ctx", "args", "input", "input_data", "execution_id"})
_TYPES: Final = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
}


_INT: Final = pa.int64()
_FLOAT: Final = pa.float64()


class Columns:
    """Evaluates nodes against one table."""

    def __init__(self, table: pa.Table, inputs: Mapping[str, Any], context: ToolContext) -> None:
        self.table = table
        self._inputs = inputs
        self._context = context
        self._names = frozenset(table.column_names)

    def evaluate(self, node: Any, what: str) -> Column:
        """The column, or the one value, a node stands for; `what` names it in messages. Raises ToolFailed."""
        try:
            return self._run(node)
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
        if isinstance(column, pa.Scalar):
            column = pa.repeat(column, self.table.num_rows)
        return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])

    def mask(self, node: Any, what: str) -> pa.ChunkedArray:
        """The node as a condition on every row, nulls left in."""
        column = truth(self.evaluate(node, what))
        if isinstance(column, pa.Scalar):
            column = pa.repeat(column, self.table.num_rows)
        return column

    def _touches(self, node: Any) -> bool:
        """Whether a node names a column, or a name nobody knows (a column that is not there)."""
        if not isinstance(node, (list, tuple)) or not node:
            return False
        if node[0] == "const":
            return False
        if node[0] in ("name", "step"):
            # The compiler cannot know the columns, so it may take a column for a step of the same name.
            return node[1] in self._names or (node[0] == "name" and node[1] not in _SCOPES)
        return any(self._touches(part) for part in _parts(node))

    def _run(self, node: Any) -> Column:
        if not self._touches(node):
            return scalar(self._context.render(node))
        op = node[0]
        if op in ("name", "step"):
            return self._name(node[1])
        work = _OPS.get(op)
        if work is None:
            raise _refused(f"`{op}`", _OPS)
        return work(self, node)

    def _name(self, name: str) -> Column:
        if name in self._names:
            return self.table.column(name)
        if name in self._inputs:
            return scalar(self._inputs[name])
        try:
            return scalar(self._context.render(["name", name]))
        except EvaluationFailed as error:
            raise ToolFailed(
                f"The table has no column {name!r}, and no input is called so.",
                code="column_unknown",
                mend=f"It has {describe(self.table)}.",
            ) from error

    def _binary(self, node: Any) -> Column:
        work = BINARY.get(node[1])
        if work is None:
            raise _refused(f"`{node[1]}`", BINARY)
        return work(*fitted(self._run(node[2]), self._run(node[3])))

    def _negate(self, node: Any) -> Column:
        column = self._run(node[1])
        if pa.types.is_unsigned_integer(column.type):
            column = pc.cast(column, pa.int64())
        return pc.negate_checked(column)

    def _not(self, node: Any) -> Column:
        return pc.invert(truth(self._run(node[1])))

    def _and(self, node: Any) -> Column:
        left, right = self._run(node[1]), self._run(node[2])
        if is_condition(left) and is_condition(right):
            return pc.and_kleene(truth(left), truth(right))
        return choose(left, right, left)

    def _or(self, node: Any) -> Column:
        left, right = self._run(node[1]), self._run(node[2])
        if is_condition(left) and is_condition(right):
            return pc.or_kleene(truth(left), truth(right))
        return choose(left, left, right)

    def _if(self, node: Any) -> Column:
        return choose(self._run(node[1]), self._run(node[2]), self._run(node[3]))

    def _compare(self, node: Any) -> Column:
        left = self._run(node[1])
        found: Column = None
        for symbol, part in node[2]:
            if symbol not in COMPARE:
                raise _refused(f"`{symbol}`", COMPARE)
            right = self._run(part)
            one = compared(symbol, *fitted(left, right))
            found = one if found is None else pc.and_kleene(found, one)
            left = right
        return found

    def _filter(self, node: Any) -> Column:
        name, args = node[1], [self._run(part) for part in node[3]]
        work = FILTERS.get(name)
        if work is None:
            raise _refused(f"The filter `{name}`", FILTERS)
        return work(self._run(node[2]), *args)

    def _test(self, node: Any) -> Column:
        work = TESTS.get(node[1])
        if work is None:
            raise _refused(f"The test `{node[1]}`", TESTS)
        return work(self._run(node[2]))


_OPS: Final[dict[str, Callable[[Columns, Any], Column]]] = {
    "bin": Columns._binary,
    "neg": Columns._negate,
    "pos": lambda columns, node: columns._run(node[1]),
    "not": Columns._not,
    "and": Columns._and,
    "or": Columns._or,
    "cmp": Columns._compare,
    "if": Columns._if,
    "filter": Columns._filter,
    "test": Columns._test,
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
    if beside.equals(_FLOAT) and one.type.equals(_INT):
        value = one.as_py()
        if value is not None and -(2**53) <= value <= 2**53:
            return pa.scalar(float(value), _FLOAT)
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
