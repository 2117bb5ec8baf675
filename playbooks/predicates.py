"""The tests of expressions: `x is name(...)`. Each is total and looks without touching.

Called by prepared nodes and by `select` and its kin; the compiler reads `TESTS` to refuse an unknown name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.records import record
from playbooks.budget import Budget, Undefined, expect_int, failed, present
from playbooks.formats import soft_text
from playbooks.operators import COMPARE


@record
class Test:
    """One test: what runs, how many arguments it takes, and whether it may be handed what is not there."""

    run: Callable[..., bool]
    arguments: int = 0
    undefined: bool = False


def _of_kind(*kinds: type) -> Test:
    def run(budget: Budget, value: Any) -> bool:
        return type(present(value)) in kinds

    return Test(run)


def _compared(symbol: str) -> Test:
    compare = COMPARE[symbol]

    def run(budget: Budget, value: Any, other: Any) -> bool:
        return compare(value, other, budget)

    return Test(run, 1)


def _divisible(budget: Budget, value: Any, number: Any) -> bool:
    divisor = expect_int(number, "`divisibleby`")
    if divisor == 0:
        raise failed("`divisibleby` was given 0.")
    return expect_int(value, "`divisibleby`") % divisor == 0


def _same_as(budget: Budget, value: Any, other: Any) -> bool:
    """Jinja2 asks whether both are one object, which is so for none, true and false, and by luck for the rest."""
    present(value)
    if type(value) in (list, tuple, dict) or type(other) in (list, tuple, dict):
        raise failed("`sameas` compares none, booleans, numbers and texts.", "Write `==`.")
    return type(value) is type(other) and COMPARE["=="](value, other, budget)


def _cased(lower: bool) -> Test:
    def run(budget: Budget, value: Any) -> bool:
        text = soft_text(value, "`lower`" if lower else "`upper`")
        budget.read_text(16 * len(text))
        return text.islower() if lower else text.isupper()

    return Test(run)


TESTS: Final[Mapping[str, Test]] = {
    "defined": Test(lambda budget, value: type(value) is not Undefined, undefined=True),
    "undefined": Test(lambda budget, value: type(value) is Undefined, undefined=True),
    "none": Test(lambda budget, value: present(value) is None),
    "true": Test(lambda budget, value: present(value) is True),
    "false": Test(lambda budget, value: present(value) is False),
    "boolean": _of_kind(bool),
    "integer": _of_kind(int),
    "float": _of_kind(float),
    "number": _of_kind(int, float, bool),
    "string": _of_kind(str),
    "mapping": _of_kind(dict),
    "sequence": _of_kind(list, tuple, str, dict),
    "iterable": _of_kind(list, tuple, str, dict),
    "odd": Test(lambda budget, value: expect_int(value, "`odd`") % 2 == 1),
    "even": Test(lambda budget, value: expect_int(value, "`even`") % 2 == 0),
    "divisibleby": Test(_divisible, 1),
    "sameas": Test(_same_as, 1),
    "lower": _cased(True),
    "upper": _cased(False),
    "in": _compared("in"),
    **{name: _compared("==") for name in ("eq", "equalto", "==")},
    **{name: _compared("!=") for name in ("ne", "!=")},
    **{name: _compared("<") for name in ("lt", "lessthan", "<")},
    **{name: _compared("<=") for name in ("le", "<=")},
    **{name: _compared(">") for name in ("gt", "greaterthan", ">")},
    **{name: _compared(">=") for name in ("ge", ">=")},
}

#: What Jinja2 has besides, and what to write instead.
TESTS_ELSEWHERE: Final[Mapping[str, str]] = {
    "callable": "No value can be called here.",
    "escaped": "Nothing is escaped here.",
    "filter": "Which filters there are is known: see playbooks/DESIGN.md.",
    "test": "Which tests there are is known: see playbooks/DESIGN.md.",
    "list": "Write `is sequence and x is not string and x is not mapping`.",
    "dict": "Write `is mapping`.",
    "match": "Write `.startswith(…)`, or use `re` in a python step.",
    "search": "Write `'…' in x`, or use `re` in a python step.",
    "null": "Write `is none`.",
    "empty": "Write `not x`, or `x | length == 0`.",
}
