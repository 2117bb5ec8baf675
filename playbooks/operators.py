"""What +, <, `in`, text joining and truth do to plain values, bounded and total.

Called by the prepared nodes and the filters. Never calls a method of a value that is not a plain one, and
charges the budget before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from edge.core.values import TableRef
from playbooks.budget import Budget, Undefined, checked_int, fail_undefined, failed, kind_name, present
from playbooks.formats import percent_format

_NUMBERS: Final = frozenset({int, float, bool})
#: An integer power is refused before it is computed where it would have more bits than this.
_POWER_BITS_MAX: Final = 64
#: Nesting compared or walked; values from outside are flatter than this (VALUE_DEPTH_MAX).
NESTED_MAX: Final = 64


def _checked(value: Any) -> Any:
    """A computed number, if it is one we can keep."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else checked_int(value)
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise failed("A result is not a finite number.")
    raise failed("A result is not a real number.")


def _mismatch(symbol: str, left: Any, right: Any) -> Any:
    for value in (left, right):
        if type(value) is Undefined:
            fail_undefined(value)
        if type(value) is TableRef:
            raise failed(f"`{symbol}` cannot work on a table.", "Use an arrow step to work on a table.")
    mend = "Use `~` to join texts, `| int` or `| float` to read a number." if symbol == "+" else ""
    raise failed(f"`{symbol}` cannot work on {kind_name(left)} and {kind_name(right)}.", mend)


def add(left: Any, right: Any, budget: Budget) -> Any:
    """Numbers, texts or lists put together."""
    kind, other = type(left), type(right)
    if kind in _NUMBERS and other in _NUMBERS:
        return _checked(left + right)
    if kind is str and other is str:
        budget.make_text(len(left) + len(right))
        return left + right
    if kind in (list, tuple) and other in (list, tuple):
        budget.make_list(len(left) + len(right))
        return [*left, *right]
    return _mismatch("+", left, right)


def subtract(left: Any, right: Any, budget: Budget) -> Any:
    """A difference of numbers."""
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        return _checked(left - right)
    return _mismatch("-", left, right)


def multiply(left: Any, right: Any, budget: Budget) -> Any:
    """A product of numbers, or a text repeated."""
    kind, other = type(left), type(right)
    if kind in _NUMBERS and other in _NUMBERS:
        return _checked(left * right)
    if kind is int and other is str:
        left, right, kind, other = right, left, other, kind
    if kind is str and other is int:
        budget.make_text(len(left) * max(right, 0))
        return left * right
    if kind in (list, tuple) or other in (list, tuple):
        raise failed("A list cannot be repeated with `*`.", "Write it out, or use a python step.")
    return _mismatch("*", left, right)


def divide(left: Any, right: Any, budget: Budget) -> Any:
    """A quotient, always with a fraction."""
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        if right == 0:
            raise failed("A number is divided by zero.", "Ask first: `a / b if b else 0`.")
        return _checked(left / right)
    return _mismatch("/", left, right)


def divide_whole(left: Any, right: Any, budget: Budget) -> Any:
    """A quotient rounded down."""
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        if right == 0:
            raise failed("A number is divided by zero.", "Ask first: `a // b if b else 0`.")
        return _checked(left // right)
    return _mismatch("//", left, right)


def remainder(left: Any, right: Any, budget: Budget) -> Any:
    """What is left over by a division; of a text, the text with values put into it (`"%d" % n`)."""
    if type(left) is str:
        return percent_format(left, present(right), budget)
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        if right == 0:
            raise failed("A number is divided by zero.", "Ask first: `a % b if b else 0`.")
        return _checked(left % right)
    return _mismatch("%", left, right)


def power(left: Any, right: Any, budget: Budget) -> Any:
    """A power, refused before it is computed where it would be huge."""
    if type(left) in _NUMBERS and type(right) in _NUMBERS:
        if left == 0 and right < 0:
            raise failed("A number is divided by zero.")
        whole = type(left) is not float and type(right) is not float
        if (
            whole
            and right > 0
            and left not in (-1, 0, 1)
            and right * (int(left).bit_length() - 1) > _POWER_BITS_MAX
        ):
            raise failed("A power is too large.", "Keep it within 64 bits.")
        if whole and right > _POWER_BITS_MAX:
            right = 2 + right % 2  # the base is -1, 0 or 1: only the sign can differ
        try:
            return _checked(left**right)
        except OverflowError as error:
            raise failed("A power is too large.", "Keep it within 64 bits.") from error
    return _mismatch("**", left, right)


BINARY: Final[dict[str, Callable[[Any, Any, Budget], Any]]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "//": divide_whole,
    "%": remainder,
    "**": power,
}


def negate(value: Any) -> Any:
    """The number with its sign turned."""
    if type(value) in _NUMBERS:
        return _checked(-value)
    present(value)
    raise failed(f"`-` cannot work on {kind_name(value)}.")


def plus(value: Any) -> Any:
    """The number itself."""
    if type(value) in _NUMBERS:
        return +value
    present(value)
    raise failed(f"`+` cannot work on {kind_name(value)}.")


def truth_of(value: Any) -> bool:
    """Whether the value counts as true: not none, false, 0, empty, or of a step that has not run.

    Raises EvaluationFailed for a table and for what is not there.
    """
    if value is True or value is False:
        return value
    if type(value) is Undefined:
        if value.quiet:
            return False
        fail_undefined(value)
    if type(value) is TableRef:
        raise failed("A table is neither true nor false.", "Ask for its `.rows`, as in `table.rows > 0`.")
    return bool(value)


def equal(left: Any, right: Any, budget: Budget, depth: int = 0) -> bool:
    """Whether two values are the same; lists and maps element by element, charged."""
    kind, other = type(left), type(right)
    if kind is Undefined or other is Undefined:
        for value in (left, right):
            if type(value) is Undefined and not value.quiet:
                fail_undefined(value)
        return kind is other
    if kind is dict and other is dict:
        if len(left) != len(right):
            return False
        budget.walk(len(left))
        _check_depth(depth)
        return all(key in right and equal(item, right[key], budget, depth + 1) for key, item in left.items())
    if kind in (list, tuple) and other in (list, tuple):
        if len(left) != len(right):
            return False
        budget.walk(len(left))
        _check_depth(depth)
        return all(equal(a, b, budget, depth + 1) for a, b in zip(left, right, strict=True))
    if kind is TableRef and other is TableRef:
        return bool(left.digest == right.digest)
    if (kind is str and other is str) or (kind is bytes and other is bytes):
        budget.read_text(len(left))
    return bool(left == right)


def _check_depth(depth: int) -> None:
    if depth > NESTED_MAX:
        raise failed(f"A value is nested deeper than {NESTED_MAX}.", "Flatten it.")


def _ordered(symbol: str, left: Any, right: Any, budget: Budget) -> None:
    kind, other = type(left), type(right)
    if kind in _NUMBERS and other in _NUMBERS:
        return
    if kind is str and other is str:
        budget.read_text(min(len(left), len(right)))
        return
    _mismatch(symbol, left, right)


def contains(needle: Any, stack: Any, budget: Budget) -> bool:
    """Whether the text, list or map holds the value (a map: as a key)."""
    if type(needle) is Undefined and needle.quiet and type(stack) in (list, tuple, dict):
        return False
    present(needle)
    kind = type(stack)
    if kind is str:
        if type(needle) is not str:
            return bool(_mismatch("in", needle, stack))
        budget.search(len(needle), len(stack))
        return needle in stack
    if kind is dict:
        return type(needle) is str and needle in stack
    if kind is list or kind is tuple:
        if type(needle) in (list, tuple, dict):
            budget.walk(len(stack))
            return any(equal(needle, item, budget) for item in stack)
        budget.scan(len(stack))
        return needle in stack
    return bool(_mismatch("in", needle, stack))


def _less(left: Any, right: Any, budget: Budget) -> bool:
    _ordered("<", left, right, budget)
    return bool(left < right)


def _less_equal(left: Any, right: Any, budget: Budget) -> bool:
    _ordered("<=", left, right, budget)
    return bool(left <= right)


def _greater(left: Any, right: Any, budget: Budget) -> bool:
    _ordered(">", left, right, budget)
    return bool(left > right)


def _greater_equal(left: Any, right: Any, budget: Budget) -> bool:
    _ordered(">=", left, right, budget)
    return bool(left >= right)


COMPARE: Final[dict[str, Callable[[Any, Any, Budget], bool]]] = {
    "==": equal,
    "!=": lambda left, right, budget: not equal(left, right, budget),
    "<": _less,
    "<=": _less_equal,
    ">": _greater,
    ">=": _greater_equal,
    "in": contains,
    "not in": lambda left, right, budget: not contains(left, right, budget),
}


def weigh(value: Any, budget: Budget, depth: int = 0) -> int:
    """About how many characters the value takes when written out; charged as it is walked."""
    kind = type(value)
    if kind is str:
        return 2 + 6 * len(value)
    if kind is dict:
        budget.walk(len(value))
        _check_depth(depth)
        return sum(8 + 6 * len(key) + weigh(item, budget, depth + 1) for key, item in value.items())
    if kind is list or kind is tuple:
        budget.walk(len(value))
        _check_depth(depth)
        return 2 + sum(2 + weigh(item, budget, depth + 1) for item in value)
    return 24
