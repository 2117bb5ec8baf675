"""The few methods an expression may call on plain values: `text.upper()`, `map.get(key, default)`.

Called by prepared nodes; the compiler reads `METHODS` to refuse any other name. Nothing here reaches Python
attributes: a method's name is looked up in this table and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from playbooks.budget import Budget, expect_text, failed, kind_name, present
from playbooks.filters import FILTERS, join_texts, replace_text, split_text


@dataclass(frozen=True, slots=True)
class Method:
    """One method: what runs, and how many arguments it takes at least and at most."""

    run: Callable[..., Any]
    arguments_min: int = 0
    arguments_max: int = 0


def _get(budget: Budget, value: Any, key: Any, default: Any = None) -> Any:
    if type(value) is dict:
        return value.get(expect_text(key, "`.get()`"), default)
    present(value)
    raise failed(f"`.get()` wants a map and was given {kind_name(value)}.")


def _starts(budget: Budget, value: Any, prefix: Any) -> bool:
    return expect_text(value, "`.startswith()`").startswith(expect_text(prefix, "`.startswith()`"))


def _ends(budget: Budget, value: Any, suffix: Any) -> bool:
    return expect_text(value, "`.endswith()`").endswith(expect_text(suffix, "`.endswith()`"))


def _strip_left(budget: Budget, value: Any, chars: Any = None) -> str:
    text = expect_text(value, "`.lstrip()`")
    budget.make_text(len(text))
    return text.lstrip(None if chars is None else expect_text(chars, "`.lstrip()`"))


def _strip_right(budget: Budget, value: Any, chars: Any = None) -> str:
    text = expect_text(value, "`.rstrip()`")
    budget.make_text(len(text))
    return text.rstrip(None if chars is None else expect_text(chars, "`.rstrip()`"))


def _join(budget: Budget, value: Any, items: Any) -> str:
    return join_texts(budget, items, value)


METHODS: Final[Mapping[str, Method]] = {
    "get": Method(_get, 1, 2),
    "items": Method(FILTERS["items"].run),
    "keys": Method(FILTERS["keys"].run),
    "values": Method(FILTERS["values"].run),
    "upper": Method(FILTERS["upper"].run),
    "lower": Method(FILTERS["lower"].run),
    "title": Method(FILTERS["title"].run),
    "capitalize": Method(FILTERS["capitalize"].run),
    "strip": Method(FILTERS["trim"].run, 0, 1),
    "lstrip": Method(_strip_left, 0, 1),
    "rstrip": Method(_strip_right, 0, 1),
    "split": Method(split_text, 0, 2),
    "replace": Method(replace_text, 2, 3),
    "startswith": Method(_starts, 1, 1),
    "endswith": Method(_ends, 1, 1),
    "join": Method(_join, 1, 1),
}
