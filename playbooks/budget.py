"""What one evaluation may spend, what "not there" is, and how a failing expression says so.

Used by every part of the evaluator; knows nothing of nodes or playbooks. An expression has no loops of its
own, so walking its nodes is bounded by its length; only what grows with the *data* is charged here, before
it is done or allocated.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NoReturn

from edge.core.errors import EvaluationFailed
from edge.core.limits import EVALUATION_BYTES_MAX, EVALUATION_STEPS_MAX
from edge.core.values import TableRef

#: Work done at C speed costs one step per so many elements, work in Python one step per element.
FAST_ELEMENTS_PER_STEP_LOG2: Final = 4
#: Texts are compared, searched and copied at memory speed.
TEXT_CHARACTERS_PER_STEP_LOG2: Final = 9

_COMPARES_PER_STEP_LOG2: Final = 13

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1


class Budget:
    """What is left of one evaluation's allowance; made anew for every evaluation."""

    __slots__ = ("size_bytes", "steps")

    def __init__(self) -> None:
        self.steps = EVALUATION_STEPS_MAX
        self.size_bytes = EVALUATION_BYTES_MAX

    def walk(self, elements: int) -> None:
        """Charge work in Python over so many elements. Raises EvaluationFailed."""
        self.steps -= elements + 1
        if self.steps < 0:
            raise EvaluationFailed(
                f"The expression needs more than {EVALUATION_STEPS_MAX} steps.",
                mend="Do the work in a python or arrow step.",
                code="expression_too_long",
            )

    def scan(self, elements: int) -> None:
        """Charge work at C speed over so many elements. Raises EvaluationFailed."""
        self.walk(elements >> FAST_ELEMENTS_PER_STEP_LOG2)

    def read_text(self, characters: int) -> None:
        """Charge looking through a text. Raises EvaluationFailed."""
        self.walk(characters >> TEXT_CHARACTERS_PER_STEP_LOG2)

    def search(self, needle: int, characters: int) -> None:
        """Charge looking for a text of `needle` characters in one of `characters`. Raises EvaluationFailed.

        CPython looks for short texts by a method that can compare every character with every other
        (measured: 1.0 ms for 99 in 30,000, 0.5 ms for 1,250 in 2,500), for others in linear time.
        """
        self.read_text(characters)
        if characters < 2_500 or (needle < 100 and characters < 30_000):
            self.walk(needle * characters >> _COMPARES_PER_STEP_LOG2)

    def make_text(self, characters: int) -> None:
        """Charge a text about to be made. Raises EvaluationFailed."""
        self.size_bytes -= characters
        if self.size_bytes < 0:
            raise EvaluationFailed(
                f"The expression makes more than {EVALUATION_BYTES_MAX} bytes.",
                mend="Do the work in a python or arrow step.",
                code="expression_too_large",
            )

    def make_list(self, elements: int) -> None:
        """Charge a list or map about to be made. Raises EvaluationFailed."""
        self.make_text(elements * 8)
        self.scan(elements)


class Undefined:
    """Stands for a name or key that is not there. Only `default` and `is defined` may touch one."""

    __slots__ = ("kind", "near", "path", "quiet")

    def __init__(
        self, path: str, kind: str = "", near: Iterable[object] = (), *, quiet: bool = False
    ) -> None:
        self.path = path
        #: True where the language knows that it may be missing (a step that has not run, `output.error.x` of
        #: what went well): it counts as false, and is equal to nothing.
        self.quiet = quiet
        #: What `near` lists: "names", "keys" or "". It is looked through only when a message needs it.
        self.kind = kind
        self.near = near


def failed(message: str, mend: str = "") -> EvaluationFailed:
    """What to raise where an expression cannot go on."""
    return EvaluationFailed(message, mend=mend)


#: How many names are looked through for a message.
_NEAR_MAX: Final = 200


def fail_undefined(value: Undefined) -> NoReturn:
    """Raise EvaluationFailed for a use of what is not there, naming what is."""
    message = f"`{_short(value.path)}` is not defined."
    if value.kind:
        names = sorted({str(name) for name in islice(value.near, _NEAR_MAX)})
        last = value.path.rpartition(".")[2]
        from difflib import get_close_matches  # 0.2 MB that a daemon pays for once a name is wrong

        close = get_close_matches(last, names, n=1)
        listed = ", ".join(_short(name) for name in names[:12]) + (", …" if len(names) > 12 else "")
        message += f" There are the {value.kind} {listed}." if names else f" There are no {value.kind}."
        if close:
            message += f" Did you mean `{_short(close[0])}`?"
    raise EvaluationFailed(
        message,
        mend="Use `| default(...)` or `is defined` where it may be missing.",
        code="expression_undefined",
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


_KIND_NAMES: Final[dict[type, str]] = {
    type(None): "none",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    bytes: "bytes",
    list: "a list",
    tuple: "a list",
    dict: "a map",
    TableRef: "a table",
}


def kind_name(value: object) -> str:
    """What a value is, in words: "a text", "a list"."""
    return _KIND_NAMES.get(type(value), f"a {type(value).__name__}")


def present(value: Any) -> Any:
    """The value itself; raises EvaluationFailed where it is not there."""
    if type(value) is Undefined:
        fail_undefined(value)
    return value


def checked_int(value: int) -> int:
    """The integer itself where it fits 64 bits. Raises EvaluationFailed."""
    if _INT_MIN <= value <= _INT_MAX:
        return value
    raise failed("A whole number does not fit in 64 bits.", "Use a number with a fraction, or a text.")


def expect_text(value: Any, what: str) -> str:
    """The value if it is a text. Raises EvaluationFailed naming `what` wanted one."""
    if type(value) is str:
        return value
    present(value)
    raise failed(f"{what} wants a text and was given {kind_name(value)}.", _table_mend(value))


def expect_list(value: Any, what: str) -> list[Any] | tuple[Any, ...]:
    """The value if it is a list. Raises EvaluationFailed naming `what` wanted one."""
    if type(value) is list or type(value) is tuple:
        return value
    present(value)
    raise failed(f"{what} wants a list and was given {kind_name(value)}.", _table_mend(value))


def expect_int(value: Any, what: str) -> int:
    """The value if it is a whole number. Raises EvaluationFailed naming `what` wanted one."""
    if type(value) is int:
        return value
    present(value)
    raise failed(f"{what} wants a whole number and was given {kind_name(value)}.")


def _table_mend(value: Any) -> str:
    return "Use an arrow step to work on a table." if type(value) is TableRef else ""
