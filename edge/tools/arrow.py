"""The `arrow` kind: filter, project, aggregate and window over one table, then a table, rows or one row. Pure.

Called by workers through the registry. Runs the compiled operations one after the other; columns come from
arrow_columns, groups from arrow_groups, windows from arrow_window. Must never start a thread, use numpy, or let
the way a table is cut into chunks show in a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.codec import check_plain
from edge.core.errors import PayloadInvalid, ToolFailed
from edge.core.values import TableRef
from edge.tools.arrow_columns import Columns
from edge.tools.arrow_groups import aggregate
from edge.tools.arrow_window import window
from edge.tools.contract import ToolContext

#: Rows that may become a plain value; more belong in a table.
ROWS_MAX: Final = 1_000


class ArrowTool:
    """Runs compiled column operations on one table."""

    kind: Final = "arrow"
    author_code: Final = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Run the operations of `config` and return a table, a list of maps, or one map.

        `config`: `table` (a node or prepared node giving a table), `ops` and `output` ("table", "rows",
        "row"). Raises ToolFailed: `table_expected`, `column_unknown`, `column_type`, `overflow`,
        `aggregate_unknown`, `window_too_large`, `rows_too_many`, `row_expected`.
        """
        table = _table(config["table"], context)
        for place, operation in enumerate(config.get("ops") or (), 1):
            try:
                table = _apply(operation, Columns(table, inputs, context))
            except pa.ArrowException as error:
                raise ToolFailed(
                    f"Operation {place} ({operation[0]}) cannot be done: {str(error).splitlines()[0]}.",
                    code="column_type",
                    mend="Check the types of the columns it works on.",
                ) from error
            except ToolFailed as error:
                raise ToolFailed(
                    f"Operation {place} ({operation[0]}): {error.message}",
                    code=error.problem_code,
                    mend=error.mend,
                ) from error
        return _answer(table, config.get("output", "table"))


TOOL: Final = ArrowTool()


def _table(node: Any, context: ToolContext) -> pa.Table:
    value = context.render(node)
    if isinstance(value, TableRef):
        return context.table(value)
    if isinstance(value, pa.Table):
        return value
    raise ToolFailed(
        f"`table` of step {context.step!r} is {_kind_name(value)}, not a table.",
        code="table_expected",
        mend="Name a step that answers a table, or `workload.table` of a request that brings one.",
    )


def _apply(operation: Sequence[Any], columns: Columns) -> pa.Table:
    name, *parts = operation
    if name == "filter":
        return columns.table.filter(columns.mask(parts[0], "the condition"))
    if name == "project":
        return _project(parts[0], columns)
    if name == "aggregate":
        by, wanted = parts
        _check_unique([*by, *(each[0] for each in wanted)])
        return aggregate(columns, by, wanted)
    if name == "window":
        by, order, rows, wanted = parts
        _check_unique([each[0] for each in wanted])
        return window(columns, by, order, rows, wanted)
    raise ToolFailed(f"There is no table operation {name!r}.", code="tool_failed")


def _project(wanted: Sequence[Sequence[Any]], columns: Columns) -> pa.Table:
    _check_unique([name for name, _ in wanted])
    made = [columns.full(node, f"column {name!r}") for name, node in wanted]
    return pa.table(made, names=[name for name, _ in wanted])


def _check_unique(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ToolFailed(
            f"Two columns would be called {twice[0]!r}.", code="column_twice", mend="Give each its own name."
        )


def _answer(table: pa.Table, output: str) -> Any:
    if output == "table":
        return table
    if output == "row":
        if table.num_rows != 1:
            raise ToolFailed(
                f"One row was asked for, and the table has {table.num_rows}.",
                code="row_expected",
                mend="Aggregate it down to one row, or ask for `rows`.",
            )
        return _rows(table)[0]
    assert output == "rows", f"not an output form: {output!r}"
    if table.num_rows > ROWS_MAX:
        raise ToolFailed(
            f"The table has {table.num_rows} rows; as plain rows there may be {ROWS_MAX}.",
            code="rows_too_many",
            mend="Filter or aggregate it, or answer the table itself.",
        )
    return _rows(table)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as maps of plain values: times and decimals as texts, dictionaries opened."""
    # Column by column: `Table.to_pylist` makes a Python object of every scalar on its way.
    names = table.column_names
    columns = [_plain_column(column).to_pylist() for column in table.columns]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    try:
        check_plain(rows)
    except PayloadInvalid as error:
        raise ToolFailed(
            f"The rows cannot stand as plain values: {error.message}",
            code="result_invalid",
            mend="Write `x if x == x else none` for a column with NaN, `… | string` for other types.",
        ) from error
    return rows


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_duration(kind):
        return column
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pc.cast(column, pa.string())
    return column


def _kind_name(value: Any) -> str:
    if value is None:
        return "none"
    return {"dict": "a map", "list": "a list", "str": "a text"}.get(type(value).__name__, "a plain value")
