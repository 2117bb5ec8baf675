"""Trailing windows: each row with the rows before it, within its group, in a given order.

Used by the `arrow` kind. A window of n rows is the row itself and up to n - 1 before it; near a group's start
it is shorter. The work is rows x window x columns and is refused beyond WORK_MAX. Every sum is added up afresh
in the same order (no running totals), so a result does not depend on the rows before its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import ToolFailed
from edge.tools.arrow_columns import Columns
from edge.tools.arrow_groups import (
    check_names,
    checked_function,
    group_rows,
    joined,
    medians_of,
    numbers_for,
    run_starts,
    sortable,
    sorted_rows,
)
from edge.tools.arrow_kernels import ONE, ZERO, as_float

#: Values looked at by one window op: about a second on a Raspberry Pi.
WORK_MAX: Final = 20_000_000
#: Values laid out at once where a median needs them side by side: 16 bytes each, and as much to sort.
_LAID_OUT_MAX: Final = 200_000


def window(
    columns: Columns, by: Sequence[str], order: Sequence[Any], rows: Any, wanted: Sequence[Sequence[Any]]
) -> pa.Table:
    """The table with each `[name, function, node]` of the last `rows` rows added; rows stay where they are."""
    table = columns.table
    if type(rows) is not int or rows < 1:
        raise ToolFailed("A window has a whole number of rows, at least 1.", code="window_invalid")
    width = max(1, min(rows, table.num_rows))
    if table.num_rows * width * max(1, len(wanted)) > WORK_MAX:
        raise ToolFailed(
            f"A window of {rows} rows over {table.num_rows} rows is more work than one step may do.",
            code="window_too_large",
            mend="Aggregate first, filter, or make the window smaller.",
        )
    sorting = _order(table, by, order)
    places = pc.inverse_permutation(sorting)
    ids, _ = group_rows(table, by)
    trailing = _Trailing(ids.take(sorting), width)
    for name, function, node in wanted:
        checked_function(function)
        value = pa.arange(0, table.num_rows) if node is None else None
        if value is None:
            value = joined(numbers_for(function, columns.full(node, f"{function} of {name}"), name))
        made = trailing.compute(function, value.take(sorting)).take(places)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, made)
        else:
            table = table.append_column(name, made)
    return table


def _order(table: pa.Table, by: Sequence[str], order: Sequence[Any]) -> pa.Array:
    """Row numbers by group, then as asked, then as the rows stand."""
    names = [item if isinstance(item, str) else item[0] for item in order]
    downward = [not isinstance(item, str) and item[1] == "desc" for item in order]
    check_names(table, names)
    ids, _ = group_rows(table, by)
    keys = pa.table(
        [ids, *(sortable(table.column(name)) for name in names), pa.arange(0, table.num_rows)],
        names=["g", *(f"o{at}" for at in range(len(names))), "row"],
    )
    sort_keys = [("g", "ascending")]
    sort_keys += [(f"o{at}", "descending" if down else "ascending") for at, down in enumerate(downward)]
    return sorted_rows(keys, [*sort_keys, ("row", "ascending")])


class _Trailing:
    """Windows of `width` rows over values sorted like `ids`."""

    def __init__(self, ids: pa.Array, width: int) -> None:
        count = len(ids)
        self._width = width
        row = pa.arange(0, count)
        starts = pc.if_else(run_starts(ids), row, ZERO)
        #: How many rows of the same group stand before each row.
        self._before = pc.subtract(row, pc.cumulative_max(starts)) if count else row

    def compute(self, function: str, values: pa.Array) -> pa.Array:
        """One aggregate for every row."""
        if function in ("mean", "avg"):
            return self._mean(values)
        if function in ("stddev", "variance"):
            return self._spread(values, root=function == "stddev")
        if function == "median":
            return self._median(values)
        if function == "count":
            return self._count(values)
        found = pa.nulls(len(values), values.type)
        for back in range(self._width):
            one = self._back(values, back)
            if function == "sum":
                found = _added(found, one)
            elif function in ("min", "max"):
                found = _extreme(function, found, one)
            elif function == "first":
                found = pc.coalesce(one, found)
            else:
                found = pc.coalesce(found, one)
        return found

    def _back(self, values: pa.Array, back: int) -> pa.Array:
        """Each row's value `back` rows earlier in its group, or null."""
        shifted = pa.concat_arrays([pa.nulls(back, values.type), values.slice(0, len(values) - back)])
        inside = pc.greater_equal(self._before, pa.scalar(back, pa.int64()))
        return pc.if_else(inside, shifted, pa.scalar(None, values.type))

    def _count(self, values: pa.Array) -> pa.Array:
        found = pa.repeat(ZERO, len(values))
        for back in range(self._width):
            found = pc.add(found, pc.cast(pc.is_valid(self._back(values, back)), pa.int64()))
        return found

    def _mean(self, values: pa.Array) -> pa.Array:
        total = self.compute("sum", values)
        return pc.divide(total, pc.cast(self._count(values), pa.float64()))

    def _spread(self, values: pa.Array, *, root: bool) -> pa.Array:
        mean, count = self._mean(values), self._count(values)
        squares = pa.nulls(len(values), pa.float64())
        for back in range(self._width):
            off = pc.subtract(self._back(values, back), mean)
            squares = _added(squares, pc.multiply(off, off))
        freedom = pc.if_else(pc.greater(count, ONE), pc.subtract(count, ONE), pa.scalar(None, pa.int64()))
        variance = pc.divide(squares, pc.cast(freedom, pa.float64()))
        return pc.sqrt(variance) if root else variance

    def _median(self, values: pa.Array) -> pa.Array:
        values = as_float(values)
        block = max(1, _LAID_OUT_MAX // self._width)
        made = []
        for start in range(0, len(values), block):
            count = min(block, len(values) - start)
            laid_out = [self._back(values, back).slice(start, count) for back in range(self._width)]
            ids = pa.concat_arrays([pa.arange(0, count)] * self._width)
            made.append(medians_of(ids, pa.chunked_array(laid_out), count))
        return pa.concat_arrays(made) if made else pa.array([], pa.float64())


def _added(total: pa.Array, one: pa.Array) -> pa.Array:
    return pc.coalesce(pc.add_checked(total, one), total, one)


def _extreme(function: str, found: pa.Array, one: pa.Array) -> pa.Array:
    if (
        pa.types.is_floating(found.type)
        or pa.types.is_integer(found.type)
        or pa.types.is_temporal(found.type)
    ):
        kernel = pc.min_element_wise if function == "min" else pc.max_element_wise
        return kernel(found, one)
    better = pc.less(one, found) if function == "min" else pc.greater(one, found)
    return pc.coalesce(pc.if_else(better, one, found), found, one)
