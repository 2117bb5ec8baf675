"""What a block may answer: a plain value or one table; anything else is refused with the way to mend it.

Used by the `python` kind, inside its boundary: reading an author's object may run the author's code. Must
never guess a conversion that loses something (a time zone, a precision, an order).
"""

from __future__ import annotations

import math
from typing import Any, Final

import pyarrow as pa

from edge.core.errors import ToolFailed
from edge.core.limits import VALUE_DEPTH_MAX

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1

#: Types by name, so that none of their modules has to be imported here, and what to write instead.
_MENDS: Final = {
    "datetime": "Return `.isoformat()` or `.timestamp()` of it.",
    "date": "Return `.isoformat()` of it.",
    "time": "Return `.isoformat()` of it.",
    "timedelta": "Return `.total_seconds()` of it.",
    "Decimal": "Return `float(...)` or `str(...)` of it.",
    "Fraction": "Return `float(...)` of it.",
    "UUID": "Return `str(...)` of it.",
    "set": "Return `sorted(...)` of it.",
    "frozenset": "Return `sorted(...)` of it.",
    "complex": "Return its `.real` and `.imag`.",
    "generator": "Return `list(...)` of it.",
    "DataFrame": "Return `pyarrow.Table.from_pandas(...)` of it.",
}


def as_result(value: Any) -> Any:
    """The plain value or the table a block answered. Raises ToolFailed `result_invalid`."""
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    if isinstance(value, pa.Table):
        return _checked_table(value)
    return _plain(value, "result", 0)


def _checked_table(table: pa.Table) -> pa.Table:
    names = table.column_names
    if len(set(names)) != len(names) or "" in names:
        raise _refuse("The table has columns without a name or two of one name.", "Rename its columns.")
    try:
        # A block can build a table whose offsets point anywhere; the step that reads it would die of it.
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _refuse(
            f"The table does not hold together: {error}.", "Build it with pyarrow.table."
        ) from error
    return table


def _plain(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is bytes:
        return value
    if depth > VALUE_DEPTH_MAX:
        raise _refuse(f"{_short(path)} is nested deeper than {VALUE_DEPTH_MAX}.", "Flatten it.")
    if kind is str or isinstance(value, str):
        return _text(str(value), path)
    if kind is int or kind is float or isinstance(value, (int, float)):
        return _number(value, path)
    shallow = depth < VALUE_DEPTH_MAX
    if isinstance(value, (list, tuple)):
        return [
            item if shallow and _is_ready(item) else _plain(item, f"{path}[{at}]", depth + 1)
            for at, item in enumerate(value)
        ]
    if isinstance(value, dict):
        return {
            _key(key, path): item if shallow and _is_ready(item) else _plain(item, f"{path}.{key}", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise _unknown(value, path)


def _is_ready(value: Any) -> bool:
    """Whether `_plain` gives this back as it is: most of a long list, for which no path has to be written then."""
    kind = type(value)
    if kind is int:
        return bool(_INT_MIN <= value <= _INT_MAX)
    if kind is str:
        return bool(value.isascii())
    return math.isfinite(value) if kind is float else value is None or kind is bool


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refuse(f"{_short(path)} is text that is not valid Unicode.", "Return bytes.") from error
    return value


def _number(value: Any, path: str) -> int | float:
    # numpy.float64 is a float and numpy.bool_ is not a bool: whatever carries a dtype is refused alike.
    if hasattr(value, "dtype"):
        raise _unknown(value, path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse(f"{_short(path)} is {value!r}, not a finite number.", "Return None instead.")
        return float(value)
    number = int(value)
    if not _INT_MIN <= number <= _INT_MAX:
        raise _refuse(f"{_short(path)} is an integer of more than 64 bits.", "Return it as text.")
    return number


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise _refuse(f"{_short(path)} has a key of type {type(key).__name__}.", "Use text keys: `str(key)`.")
    return _text(str(key), path)


def _unknown(value: Any, path: str) -> ToolFailed:
    name = type(value).__name__
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return _refuse(f"{_short(path)} is a table inside another value.", "Return the table alone.")
    if hasattr(value, "dtype"):
        mend = "Return `.item()` of it." if not getattr(value, "shape", ()) else "Return `.tolist()` of it."
    elif isinstance(value, (pa.Array, pa.ChunkedArray)):
        mend = "Return `.to_pylist()` of it, or a table."
    elif isinstance(value, pa.Scalar):
        mend = "Return `.as_py()` of it."
    else:
        mend = _MENDS.get(name, "Return numbers, texts, bytes, lists and maps, or one table.")
    return _refuse(f"{_short(path)} is of type {name}, which a step cannot answer.", mend)


def _refuse(message: str, mend: str) -> ToolFailed:
    return ToolFailed(
        f"The block's {message}" if message[0] == "r" else message, code="result_invalid", mend=mend
    )


def _short(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:117]}..."
