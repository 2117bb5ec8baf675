"""One digest for what a log folds to: equal digests mean equal states, on the box, at the centre, in every release.

A record is written as its name and, by number, the fields that are not at their default, so that a field added later
changes no digest of an older log; maps are written with their keys in order. So plain CBOR says one thing one way, at
a fifth of what its canonical form costs. Called by `edge.replay.reconstruct`. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from operator import attrgetter
from typing import Any, Final

from edge.core.codec import encode
from edge.core.state import Execution

_VERSION: Final = 1
_LEAVES: Final = frozenset({int, str, bytes, bool, float, type(None)})


def state_digest(state: Execution) -> bytes:
    """32 bytes of everything that is folded of one execution."""
    return hashlib.sha256(state_bytes(state)).digest()


def state_bytes(state: Execution) -> bytes:
    """What is hashed: everything that is folded of one execution, one way to write it."""
    return encode([_VERSION, as_plain(state)])


def log_digest(log_id: bytes, executions: Iterable[tuple[int, bytes]]) -> bytes:
    """32 bytes of all executions of one log; `executions` are numbers and digests, in any order."""
    told = b"".join(seq.to_bytes(8, "big") + digest for seq, digest in sorted(executions))
    return hashlib.sha256(b"noetl-edge-log-state\x01" + log_id + told).digest()


def as_plain(value: Any) -> Any:
    """A value of the fold as CBOR can say it: records as `[name, {number: field not at its default}]`."""
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is dict:
        keys = value if len(value) < 2 else sorted(value, key=_order)
        return {key: as_plain(value[key]) for key in keys}
    if kind is list or kind is tuple:
        return [item if type(item) in _LEAVES else as_plain(item) for item in value]
    shape = _SHAPES.get(kind)
    if shape is None:
        shape = _SHAPES[kind] = _shape_of(kind)
    name, defaults, values = shape
    made: dict[int, Any] = {}
    for number, (default, item) in enumerate(zip(defaults, values(value), strict=True)):
        if item is not default and item != default:
            made[number] = item if type(item) in _LEAVES else as_plain(item)
    return [name, made]


def _order(key: Any) -> tuple[str, Any]:
    """Keys by type, then by value: texts in the order of their code points."""
    return type(key).__name__, key


_Shape = tuple[str, tuple[Any, ...], Callable[[Any], Any]]
_SHAPES: Final[dict[type, _Shape]] = {}


def _shape_of(kind: type) -> _Shape:
    """Name, defaults and values of a record's fields."""
    assert is_dataclass(kind), f"{kind.__name__} is no part of a state"
    known = fields(kind)
    names = tuple(each.name for each in known)
    values = attrgetter(*names) if len(names) > 1 else lambda one: tuple(getattr(one, name) for name in names)
    return kind.__name__, tuple(_default(each) for each in known), values


def _default(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default
