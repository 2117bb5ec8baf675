"""JSON and base64 in expressions: `tojson`, `fromjson`, `b64encode`, `b64decode`, and reading a text as a value.

Part of `playbooks.filters`; `read_value` is also what a template with statements ends with. Whatever is read here is
a plain value within the same bounds as any other.
"""

from __future__ import annotations

import binascii
import json
import math
from typing import Any, Final

from playbooks.budget import Budget, checked_int, expect_int, expect_text, failed, kind_name, present
from playbooks.formats import soft_text, text_of
from playbooks.operators import NESTED_MAX, weigh

#: Reading JSON costs about this share of a step for each character (2 ** -5).
_READ_CHARACTERS_LOG2: Final = 5
_CONSTANTS: Final = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "none": None,
    "None": None,
    "null": None,
}
_NUMBER_CHARACTERS_MAX: Final = 40


def to_json(budget: Budget, value: Any, indent: Any = None) -> str:
    """The value as JSON, keys in order, without the escapes that HTML would need."""
    budget.make_text(weigh(present(value), budget))
    if indent is not None and not 0 <= expect_int(indent, "`tojson`") <= 8:
        raise failed("`tojson` indents by 0 to 8.")
    try:
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = "`tojson` met bytes or a table, which JSON cannot hold."
        raise failed(message, "Leave that key out.") from error


def from_json(budget: Budget, value: Any) -> Any:
    """What a JSON text says. Raises EvaluationFailed where it is none, or holds what no value may."""
    text = expect_text(value, "`fromjson`")
    try:
        return _parsed(budget, text)
    except ValueError as error:
        raise failed("`fromjson` was given a text that is no JSON.", "Look at what made it.") from error


def read_value(budget: Budget, text: str) -> Any:
    """What a text made by statements means: a list or map of JSON, a number, true, false, none; else itself.

    NoETL's engines read the text of such a template back in this way.
    """
    short = text.strip() if len(text) <= _NUMBER_CHARACTERS_MAX else ""
    if short in _CONSTANTS:
        return _CONSTANTS[short]
    begins, ends = text.lstrip()[:1], text.rstrip()[-1:]
    if (begins, ends) not in (("[", "]"), ("{", "}")) and not (short and short[-1].isdecimal()):
        return text
    try:
        return _parsed(budget, text)
    except ValueError:
        return text


class _NotPlain(ValueError):
    """JSON that no value of ours may hold."""


def _parsed(budget: Budget, text: str) -> Any:
    """Raises ValueError where the text is no JSON of plain values."""
    budget.make_text(len(text))
    # As many elements and containers as there can be, before any is made.
    budget.walk((len(text) >> _READ_CHARACTERS_LOG2) + text.count(",") + text.count("[") + text.count("{"))
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_whole, parse_float=_fraction)
    except RecursionError as error:
        raise _NotPlain("nested too deeply") from error
    _check(value, 0, "\\u" in text)
    return value


def _refuse(word: str) -> Any:
    raise _NotPlain(word)


def _whole(digits: str) -> int:
    if len(digits) > _NUMBER_CHARACTERS_MAX or not -(2**63) <= (number := int(digits)) < 2**64:
        raise _NotPlain("too large")
    return checked_int(number)


def _fraction(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _NotPlain("not finite")
    return number


def _check(value: Any, depth: int, escapes: bool) -> None:
    kind = type(value)
    if kind is str and escapes:
        value.encode()  # half a character cannot be encoded, which is a ValueError
    elif kind is list or kind is dict:
        if depth >= NESTED_MAX:
            raise _NotPlain("nested too deeply")
        if kind is dict and escapes:
            "".join(value).encode()
        for item in value if kind is list else value.values():
            _check(item, depth + 1, escapes)


def b64encode(budget: Budget, value: Any) -> str:
    """The text's UTF-8 (or the bytes) as base64."""
    data = value if type(value) is bytes else text_of(value).encode()
    budget.make_text(len(data) * 4 // 3 + 4)
    return binascii.b2a_base64(data, newline=False).decode()


def b64decode(budget: Budget, value: Any) -> str:
    """The text that stands in a base64 text. Raises EvaluationFailed where it is no UTF-8 text."""
    text = soft_text(value, "`b64decode`")
    budget.make_text(len(text))
    try:
        return binascii.a2b_base64(text, strict_mode=True).decode()
    except ValueError as error:
        what = kind_name(value)
        raise failed(f"`b64decode` was given {what} that is not the base64 of a text.") from error
