"""Records compare, hash and show themselves as dataclasses do."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from edge.core.records import record


@record
class Nothing:
    """No fields."""


@record
class One:
    """One field."""

    value: Any


@record
class Account:
    """Several fields, one of which is never shown."""

    name: str
    secret: str = field(repr=False)
    tags: tuple[str, ...] = ()
    more: dict[str, int] = field(default_factory=dict)


@record
class Told:
    """A record that says itself how it is shown."""

    value: int

    def __repr__(self) -> str:
        return "told"


@dataclass(slots=True, unsafe_hash=True)
class Reference:
    """What `Account` must be like."""

    name: str
    secret: str = field(repr=False)
    tags: tuple[str, ...] = ()
    more: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Nothing(), One(1)),
        (One(1), One(2)),
        (One((1, 2)), Account("a", "s", (), {})),
        (Account("a", "s"), Account("a", "t")),
        (Account("a", "s"), Account("a", "s", more={"n": 1})),
        (Account("a", "s"), Reference("a", "s")),
    ],
)
def test_only_the_same_fields_of_the_same_class_are_equal(one: object, other: object) -> None:
    """Every field counts, and so does the class."""
    assert one != other
    assert one == replace(one)  # type: ignore[type-var]


def test_equal_records_have_equal_hashes() -> None:
    """They find each other in sets and maps, whatever number of fields they have."""
    assert len({Nothing(), Nothing(), One(1), One(1), One((1,)), Told(1)}) == 4
    nan = float("nan")
    assert One(nan) == One(nan), "the same object is equal to itself, as in a tuple"


def test_what_cannot_be_hashed_says_so() -> None:
    """A record that holds a map is no key."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Account("a", "s"))


def test_a_record_shows_its_fields_and_keeps_what_is_hidden() -> None:
    """Shown as a dataclass is, without the fields that say they are not."""
    given: tuple[Any, ...] = ("a", "hush", ("t",), {"n": 1})
    assert repr(Account(*given)) == repr(Reference(*given)).replace("Reference", "Account")
    assert "hush" not in repr(Account(*given))
    assert (repr(Nothing()), repr(Told(1))) == ("Nothing()", "told")


def test_a_record_has_slots_and_is_a_dataclass() -> None:
    """No room for a misspelt field, and `fields`, `replace` and patterns work."""
    with pytest.raises(AttributeError):
        One(1).valeu = 2  # type: ignore[attr-defined]
    assert [each.name for each in fields(Account)] == ["name", "secret", "tags", "more"]
    match Account("a", "s"):
        case Account(name, secret):
            assert (name, secret) == ("a", "s")
