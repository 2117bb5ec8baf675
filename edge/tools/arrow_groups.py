"""Groups of rows and what is made of each: counts, sums, means, medians.

Used by the `arrow` kind. Groups come out in the order in which their first rows stand, always; nulls of a key
are one group; every aggregate leaves nulls out and is null where nothing is left (`count` is 0). Standard
deviation and variance are those of a sample (n - 1), as in PostgreSQL and DuckDB: null for a single value.
Must never start a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import ToolFailed
from edge.tools.arrow_columns import Columns, describe
from edge.tools.arrow_kernels import FLOAT, ONE, ZERO, as_float, plain_column

#: What playbooks call an aggregate, and what Arrow does; `median` is ours, Arrow's is an approximation.
FUNCTIONS: Final = {
    "count": "count",
    "sum": "sum",
    "mean": "mean",
    "avg": "mean",
    "min": "min",
    "max": "max",
    "first": "first",
    "last": "last",
    "stddev": "stddev",
    "variance": "variance",
    "median": "median",
}
_INT: Final = pa.int64()
_KERNELS: Final = {name: pc.get_function(kernel) for name, kernel in FUNCTIONS.items() if name != "median"}
#: Scalars whose Python value is plain as it stands.
_SIMPLE: Final = frozenset(
    {pa.DoubleScalar, pa.Int64Scalar, pa.UInt64Scalar, pa.Int32Scalar, pa.BooleanScalar, pa.StringScalar}
)
_TWO: Final = pa.scalar(2, pa.int64())
_ZERO_FLOAT: Final = pa.scalar(0.0, pa.float64())
_TRUE: Final = pa.array([True], pa.bool_())
_SAMPLE: Final = pc.VarianceOptions(ddof=1)


def aggregate(columns: Columns, by: Sequence[str], wanted: Sequence[Sequence[Any]]) -> pa.Table:
    """One row per group: the keys, then each `[name, function, node]` (node None: count rows)."""
    table = columns.table
    if not by:
        return _of_all_rows(columns, wanted)
    ids, first_rows = group_rows(table, by)
    values: dict[str, Any] = {"g": ids}
    calls: list[tuple[Any, str, Any]] = []
    medians: dict[int, pa.ChunkedArray] = {}
    for at, (name, function, node) in enumerate(wanted):
        checked_function(function)
        if node is None:
            calls.append(([], "count_all", None))
            continue
        value = numbers_for(function, columns.full(node, f"{function} of {name}"), name)
        if function == "median":
            medians[at] = value
        values[f"v{at}"] = value
        calls.append((f"v{at}", "count" if function == "median" else FUNCTIONS[function], _options(function)))
    made = _grouped(pa.table(values), calls)
    results = [made.column(at + 1) for at in range(len(wanted))]
    for at, value in medians.items():
        results[at] = medians_of(ids, value, made.num_rows)
    keys = [table.column(name).take(first_rows) for name in by]
    return pa.table([*keys, *results], names=[*by, *(name for name, _, _ in wanted)])


def aggregate_row(columns: Columns, wanted: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The one row without groups as a map of plain values: times and decimals as texts."""
    return {
        name: _plain(value) for (name, _, _), value in zip(wanted, _scalars(columns, wanted), strict=True)
    }


def _plain(value: pa.Scalar) -> Any:
    if type(value) in _SIMPLE:
        return value.as_py()
    return plain_column(pa.chunked_array([pa.repeat(value, 1)])).to_pylist()[0]


def _of_all_rows(columns: Columns, wanted: Sequence[Sequence[Any]]) -> pa.Table:
    made = [pa.repeat(value, 1) for value in _scalars(columns, wanted)]
    return pa.table(made, names=[name for name, _, _ in wanted])


def _scalars(columns: Columns, wanted: Sequence[Sequence[Any]]) -> list[pa.Scalar]:
    """Without groups each aggregate is one kernel; a plan for them all takes ten times as long (330 µs)."""
    made = []
    for name, function, node in wanted:
        checked_function(function)
        if node is None:
            made.append(pa.scalar(columns.table.num_rows, _INT))
            continue
        value = columns.full(node, f"{function} of {name}")
        if function == "count":
            made.append(pa.scalar(len(value) - value.null_count, _INT))
            continue
        # In one piece: additions happen in one order, however the column was cut.
        value = joined(numbers_for(function, value, name))
        if function == "median":
            made.append(medians_of(pa.repeat(ZERO, len(value)), pa.chunked_array([value]), 1)[0])
        else:
            made.append(_KERNELS[function].call([value], _options(function)))
    return made


def group_rows(table: pa.Table, by: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """`(the group of every row, the first row of every group)`, groups numbered as they first appear."""
    count = table.num_rows
    if not by:
        return pa.repeat(ZERO, count), pa.arange(0, min(count, 1))
    check_names(table, by)
    ids = pa.repeat(ZERO, count)
    for name in by:
        # Hashing numbers what it meets in the order it meets it; null is one more value.
        one = joined(sortable(table.column(name)))
        if pa.types.is_floating(one.type):
            one = pc.add(one, _ZERO_FLOAT)  # 0.0 and -0.0 are one group
        one = pc.dictionary_encode(one, null_encoding="encode")
        both = pc.add(
            pc.multiply(ids, pa.scalar(len(one.dictionary), pa.int64())), pc.cast(one.indices, pa.int64())
        )
        ids = pc.cast(pc.dictionary_encode(both).indices, pa.int64())
    groups = (pc.max(ids).as_py() + 1) if count else 0
    return ids, pc.cast(pc.index_in(pa.arange(0, groups), value_set=ids), pa.int64())


def sorted_rows(keys: pa.Table, sort_keys: list[tuple[str, str]]) -> pa.Array:
    """Row numbers in sorted order, nulls last; signed, as Arrow's other kernels want them."""
    return pc.cast(pc.sort_indices(keys, sort_keys=sort_keys), pa.int64())


def run_starts(ids: pa.Array) -> pa.Array:
    """True where a row's group is another than the row's before it."""
    if len(ids) == 0:
        return pa.array([], pa.bool_())
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
    return pa.concat_arrays([_TRUE, changes])


def medians_of(ids: pa.Array, values: pa.ChunkedArray, groups: int) -> pa.Array:
    """The exact median of every group's values: the middle one, or the mean of the middle two."""
    pairs = pa.table({"g": ids, "v": as_float(values)})
    pairs = pairs.filter(pc.is_valid(pairs.column("v")))
    count = pairs.num_rows
    pairs = pairs.take(sorted_rows(pairs, [("g", "ascending"), ("v", "ascending")]))
    in_order, sorted_values = joined(pairs.column("g")), joined(pairs.column("v"))
    starts = pc.cast(pc.indices_nonzero(run_starts(in_order)), pa.int64())
    ends = (
        pa.concat_arrays([starts.slice(1), pa.repeat(pa.scalar(count, pa.int64()), 1)])
        if len(starts)
        else starts
    )
    sizes = pc.subtract(ends, starts)
    lower = pc.add(starts, pc.divide(pc.subtract(sizes, ONE), _TWO))
    upper = pc.add(starts, pc.divide(sizes, _TWO))
    middles = pc.divide(
        pc.add(sorted_values.take(lower), sorted_values.take(upper)), pa.scalar(2.0, pa.float64())
    )
    places = pc.index_in(pa.arange(0, groups), value_set=in_order.take(starts))
    return middles.take(places)


def checked_function(name: Any) -> str:
    """The aggregate's name, if there is one of that name. Raises ToolFailed."""
    if name not in FUNCTIONS:
        raise ToolFailed(
            f"There is no aggregate {name!r}.",
            code="aggregate_unknown",
            mend=f"There are {', '.join(FUNCTIONS)}.",
        )
    return str(name)


def numbers_for(function: str, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column in the type its aggregate is exact in. Raises ToolFailed where it makes no sense."""
    kind = column.type
    if kind.equals(FLOAT):
        return column
    if pa.types.is_null(kind):
        return column.cast(pa.float64())
    if function in ("count", "min", "max", "first", "last"):
        return column
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ToolFailed(
            f"`{name}` asks for the {function} of a column of type {kind}.",
            code="column_type",
            mend="Convert it with `| float`, or count it.",
        )
    if function != "sum":
        # Arrow adds whole numbers up in 64 bits before it divides, and wraps without a word.
        return as_float(column)
    if not pa.types.is_floating(kind):
        column = pc.cast(column, pa.int64())
        _check_sum(column, name)
    return column


def joined(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece: how it was cut must never show in a result."""
    if column.num_chunks == 1:
        return column.chunk(0)
    array = column.combine_chunks()
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)


def _check_sum(column: pa.ChunkedArray, name: str) -> None:
    limits = pc.min_max(column).as_py()
    largest = max(abs(limits["min"] or 0), abs(limits["max"] or 0))
    if largest * len(column) >= 2**63:
        raise ToolFailed(
            f"The sum `{name}` may not fit in 64 bits.", code="overflow", mend="Sum it as `… | float`."
        )


def _options(function: str) -> Any:
    return _SAMPLE if function in ("stddev", "variance") else None


def _grouped(values: pa.Table, calls: list[tuple[Any, str, Any]]) -> pa.Table:
    # In one piece, on this thread: additions happen in one order on every machine.
    values = values.combine_chunks()
    return values.group_by(["g"], use_threads=False).aggregate(calls).sort_by("g")


def check_names(table: pa.Table, names: Sequence[str]) -> None:
    """Raise ToolFailed where the table lacks one of the columns."""
    for name in names:
        if name not in table.column_names:
            raise ToolFailed(
                f"The table has no column {name!r} to group or order by.",
                code="column_unknown",
                mend=f"It has {describe(table)}.",
            )


def sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in a type Arrow can sort. Raises ToolFailed for lists and structs."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_null(kind):
        return column.cast(pa.int8())
    if pa.types.is_nested(kind):
        raise ToolFailed(
            f"Rows cannot be grouped or ordered by a column of type {kind}.",
            code="column_type",
            mend="Project a plain column out of it first.",
        )
    return column
