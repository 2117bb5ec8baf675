"""Records: the values that pass between the parts of a running box, made many times for every execution.

Used for events, states, claims, outcomes and messages. To the type checker a record is frozen, and `mypy --strict`
holds everybody to it; at run time it is a plain slotted class, because `dataclass(frozen=True)` sets each field
through `object.__setattr__` (measured for eight fields: 0.90 µs against 0.19, some 40 records per execution).
Whoever wants a changed record uses `dataclasses.replace`.

Of its methods only `__init__` is code of its own. A dataclass compiles one more for each of the others, in every
process that imports it: for the hundred records of a runtime that was a quarter of the time it takes to start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[_T]) -> type[_T]:
    """A dataclass with slots, equality and a hash of its fields; nobody may assign to a field."""
    own = vars(cls)
    made = dataclass(slots=True, eq=False, repr=False)(cls)
    values = _values_of(tuple(each.name for each in fields(made)))  # type: ignore[arg-type]
    shown = tuple(each.name for each in fields(made) if each.repr)  # type: ignore[arg-type]

    def __eq__(self: object, other: object) -> bool:  # noqa: N807 - becomes the class's own
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(values(self))

    def __repr__(self: object) -> str:  # noqa: N807
        told = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({told})"

    for method in (__eq__, __hash__, __repr__):
        if method.__name__ not in own:
            setattr(made, method.__name__, method)
    return made


def _values_of(names: tuple[str, ...]) -> Any:
    """What reads the fields of a record as one tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda one: (getattr(one, names[0]),)) if names else lambda one: ()
