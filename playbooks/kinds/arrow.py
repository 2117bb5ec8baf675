"""The kind `arrow`: operations on one table, compiled to column expressions.

Called through `playbooks.kinds`. `edge.tools.arrow` carries out what this makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from playbooks.columns import compile_aggregate, compile_column
from playbooks.expressions import Resolve
from playbooks.fields import choice, entries, fields, items, text
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.parts import (
    EDGE,
    AnyOf,
    Block,
    Choice,
    Expression,
    Key,
    ListOf,
    MapOf,
    Of,
    Text,
    Tree,
    Whole,
)
from playbooks.problems import Source, allowed
from playbooks.templates import compile_tree

_COLUMN_NAME_BYTES_MAX: Final = 200
_OPS_MAX: Final = 64
_WINDOW_ROWS_MAX: Final = 1_000_000
_OUTPUTS: Final = ("table", "rows", "row")

_ARROW: Final = Block(
    "arrow",
    "Operations on one Arrow table, in order, over whole columns.",
    (
        Key("table", Expression(), "The table.", EDGE, required=True),
        Key("ops", ListOf(Of("arrow.op")), "The operations, in order.", EDGE),
        Key(
            "output",
            AnyOf((Choice(_OUTPUTS), Of("output"))),
            "The table, its rows as maps, or its one row; a map says what becomes of the result.",
            EDGE,
        ),
    ),
)
_BY: Final = Key("by", ListOf(Text()), "The columns whose equal values make a group.", EDGE)
_OP: Final = Block(
    "arrow.op",
    "One operation.",
    (
        Key("filter", Expression(), "Keeps the rows where it holds.", EDGE),
        Key("project", MapOf(Tree()), "Makes the columns of the next table, by name.", EDGE),
        Key("aggregate", Of("arrow.aggregate"), "One row for each group.", EDGE),
        Key("window", Of("arrow.window"), "Columns over the last rows of each group.", EDGE),
    ),
    one_key=True,
)
_AGGREGATE: Final = Block(
    "arrow.aggregate",
    "One row for each group.",
    (_BY, Key("values", MapOf(Expression()), "The columns it makes, by name.", EDGE, required=True)),
)
_WINDOW: Final = Block(
    "arrow.window",
    "Columns over the last rows of each group.",
    (
        _BY,
        Key("order", ListOf(Text()), "The columns that say which row comes first.", EDGE),
        Key("rows", Whole(1, _WINDOW_ROWS_MAX), "How many rows it looks at.", EDGE, required=True),
        Key("values", MapOf(Expression()), "The columns it makes, by name.", EDGE, required=True),
    ),
)


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    table: list[Any] = ["const", None]
    if "table" not in found:
        source.refuse(tool.start, "An arrow tool needs `table`.", 'Write table: "{{ workload.table }}".')
    else:
        table = compile_tree(source, found["table"], resolve)
        if table[0] == "text" or table[0] == "const":
            mend = 'Write one whole expression, such as "{{ workload.table }}".'
            source.refuse(found["table"].start, "`table` must be an expression that gives a table.", mend)
    listed = items(source, found.get("ops"), "`ops`")
    if len(listed) > _OPS_MAX:
        source.refuse(listed[_OPS_MAX].start, f"An arrow tool has at most {_OPS_MAX} ops.", "Use two steps.")
    ops = [op for node in listed if (op := _op(source, node)) is not None]
    output = choice(source, found.get("output"), "`output`", _OUTPUTS) or "table"
    return {"table": table, "ops": ops, "output": output}


def _op(source: Source, node: Marked) -> list[Any] | None:
    found = fields(source, node, "An op", _OP)
    if not isinstance(node, Mapping_):
        return None
    if len(node.pairs) != 1:
        source.refuse(node.start, "An op is one key.", f"{allowed(_OPS)} Begin each op with `- `.")
        return None
    return next((_OPS[name](source, value) for name, value in found.items()), None)


def _filter(source: Source, node: Marked) -> list[Any]:
    return ["filter", compile_column(source, node)]


def _project(source: Source, node: Marked) -> list[Any]:
    columns = _named(source, node, "`project`")
    return ["project", [[name, compile_column(source, value)] for name, value in columns]]


def _aggregate(source: Source, node: Marked) -> list[Any]:
    found = fields(source, node, "`aggregate`", _AGGREGATE)
    return ["aggregate", _columns(source, found.get("by")), _values(source, found, node, "`aggregate`")]


def _window(source: Source, node: Marked) -> list[Any]:
    found = fields(source, node, "`window`", _WINDOW)
    rows = found.get("rows")
    count = rows.value if isinstance(rows, Scalar) and type(rows.value) is int else 0
    if not 1 <= count <= _WINDOW_ROWS_MAX:
        at = rows.start if rows is not None else node.start
        source.refuse(at, f"`window` needs `rows`, a whole number of 1 to {_WINDOW_ROWS_MAX}.")
    by, order = _columns(source, found.get("by")), _columns(source, found.get("order"))
    return ["window", by, order, count, _values(source, found, node, "`window`")]


def _values(source: Source, found: dict[str, Marked], node: Marked, what: str) -> list[Any]:
    if "values" not in found:
        source.refuse(node.start, f"{what} needs `values`.", 'Write values: {name: "{{ column | mean }}"}.')
        return []
    named = _named(source, found["values"], f"`values` of {what}")
    return [[name, *compile_aggregate(source, value)] for name, value in named]


def _named(source: Source, node: Marked, what: str) -> list[tuple[str, Marked]]:
    """Column names with their expressions, in order."""
    pairs = entries(source, node, what)
    if not pairs and isinstance(node, (Mapping_, Scalar)):
        source.refuse(node.start, f"{what} needs at least one column.")
    for key, _ in pairs:
        _column_name(source, key)
    return [(key.value, value) for key, value in pairs]


def _columns(source: Source, node: Marked | None) -> list[str]:
    names = []
    for item in items(source, node, "A list of columns"):
        name = text(source, item, "A column's name")
        if name is not None and isinstance(item, Scalar) and _column_name(source, item):
            names.append(name)
    return names


def _column_name(source: Source, scalar: Scalar) -> bool:
    if 0 < len(scalar.value.encode()) <= _COLUMN_NAME_BYTES_MAX:
        return True
    source.refuse(scalar.start, f"A column's name has 1 to {_COLUMN_NAME_BYTES_MAX} bytes.")
    return False


_OPS: Final[dict[str, Callable[[Source, Marked], list[Any]]]] = {
    "filter": _filter,
    "project": _project,
    "aggregate": _aggregate,
    "window": _window,
}

ARROW: Final = Kind(_ARROW, _read, effects=("pure",), blocks=(_OP, _AGGREGATE, _WINDOW))
