"""The filters of expressions: `x | name(...)`. Each is total, bounded, and gives a plain value.

Called by prepared nodes only; the compiler reads `FILTERS` to refuse an unknown name, a wrong number of
arguments or a wrong keyword. A filter gets evaluated arguments and the budget; it charges before it makes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge.core.values import TableRef
from playbooks.budget import (
    Budget,
    Undefined,
    checked_int,
    expect_int,
    expect_list,
    expect_text,
    failed,
    kind_name,
    present,
)
from playbooks.operators import text_of, truth_of, weigh
from playbooks.sequences import SEQUENCE_FILTERS

_ROUND_DIGITS_MAX: Final = 15
_NUMBERS: Final = frozenset({int, float, bool})


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: what runs, the parameters after the value in order, how many of them must be given."""

    run: Callable[..., Any]
    parameters: tuple[str, ...] = ()
    required: int = 0
    #: True where the filter may be handed what is not there.
    undefined: bool = False
    #: True for filters that take a filter's or test's name and further arguments (`map`, `select` …).
    open_ended: bool = False


def _default(budget: Budget, value: Any, default_value: Any = "", boolean: Any = False) -> Any:
    if type(value) is Undefined or (truth_of(boolean) and not truth_of(value)):
        return default_value
    return value


def _length(budget: Budget, value: Any) -> int:
    if type(value) in (str, list, tuple, dict, bytes):
        return len(value)
    present(value)
    if type(value) is TableRef:
        raise failed("A table has no `length`.", "Use its `.rows`.")
    raise failed(f"`length` cannot work on {kind_name(value)}.")


def _int(budget: Budget, value: Any, default: Any = 0) -> Any:
    kind = type(value)
    if kind is int:
        return value
    if kind is bool:
        return int(value)
    if kind is float:
        return checked_int(int(value)) if math.isfinite(value) else default
    if kind is str and len(value) <= 64:
        try:
            return checked_int(int(value))
        except ValueError:
            pass
        try:
            number = float(value)
        except ValueError:
            return default
        return checked_int(int(number)) if math.isfinite(number) else default
    present(value)
    return default


def _float(budget: Budget, value: Any, default: Any = 0.0) -> Any:
    kind = type(value)
    if kind in _NUMBERS:
        return float(value)
    if kind is str and len(value) <= 64:
        try:
            number = float(value)
        except ValueError:
            return default
        return number if math.isfinite(number) else default
    present(value)
    return default


def _bool(budget: Budget, value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if type(value) is int and value in (0, 1):
        return value == 1
    present(value)
    raise failed("`bool` wants true, false, 0, 1 or one of the texts true and false.")


def _string(budget: Budget, value: Any) -> str:
    return text_of(value)


def _upper(budget: Budget, value: Any) -> str:
    text = expect_text(value, "`upper`")
    budget.make_text(3 * len(text))
    return text.upper()


def _lower(budget: Budget, value: Any) -> str:
    text = expect_text(value, "`lower`")
    budget.make_text(3 * len(text))
    return text.lower()


def _title(budget: Budget, value: Any) -> str:
    text = expect_text(value, "`title`")
    budget.make_text(3 * len(text))
    return text.title()


def _capitalize(budget: Budget, value: Any) -> str:
    text = expect_text(value, "`capitalize`")
    budget.make_text(3 * len(text))
    return text.capitalize()


def _trim(budget: Budget, value: Any, chars: Any = None) -> str:
    text = expect_text(value, "`trim`")
    budget.make_text(len(text))
    return text.strip(None if chars is None else expect_text(chars, "`trim`"))


def replace_text(budget: Budget, value: Any, old: Any, new: Any, count: Any = None) -> str:
    """`value` with every `old` (the first `count` of them) replaced by `new`."""
    text = expect_text(value, "`replace`")
    old, new = expect_text(old, "`replace`"), expect_text(new, "`replace`")
    times_max = -1 if count is None else expect_int(count, "`replace`")
    budget.search(2 * len(old), len(text))  # counted, then replaced
    found = text.count(old)
    if times_max >= 0:
        found = min(found, times_max)
    budget.make_text(len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, times_max)


def split_text(budget: Budget, value: Any, sep: Any = None, maxsplit: Any = -1) -> list[str]:
    """The parts of a text between separators (white space where none is given)."""
    text = expect_text(value, "`split`")
    separator = None if sep is None else expect_text(sep, "`split`")
    if separator == "":
        raise failed(
            "`split` wants a separator of at least one character.", "Use `| list` for the characters."
        )
    budget.search(2 * len(separator or ""), len(text))  # counted, then split
    parts_max = text.count(separator) + 1 if separator is not None else len(text) // 2 + 1
    times_max = expect_int(maxsplit, "`split`")
    if times_max >= 0:
        parts_max = min(parts_max, times_max + 1)
    budget.make_list(parts_max)
    budget.make_text(len(text))
    return text.split(separator, times_max)


def join_texts(budget: Budget, value: Any, d: Any = "", attribute: Any = None) -> str:
    """The elements of a list as one text, with `d` between them."""
    items = expect_list(value, "`join`")
    between = expect_text(d, "`join`")
    budget.walk(len(items))
    if attribute is not None:
        from playbooks.sequences import attribute_of

        items = [attribute_of(item, attribute) for item in items]
    parts = [text_of(item) for item in items]
    budget.make_text(sum(map(len, parts)) + len(between) * max(len(parts) - 1, 0))
    return between.join(parts)


def _abs(budget: Budget, value: Any) -> Any:
    if type(value) in _NUMBERS:
        return checked_int(abs(value)) if type(value) is not float else abs(value)
    present(value)
    raise failed(f"`abs` cannot work on {kind_name(value)}.")


def _round(budget: Budget, value: Any, precision: Any = 0, method: Any = "common") -> float:
    if type(value) not in _NUMBERS:
        present(value)
        raise failed(f"`round` cannot work on {kind_name(value)}.")
    digits = expect_int(precision, "`round`")
    if not -_ROUND_DIGITS_MAX <= digits <= _ROUND_DIGITS_MAX:
        raise failed(f"`round` keeps at most {_ROUND_DIGITS_MAX} digits.")
    if method == "common":
        return _finite(float(round(value, digits)))
    if method not in ("ceil", "floor"):
        raise failed("`round` rounds by the method 'common', 'ceil' or 'floor'.")
    scale = 10.0**digits
    return _finite((math.ceil if method == "ceil" else math.floor)(_finite(value * scale)) / scale)


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise failed("A result is not a finite number.")


def _tojson(budget: Budget, value: Any, indent: Any = None) -> str:
    budget.make_text(weigh(value, budget))
    if indent is not None and not 0 <= expect_int(indent, "`tojson`") <= 8:
        raise failed("`tojson` indents by 0 to 8.")
    try:
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = "`tojson` met bytes or a table, which JSON cannot hold."
        raise failed(message, "Leave that key out.") from error


def _items(budget: Budget, value: Any) -> list[list[Any]]:
    if type(value) is dict:
        budget.make_list(3 * len(value))
        return [[key, item] for key, item in value.items()]
    present(value)
    raise failed(f"`items` wants a map and was given {kind_name(value)}.")


def _keys(budget: Budget, value: Any) -> list[str]:
    return [key for key, _ in _items(budget, value)]


def _values(budget: Budget, value: Any) -> list[Any]:
    return [item for _, item in _items(budget, value)]


FILTERS: Final[Mapping[str, Filter]] = {
    "default": Filter(_default, ("default_value", "boolean"), undefined=True),
    "d": Filter(_default, ("default_value", "boolean"), undefined=True),
    "length": Filter(_length),
    "count": Filter(_length),
    "int": Filter(_int, ("default",)),
    "float": Filter(_float, ("default",)),
    "bool": Filter(_bool),
    "string": Filter(_string),
    "upper": Filter(_upper),
    "lower": Filter(_lower),
    "title": Filter(_title),
    "capitalize": Filter(_capitalize),
    "trim": Filter(_trim, ("chars",)),
    "replace": Filter(replace_text, ("old", "new", "count"), 2),
    "split": Filter(split_text, ("sep", "maxsplit")),
    "join": Filter(join_texts, ("d", "attribute")),
    "abs": Filter(_abs),
    "round": Filter(_round, ("precision", "method")),
    "tojson": Filter(_tojson, ("indent",)),
    "items": Filter(_items),
    "keys": Filter(_keys),
    "values": Filter(_values),
    **{
        name: Filter(run, parameters, required, open_ended=open_ended)
        for name, (run, parameters, required, open_ended) in SEQUENCE_FILTERS.items()
    },
}
