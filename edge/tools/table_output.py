"""A table as a tool answers it: the table itself, its rows, or its one row.

Used by the kinds that work on tables (`arrow`, `sql`). Times and decimals become texts in rows, so that nothing is
lost; must never turn a table of many rows into a value by accident.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from edge.core.codec import check_plain
from edge.core.errors import PayloadInvalid, ToolFailed
from edge.tools.arrow_kernels import plain_column

#: Rows that may become a plain value; more belong in a table.
ROWS_MAX: Final = 1_000


def as_output(table: pa.Table, output: str) -> Any:
    """The table in the form asked for. Raises ToolFailed `row_expected`, `rows_too_many`, `result_invalid`."""
    if output == "table":
        return table
    if output == "row":
        if table.num_rows != 1:
            raise ToolFailed(
                f"One row was asked for, and the table has {table.num_rows}.",
                code="row_expected",
                mend="Aggregate it down to one row, or ask for `rows`.",
            )
        return rows_of(table)[0]
    assert output == "rows", f"not an output form: {output!r}"
    if table.num_rows > ROWS_MAX:
        raise ToolFailed(
            f"The table has {table.num_rows} rows; as plain rows there may be {ROWS_MAX}.",
            code="rows_too_many",
            mend="Filter or aggregate it, or answer the table itself.",
        )
    return rows_of(table)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as maps of plain values: times and decimals as texts, dictionaries opened."""
    # Column by column: `Table.to_pylist` makes a Python object of every scalar on its way.
    names = table.column_names
    columns = [plain_column(column).to_pylist() for column in table.columns]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    checked(rows)
    return rows


def checked(value: Any) -> Any:
    """The value itself, where it can be kept. Raises ToolFailed `result_invalid`."""
    try:
        return check_plain(value)
    except PayloadInvalid as error:
        raise ToolFailed(
            f"The rows cannot stand as plain values: {error.message}",
            code="result_invalid",
            mend="Write `x if x == x else none` for a column with NaN, `… | string` for other types.",
        ) from error
