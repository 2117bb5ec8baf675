"""A value that is fetched only where an expression asks for what is not at hand.

Made by whoever lays out a scope (workers, the runtime) for large results, which are blocks of the cache, and for
results of which the playbook selects parts; unwrapped by the nodes of expressions. Never keeps anything beyond the
scope it stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_NOT_YET: Final = object()


class Deferred:
    """`known` are keys that can be asked for at once; `value()` fetches the whole, once.

    `load` may raise CacheMiss, which passes through every expression.
    """

    __slots__ = ("_load", "_value", "known")

    def __init__(self, known: Mapping[str, Any], load: Callable[[], Any]) -> None:
        self.known = known
        self._load = load
        self._value: Any = _NOT_YET

    def value(self) -> Any:
        """The whole value."""
        if self._value is _NOT_YET:
            self._value = self._load()
        return self._value
