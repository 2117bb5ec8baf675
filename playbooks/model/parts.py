"""What the language model is made of: blocks, their keys, and the kinds of values keys take.

Used by the tables beside this file and by tool kinds for blocks of their own. Plain data only: who reads a block,
checks a value or prints a schema stands elsewhere (`playbooks.fields`, `playbooks.schema`, `playbooks.reference`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from edge.core.records import record

#: Where a key comes from: NoETL's language, or an addition that only NoETL Edge knows.
NOETL: Final = "NoETL"
EDGE: Final = "Edge"


@record
class Text:
    """A text without templates; `pattern` is a regular expression all of it must match, or "" for any."""

    pattern: str = ""


@record
class Template:
    """A text that may hold `{{ }}`."""


@record
class Expression:
    """One whole `{{ expression }}`."""


@record
class Condition:
    """True, false, one whole `{{ expression }}`, or statements that make true or false."""


@record
class Tree:
    """Any value; texts in it may hold `{{ }}`."""


@record
class Plain:
    """Any value without templates."""


@record
class Flag:
    """True or false."""


@record
class Whole:
    """A whole number between two bounds, both allowed; None: no upper one."""

    least: int
    most: int | None = None


@record
class Number:
    """A number between two bounds, both allowed."""

    least: float
    most: float


@record
class Duration:
    """A length of time up to `most_ms`: seconds as a number, or a text such as "500ms", "5s", "2m"."""

    most_ms: int


@record
class Choice:
    """One of some texts."""

    options: tuple[str, ...]


@record
class ListOf:
    """A list; each element is of kind `item`."""

    item: Value


@record
class MapOf:
    """A map with any keys; each value is of kind `item`."""

    item: Value


@record
class Of:
    """A map as the block of that name says."""

    block: str


@record
class Tool:
    """A tool: a map with `kind` and that kind's keys."""


@record
class Pipeline:
    """A tool, or a list of tools, each with or without a name or under a label."""


@record
class AnyOf:
    """A value of one of some kinds."""

    options: tuple[Value, ...]


Value = (
    Text
    | Template
    | Expression
    | Condition
    | Tree
    | Plain
    | Flag
    | Whole
    | Number
    | Duration
    | Choice
    | ListOf
    | MapOf
    | Of
    | Tool
    | Pipeline
    | AnyOf
)


@record
class Key:
    """One key of a block: its name, what stands under it, one sentence about it, and who brought it in.

    `required` keys must be there.
    """

    name: str
    value: Value
    doc: str
    origin: str = NOETL
    required: bool = False


@record
class Block:
    """A map of the language: what may stand in it, and what is refused by name with its reason.

    `name` is its own in the tables, `doc` one or two sentences about it. Where `one_key` it is a choice of one key;
    where `open` other keys are those of what it stands for.
    """

    name: str
    doc: str
    keys: tuple[Key, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    one_key: bool = False
    open: bool = False

    def __post_init__(self) -> None:
        assert len(set(self.names)) == len(self.keys), self.name
        assert not set(self.names) & set(self.refused), self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its keys, in order."""
        return tuple(key.name for key in self.keys)

    def over(self, own: Block) -> Block:
        """These keys with `own`'s after them, under `own`'s name; its keys take the place of ours and of refusals."""
        ours = tuple(key for key in self.keys if key.name not in own.names)
        refused = {key: why for key, why in self.refused.items() if key not in own.names}
        return Block(own.name, own.doc, (*ours, *own.keys), {**refused, **own.refused}, own.one_key, own.open)
