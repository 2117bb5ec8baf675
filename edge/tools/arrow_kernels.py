"""What operators, filters and tests do to whole columns; nulls as edge.tools.arrow_columns says.

Used by arrow_columns and by the aggregates. Every function takes and gives Arrow columns or scalars and raises
ToolFailed, or Arrow's own errors, which the caller words. Must never start a thread: kernels run where they
are called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import ToolFailed

Column = Any
"""A pyarrow ChunkedArray, Array or Scalar."""

# Typed once: for an untyped number Arrow tries to import dateutil each time, at 100 µs where there is none.
FLOAT: Final = pa.float64()
ZERO: Final = pa.scalar(0, pa.int64())
ONE: Final = pa.scalar(1, pa.int64())
FALSE: Final = pa.scalar(False, pa.bool_())
_WHOLE: Final = r"^\s*[+-]?\d{1,18}\s*$"
_DECIMAL: Final = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def truth(column: Column) -> Column:
    """A column as a condition: not 0, not empty; null stays null."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_null(kind):
        return pc.cast(column, pa.bool_())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pc.not_equal(column, ZERO)
    if is_text(kind):
        return pc.greater(pc.binary_length(column), ZERO)
    raise ToolFailed(
        f"A column of type {kind} is neither true nor false.",
        code="column_type",
        mend="Compare it with something.",
    )


def as_float(column: Column) -> Column:
    """The column as 64-bit floating point; a text that is no number is null."""
    if column.type.equals(FLOAT):
        return column
    if is_text(column.type):
        column = _matching(column, _DECIMAL)
    return pc.cast(column, pa.float64(), safe=False)


def _as_int(column: Column) -> Column:
    if is_text(column.type):
        return pc.cast(_matching(column, _WHOLE), pa.int64())
    if pa.types.is_floating(column.type):
        column = pc.trunc(column)
    return pc.cast(column, pa.int64())


def _matching(column: Column, pattern: str) -> Column:
    trimmed = pc.utf8_trim_whitespace(column)
    fits = pc.match_substring_regex(trimmed, pattern=pattern)
    # Number parsing knows no plus sign.
    return pc.if_else(fits, pc.utf8_ltrim(trimmed, characters="+"), pa.scalar(None, column.type))


def choose(test: Column, then: Column, other: Column) -> Column:
    """`then` where `test` holds, else `other`; a null test does not hold."""
    condition = truth(test)
    holds = pc.coalesce(condition, FALSE)
    if pa.types.is_integer(then.type) and pa.types.is_floating(other.type):
        then = as_float(then)
    elif pa.types.is_integer(other.type) and pa.types.is_floating(then.type):
        other = as_float(other)
    return pc.if_else(holds, then, other)


def _add(left: Column, right: Column) -> Column:
    if is_text(left.type) and is_text(right.type):
        return pc.binary_join_element_wise(left, right, pa.scalar("", left.type))
    return pc.add_checked(left, right)


def _divide(left: Column, right: Column) -> Column:
    return pc.divide(_number(left), _without_zero(_number(right)))


def _number(column: Column) -> Column:
    if is_text(column.type):
        raise ToolFailed(
            "A column of texts stands in a division.", code="column_type", mend="Convert it with `| float`."
        )
    return as_float(column)


def _divide_whole(left: Column, right: Column) -> Column:
    if not (pa.types.is_integer(left.type) and pa.types.is_integer(right.type)):
        return pc.floor(_divide(left, right))
    left, right = pc.cast(left, pa.int64()), _without_zero(pc.cast(right, pa.int64()))
    quotient = pc.divide_checked(left, right)
    # Arrow rounds towards zero, Python down: one less where the signs differ and something is left over.
    rest = pc.subtract(left, pc.multiply(quotient, right))
    lower = pc.and_(pc.not_equal(rest, ZERO), pc.not_equal(pc.less(rest, ZERO), pc.less(right, ZERO)))
    return pc.if_else(lower, pc.subtract(quotient, ONE), quotient)


def _remainder(left: Column, right: Column) -> Column:
    quotient = _divide_whole(left, right)
    if pa.types.is_integer(quotient.type):
        left, right = pc.cast(left, pa.int64()), pc.cast(right, pa.int64())
        # May wrap on the way, never in the end: the remainder is smaller than the divisor.
        return pc.subtract(left, pc.multiply(quotient, right))
    return pc.subtract(_number(left), pc.multiply(quotient, _number(right)))


def _without_zero(column: Column) -> Column:
    return pc.if_else(pc.equal(column, ZERO), pa.scalar(None, column.type), column)


BINARY: Final[dict[str, Callable[[Column, Column], Column]]] = {
    "+": _add,
    "-": pc.subtract_checked,
    "*": pc.multiply_checked,
    "/": _divide,
    "//": _divide_whole,
    "%": _remainder,
}
COMPARE: Final[dict[str, Callable[[Column, Column], Column]]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def compared(symbol: str, left: Column, right: Column) -> Column:
    """One comparison; against `none` it asks whether something is there."""
    if symbol in ("==", "!="):
        for one, other in ((left, right), (right, left)):
            if isinstance(one, pa.Scalar) and not one.is_valid:
                return pc.is_null(other) if symbol == "==" else pc.is_valid(other)
    return COMPARE[symbol](left, right)


def _round(column: Column, precision: Column = None) -> Column:
    digits = 0 if precision is None else precision.as_py()
    return pc.round(as_float(column), ndigits=digits, round_mode="half_to_even")  # as Python rounds


def _string(column: Column) -> Column:
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, "True", "False")  # as the evaluator writes them
    return pc.cast(column, pa.string())


FILTERS: Final[dict[str, Callable[..., Column]]] = {
    "abs": pc.abs_checked,
    "round": _round,
    "int": _as_int,
    "float": as_float,
    "string": _string,
}
TESTS: Final[dict[str, Callable[[Column], Column]]] = {"none": pc.is_null}


def is_condition(column: Column) -> bool:
    """Whether the column holds nothing but true, false and null."""
    return bool(pa.types.is_boolean(column.type) or pa.types.is_null(column.type))


def is_text(kind: Any) -> bool:
    """Whether a type is one of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in a type whose Python values are plain: times and decimals as texts, dictionaries opened."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_duration(kind):
        return column
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pc.cast(column, pa.string())
    return column
