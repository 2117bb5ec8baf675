"""The filters of expressions: `x | name(...)`. Each is total, bounded, and gives a plain value.

Called by prepared nodes only; the compiler reads `FILTERS` to refuse an unknown name, a wrong number of
arguments or a wrong keyword. A filter gets evaluated arguments and the budget; it charges before it makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.records import record
from edge.core.values import TableRef
from playbooks.budget import (
    Budget,
    Undefined,
    checked_int,
    expect_int,
    expect_text,
    failed,
    kind_name,
    present,
)
from playbooks.encodings import b64decode, b64encode, from_json, to_json
from playbooks.formats import percent_format, text_of
from playbooks.operators import truth_of
from playbooks.sequences import SEQUENCE_FILTERS
from playbooks.texts import TEXT_FILTERS

_ROUND_DIGITS_MAX: Final = 15
_NUMBERS: Final = frozenset({int, float, bool})


@record
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


def _int(budget: Budget, value: Any, default: Any = 0, base: Any = 10) -> Any:
    kind = type(value)
    if not 2 <= expect_int(base, "`int`") <= 36:
        raise failed("`int` reads numbers to a base from 2 to 36.")
    if kind is int:
        return value
    if kind is bool:
        return int(value)
    if kind is float:
        return checked_int(int(value)) if math.isfinite(value) else default
    if kind is str and len(value) <= 64:
        try:
            return checked_int(int(value, base))
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


def _safe(budget: Budget, value: Any) -> Any:
    """Nothing is escaped here, so there is nothing to mark."""
    return value


def _format(budget: Budget, value: Any, *args: Any, **named: Any) -> str:
    pattern = expect_text(value, "`format`")
    if args and named:
        raise failed("`format` takes its values in order or by name, not both.")
    return percent_format(pattern, named or list(args), budget)


def get_key(budget: Budget, value: Any, key: Any, default: Any = None) -> Any:
    """What a map has under a key, or else the default."""
    if type(value) is dict:
        return value.get(expect_text(key, "`get`"), default)
    present(value)
    raise failed(f"`get` wants a map and was given {kind_name(value)}.")


def _abs(budget: Budget, value: Any) -> Any:
    if type(value) in _NUMBERS:
        return checked_int(abs(value)) if type(value) is not float else abs(value)
    present(value)
    raise failed(f"`abs` cannot work on {kind_name(value)}.")


def _round(budget: Budget, value: Any, precision: Any = 0, method: Any = "common") -> Any:
    if type(value) not in _NUMBERS:
        present(value)
        raise failed(f"`round` cannot work on {kind_name(value)}.")
    digits = expect_int(precision, "`round`")
    if not -_ROUND_DIGITS_MAX <= digits <= _ROUND_DIGITS_MAX:
        raise failed(f"`round` keeps at most {_ROUND_DIGITS_MAX} digits.")
    if method == "common":
        return round(value, digits) if type(value) is not float else _finite(round(value, digits))
    if method not in ("ceil", "floor"):
        raise failed("`round` rounds by the method 'common', 'ceil' or 'floor'.")
    scale = 10.0**digits
    return _finite((math.ceil if method == "ceil" else math.floor)(_finite(value * scale)) / scale)


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise failed("A result is not a finite number.")


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
    "len": Filter(_length),
    "int": Filter(_int, ("default", "base")),
    "float": Filter(_float, ("default",)),
    "bool": Filter(_bool),
    "string": Filter(_string),
    "safe": Filter(_safe),
    "format": Filter(_format, open_ended=True),
    "abs": Filter(_abs),
    "round": Filter(_round, ("precision", "method")),
    "tojson": Filter(to_json, ("indent",)),
    "fromjson": Filter(from_json),
    "b64encode": Filter(b64encode),
    "b64decode": Filter(b64decode),
    "get": Filter(get_key, ("key", "default"), 1),
    "items": Filter(_items),
    "keys": Filter(_keys),
    "values": Filter(_values),
    **{name: Filter(run, parameters, required) for name, (run, parameters, required) in TEXT_FILTERS.items()},
    **{
        name: Filter(run, parameters, required, open_ended=open_ended)
        for name, (run, parameters, required, open_ended) in SEQUENCE_FILTERS.items()
    },
}

NO_CLOCK: Final = "An expression cannot see the clock; take the time from a step's result."
NO_CHANCE: Final = "It would give something else each time; draw in a python step and keep the result."
#: What Jinja2, NoETL or Ansible have besides, and what to write instead.
FILTERS_ELSEWHERE: Final[Mapping[str, str]] = {
    "attr": "Write `x.key` or `x['key']`.",
    "encrypt_secret": "Keep secrets in the keychain and name them by `auth`.",
    "filesizeformat": "Write `(x / 1024) | round(1)`.",
    "random": NO_CHANCE,
    "shuffle": NO_CHANCE,
    "now": NO_CLOCK,
    "strftime": "Make the text of a time in a python step.",
    "pprint": "Write `x | tojson(2)`.",
    "striptags": "Take HTML apart in a python step.",
    "urlize": "Make HTML in a python step.",
    "xmlattr": "Make HTML in a python step.",
    "wordwrap": "Wrap texts in a python step.",
    "to_json": "Write `x | tojson`.",
    "from_json": "Write `x | fromjson`.",
    "hash": "Make digests in a python step.",
    "regex_replace": "Use `| replace`, or `re` in a python step.",
    "regex_search": "Use `in`, or `re` in a python step.",
    "combine": "Put maps together in a python step.",
}
