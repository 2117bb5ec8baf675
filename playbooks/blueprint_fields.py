"""Reading a blueprint's plain data: a value of the right kind, or it is no blueprint.

Used by whoever reads parts of blueprints: `playbooks.shape`, `playbooks.blueprint`, `playbooks.subscription`. It
never reads YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


def expect(holds: bool, what: str) -> None:
    """Raises ValueError where it does not hold."""
    if not holds:
        raise ValueError(f"not a blueprint: {what}")


def field_of(body: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    """A value of exactly that kind. Raises ValueError."""
    value = body.get(key)
    if type(value) is not kind:
        raise ValueError(f"not a blueprint: {key} is {type(value).__name__}")
    return value


def text_value(value: Any) -> str:
    """The value if it is a text. Raises ValueError."""
    expect(type(value) is str, f"{value!r:.40} is no text")
    return str(value)


def limited(body: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """A whole number within bounds. Raises ValueError."""
    value = field_of(body, key, int)
    expect(least <= value <= most, key)
    return value


def optional(body: Mapping[str, Any], key: str, most: int) -> int | None:
    """A whole number from 1 on, or null. Raises ValueError."""
    return None if body.get(key) is None else limited(body, key, 1, most)


def one_of(body: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """One of some texts. Raises ValueError."""
    value = field_of(body, key, str)
    expect(value in allowed, f"{key} {value!r:.40}")
    return value
