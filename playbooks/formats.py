"""How a value stands in a text, and texts made by a pattern, bounded: `"%05.1f" % x`, `"%s" | format(a)`, `.format`.

Called by `playbooks.operators` (for `%`), by the filters, the tests and the methods. The patterns are read here and
only single numbers and texts are handed to Python's own formatting, so neither `{0.__class__}` nor a width of a
million characters gets there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from edge.core.values import TableRef
from playbooks.budget import Budget, expect_text, failed, kind_name, present

#: Characters a single value is widened to at most, and digits behind its point.
FORMAT_WIDTH_MAX: Final = 200
FORMAT_DIGITS_MAX: Final = 50

_PERCENT: Final = re.compile(
    r"%(?:\(([^()]{1,80})\))?([#0\- +]{0,5})([0-9]{0,4})(?:\.([0-9]{0,4}))?([diouxXeEfFgGs%])"
)
_BRACE: Final = re.compile(r"\{\{|\}\}|\{([0-9]{0,3})(?::([^{}]{0,40}))?\}|[{}]")
_SPEC: Final = re.compile(
    r"(?:[^{}]?[<>=^])?[-+ ]?#?0?([0-9]{0,4})[,_]?(?:\.([0-9]{1,4}))?([bdeEfFgGosxX%]?)", re.DOTALL
)
#: Looking for fields costs about this share of a step for each character (2 ** -4).
_FIELD_CHARACTERS_LOG2: Final = 4
_NUMBERS: Final = frozenset({int, float, bool})
#: A number written out in full (1e308 by %f) takes at most so many characters beside its width.
_NUMBER_CHARACTERS_MAX: Final = 330


def text_of(value: Any) -> str:
    """A value as it stands in a text. Raises EvaluationFailed for lists, maps, bytes and tables."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is int or kind is float or kind is bool or value is None:
        return str(value)
    present(value)
    if kind is TableRef:
        raise failed(
            "A table cannot stand in a text.", "Let the whole value be the one expression `{{ … }}`."
        )
    mend = (
        "Use `| tojson`, or `| join(', ')` for a list."
        if kind is not bytes
        else "Decode it in a python step."
    )
    raise failed(f"{kind_name(value).capitalize()} cannot stand in a text.", mend)


def soft_text(value: Any, what: str) -> str:
    """The value as a text, if it is one or a number, boolean or none. Raises EvaluationFailed naming `what`."""
    if type(value) is str:
        return value
    if type(value) in (int, float, bool) or value is None:
        return str(value)
    return expect_text(value, what)


def percent_format(pattern: str, given: Any, budget: Budget) -> str:
    """As Python's `pattern % given`: `given` is a list of values, a map of them, or the only one."""
    values = given if type(given) in (list, tuple) else [given]
    named = given if type(given) is dict else None
    budget.read_text(len(pattern))
    made, at, taken = [], 0, 0
    while True:
        start = pattern.find("%", at)
        if start < 0:
            break
        found = _PERCENT.match(pattern, start)
        if found is None:
            raise failed(
                f"`{pattern[start : start + 12]}` is no format.",
                "Write %s, %d, %.2f, … and %% for a percent sign.",
            )
        made.append(pattern[at:start])
        at = found.end()
        key, flags, width, digits, kind = found.groups()
        if kind == "%":
            made.append("%")
            continue
        _bounded(width, digits)
        if key is not None:
            if named is None or key not in named:
                raise failed(f"The format names `{key}` and there is no such value.")
            value = named[key]
        elif named is not None or taken >= len(values):
            raise failed("The format wants more values than it is given.")
        else:
            value, taken = values[taken], taken + 1
        budget.walk(1)
        spec = f"%{flags}{width}{'' if digits is None else '.' + digits}{kind}"
        made.append(_one(spec, kind, value, budget))
    if named is None and taken < len(values) and type(given) in (list, tuple):
        raise failed("The format is given more values than it wants.")
    made.append(pattern[at:])
    budget.make_text(sum(map(len, made)))
    return "".join(made)


def _one(spec: str, kind: str, value: Any, budget: Budget) -> str:
    present(value)
    if kind == "s":
        text = text_of(value)
        budget.make_text(len(text) + FORMAT_WIDTH_MAX)
        return spec % text
    if type(value) not in _NUMBERS or (kind in "oxX" and type(value) is float):
        raise failed(f"The format `{spec}` cannot write {kind_name(value)}.")
    budget.make_text(FORMAT_WIDTH_MAX + _NUMBER_CHARACTERS_MAX)
    made: str = spec % value
    return made


def brace_format(budget: Budget, pattern: str, values: Sequence[Any]) -> str:
    """As Python's `pattern.format(*values)`, without keys, attributes or nested fields."""
    budget.walk(len(pattern) >> _FIELD_CHARACTERS_LOG2)
    made, at, count = [], 0, 0
    for found in _BRACE.finditer(pattern):
        made.append(pattern[at : found.start()])
        at = found.end()
        whole = found.group()
        if whole in ("{{", "}}"):
            made.append(whole[0])
            continue
        if len(whole) == 1:
            raise failed(
                "`.format()` takes fields such as {}, {0} and {:.2f} only.", "Write {{ for a brace itself."
            )
        index, spec = found.groups()
        position = int(index) if index else count
        count += not index
        if position >= len(values):
            raise failed("The format wants more values than it is given.")
        budget.walk(1)
        made.append(_braced(present(values[position]), spec or "", budget))
    made.append(pattern[at:])
    budget.make_text(sum(map(len, made)))
    return "".join(made)


def _braced(value: Any, spec: str, budget: Budget) -> str:
    if not spec:
        return text_of(value)
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise failed(f"`{spec}` is no format.", "Write such as >8, 05d, .2f.")
    _bounded(found[1], found[2])
    if type(value) is not str and type(value) not in _NUMBERS:
        raise failed(f"The format `{spec}` cannot write {kind_name(value)}.")
    budget.make_text(FORMAT_WIDTH_MAX + (len(value) if type(value) is str else _NUMBER_CHARACTERS_MAX))
    try:
        return format(value, spec)
    except (ValueError, OverflowError) as error:
        raise failed(f"The format `{spec}` cannot write {kind_name(value)}.") from error


def _bounded(width: str | None, digits: str | None) -> None:
    if int(width or 0) > FORMAT_WIDTH_MAX or int(digits or 0) > FORMAT_DIGITS_MAX:
        raise failed(
            f"A format is at most {FORMAT_WIDTH_MAX} wide, with {FORMAT_DIGITS_MAX} digits.",
            "Pad a text with `.ljust()`, or use a python step.",
        )
