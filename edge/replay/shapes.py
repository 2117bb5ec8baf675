"""Events by what the fold looks at in them, straight from a segment's columns.

The fold looks at little of an event: its kind and step, how often, which arc. The rest it keeps as it came. Events
that are alike in what it looks at have one shape; what else they say is a row of CBOR items. So most executions of
a playbook are one sequence of shapes, and `edge.replay.programs` folds each sequence once.

Called by `edge.replay.log_state`. Pure. What is kept is listed (`_KEPT`); a field that is not is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, cast

from edge.core.carried import COPIES
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged
from edge.core.event_body import Body
from edge.core.event_codec import decode_event
from edge.core.events import (
    BODIES,
    AttemptLost,
    CallbackReceived,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    LoopItems,
    LoopStarted,
    StepDone,
    StepFailed,
    StepWaiting,
    TaskDone,
)
from edge.core.records import record
from edge.core.state import EXECUTION_BODIES
from edge.segments.columns import Rows
from edge.segments.planes import Column
from edge.segments.templates import RELATIVE, Template, absolute, as_items

_KEPT: Final[dict[type[Body], frozenset[str]]] = {
    ExecutionRequested: frozenset(
        {"principal", "request_id", "response_topic", "correlation", "content_type", "payload", "payload_digest"}
        | {"deadline_ms", "traceparent", "batch", "parent", "parent_step", "parent_item", "parent_task", "iter"}
    ),
    StepDone: frozenset({"value", "table", "digest", "table_bytes", "ctx", "duration_us", "problem"}),
    StepFailed: frozenset({"problem", "duration_us", "ctx"}),
    AttemptLost: frozenset({"reason"}),
    TaskDone: frozenset({"value", "table", "table_bytes", "problem", "duration_us"}),
    LoopStarted: frozenset({"items", "digest"}),
    LoopItems: frozenset({"results", "failed", "ctx", "duration_us"}),
    StepWaiting: frozenset({"detail"}),
    CallbackReceived: frozenset({"value"}),
    ExecutionFinished: frozenset({"result", "result_digest", "problem"}),
}  # fmt: skip
"""Fields whose content the fold hands on. `edge.core.endings` looks at the code of an end's problem, below."""
_LOOKED_AT: Final = {(ExecutionFinished, ("problem", "code"))}
_BY_CODE: Final = {encode(body.CODE): body for body in BODIES}
_FIELDS: Final = {body: tuple(each.name for each in fields(body)) for body in BODIES}
#: Places in an envelope.
_CODE, _EXECUTION, _CAUSE = (0,), (1,), (6,)
#: What stands for a number where an execution's own belongs, and the shape of an event that has none.
_OWN: Final = -1
RAW: Final = 0
#: A field that holds its default is written down as if it were not there; of those kept these have one to hold.
_COUNTED: Final = frozenset({"duration_us"})
_DEFAULT: Final = encode(0)
#: First bytes of tagged items (RFC 8949 §3): references.
_TAGS: Final = frozenset(range(0xC0, 0xE0))
_first: Final = itemgetter(0)
_MARK: Final = 1 << 40

Path = tuple[Any, ...]
Row = tuple[Any, ...]
Met = tuple[int, int, Row]
"""Shape, execution and row; of a RAW event the row is the event."""


@record
class EventShape:
    """What some events have in common: their bytes around the places where the items of a row stand.

    A row begins with the event's number; `cause` is the place of its cause in it, `tagged` are those of references.
    """

    kind: type[Body]
    envelope: tuple[bytes | int, ...]
    body: tuple[bytes | int, ...]
    width: int
    cause: int | None
    tagged: tuple[int, ...]

    def event(self, row: Sequence[bytes], execution: int) -> Event:
        """The event again, of its row. Raises ValueError."""
        seq = decode(row[0])
        own = encode(0 if execution == seq else execution)
        return decode_event(seq, _filled(self.envelope, row, own), _filled(self.body, row, own))

    def marked(self, marks: Sequence[bytes]) -> Event:
        """An event of this shape that says `marks` where a row's items would stand, its number and cause included."""
        items = [encode(mark) for mark in marks]
        if self.cause is not None:
            items[self.cause] = encode(1)
        made = decode_event(1, _filled(self.envelope, items, encode(0)), _filled(self.body, items, b""))
        cause = made.cause if self.cause is None else marks[self.cause]
        # The fold hands a number on whatever it is; a mark in its place is seen again in what it gives.
        return replace(made, seq=cast(int, marks[0]), cause=cast(int | None, cause))


def _filled(parts: tuple[bytes | int, ...], row: Sequence[bytes], own: bytes) -> bytes:
    return b"".join(part if type(part) is bytes else own if part == _OWN else row[part] for part in parts)  # type: ignore[index]


class Shapes:
    """The shapes that were met, by number; `ends` are those after which an execution has none."""

    def __init__(self) -> None:
        self.known: list[EventShape | None] = [None]
        self.ends: set[int] = set()
        self._numbers: dict[Any, int] = {}

    def stream(self, rows: Rows) -> Iterator[Met | None]:
        """Each event of some rows, None for what belongs to no execution. Raises LogDamaged, perhaps later."""
        kinds = _kinds(rows)
        if kinds is not None and not any(kind in EXECUTION_BODIES or kind in COPIES for kind in kinds):
            return repeat(None, len(rows.seqs))
        places = None if kinds is None else _Places.of(rows, kinds)
        return _raw(rows) if kinds is None or places is None else self._shaped(rows, kinds, places)

    def _shaped(self, rows: Rows, kinds: set[type[Body]], places: _Places) -> Iterator[Met]:
        seqs, held = rows.seqs, rows.held
        columns = [_each(as_items(absolute(held[place], seqs)) if place == places.cause else held[place])
                   for place in places.kept]  # fmt: skip
        numbered = as_items(seqs)
        common = (rows.envelope, rows.body, places.kept, places.tagged)
        looked = [held[place] for place in places.looked]
        if all(type(each) is bytes for each in looked):
            numbers: Iterator[int] = repeat(self._number(common, tuple(looked), places))  # type: ignore[arg-type]
        else:
            alike = zip(*map(_each, looked))  # noqa: B905 - what is the same repeats without an end
            numbers = (self._number(common, items, places) for items in alike)
        return zip(numbers, _executions(held[places.execution], seqs, numbered), zip(numbered, *columns))  # noqa: B905

    def _number(self, common: Row, looked: tuple[bytes, ...], places: _Places) -> int:
        key = (common, looked)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.known)
            envelope, body, _, _ = common
            shape = places.shape(envelope, body, looked)
            self.known.append(shape)
            if shape.kind is ExecutionFinished:
                self.ends.add(number)
        return number


@record
class _Places:
    """Which holes of a template's envelope and body the fold keeps, in the order of a row, and which it looks at."""

    execution: int
    cause: int | None
    kept: tuple[int, ...]
    looked: tuple[int, ...]
    tagged: tuple[int, ...]

    @classmethod
    def of(cls, rows: Rows, kinds: set[type[Body]]) -> _Places | None:
        """None where some of the rows must be looked at one by one."""
        head, tail = _paths(rows.envelope), _paths(rows.body)
        if head is None or tail is None or head.count(_EXECUTION) != 1 or not kinds <= EXECUTION_BODIES:
            return None
        execution, first = head.index(_EXECUTION), len(head)
        cause = head.index(_CAUSE) if _CAUSE in head else None
        if any(rows.envelope.holes[place] != RELATIVE for place in (execution, cause) if place is not None):
            return None
        kept = [first + place for place, path in enumerate(tail) if all(_keeps(kind, path) for kind in kinds)]
        tagged = []
        for place in kept:
            column: Any = rows.held[place]
            items = (column,) if type(column) is bytes else column
            name = tail[place - first][0]
            if any(_FIELDS[kind][name] in _COUNTED for kind in kinds) and _DEFAULT in items:
                return None
            if isinstance(rows.body.holes[place - first], Template) or _TAGS.isdisjoint(map(_first, items)):
                continue
            if not _TAGS.issuperset(map(_first, items)):
                return None
            tagged.append(place)
        if cause is not None:
            kept.insert(0, cause)
        looked = (place for place in range(first + len(tail)) if place != execution and place not in kept)
        return cls(execution, cause, tuple(kept), tuple(looked), tuple(tagged))

    def shape(self, envelope: Template, body: Template, looked: tuple[bytes, ...]) -> EventShape:
        """That of events whose looked-at holes hold these items."""
        filling: dict[int, bytes | int] = {self.execution: _OWN}
        filling |= dict(zip(self.looked, looked, strict=True))
        filling |= {place: 1 + number for number, place in enumerate(self.kept)}
        holes = len(envelope.holes)
        head = _parts(envelope, [filling[place] for place in range(holes)])
        tail = _parts(body, [filling[holes + place] for place in range(len(body.holes))])
        code = next(item for item, place in zip(looked, self.looked, strict=True) if place == 0)
        cause = None if self.cause is None else 1 + self.kept.index(self.cause)
        tagged = tuple(1 + self.kept.index(place) for place in self.tagged)
        return EventShape(_BY_CODE[code], head, tail, 1 + len(self.kept), cause, tagged)


def _executions(column: Column, seqs: list[int], numbered: Sequence[bytes]) -> list[int]:
    """Which execution each event is of; a request, whose own number it is, says 0."""
    if column == numbered:
        return seqs
    found = absolute(column, seqs)
    return [number or seq for number, seq in zip(found, seqs, strict=True)] if 0 in found else found


def _kinds(rows: Rows) -> set[type[Body]] | None:
    """Which kinds of events some rows are, None where that must be asked of each."""
    paths = _paths(rows.envelope)
    if not paths or paths[0] != _CODE:
        return None
    codes = rows.held[0]
    found = {codes} if isinstance(codes, bytes) else set(codes)
    return {_BY_CODE[code] for code in found} if found <= _BY_CODE.keys() else None


def _keeps(kind: type[Body], path: Path) -> bool:
    """Whether the fold never looks at what stands there in a body of that kind."""
    names = _FIELDS[kind]
    if not path or type(path[0]) is not int or not 0 <= path[0] < len(names):
        return False
    name = names[path[0]]
    return name in _KEPT.get(kind, ()) and (kind, (name, *path[1:])) not in _LOOKED_AT


@lru_cache(maxsize=1_024)
def _paths(template: Template) -> list[Path] | None:
    """Where in the value each hole stands. None where the template is no list or map of ours."""
    items = [encode(_MARK + number) for number in range(len(template.holes))]
    found: dict[int, Path] = {}
    try:
        _walk(decode(b"".join(_parts(template, items))), (), found)  # type: ignore[arg-type]
    except ValueError:
        return None
    return [found[number] for number in range(len(items))] if len(found) == len(items) else None


def _walk(value: Any, path: Path, found: dict[int, Path]) -> None:
    kind = type(value)
    if kind is int and value >= _MARK and path:
        found[value - _MARK] = path
    elif kind is list or kind is dict:
        for key, each in enumerate(value) if kind is list else value.items():
            _walk(each, (*path, key), found)


def _parts(template: Template, filling: Sequence[bytes | int]) -> tuple[bytes | int, ...]:
    made: list[bytes | int] = [template.chunks[0]]
    for part, chunk in zip(filling, template.chunks[1:], strict=True):
        made += (part, chunk)
    return tuple(made)


def _each(column: Column) -> Any:
    return repeat(column) if type(column) is bytes else column


def _raw(rows: Rows) -> Iterator[Met | None]:
    """The events one by one, as they are."""
    holes = len(rows.envelope.holes)
    columns: list[Column] = [
        as_items(absolute(column, rows.seqs)) if hole == RELATIVE else column
        for hole, column in zip((*rows.envelope.holes, *rows.body.holes), rows.held, strict=True)
    ]
    for seq, *items in zip(rows.seqs, *map(_each, columns)):  # noqa: B905
        head, tail = _parts(rows.envelope, items[:holes]), _parts(rows.body, items[holes:])
        try:
            event = decode_event(seq, b"".join(head), b"".join(tail))  # type: ignore[arg-type]
        except ValueError as error:
            raise LogDamaged(str(error)) from error
        yield raw(event)


def raw(event: Event) -> Met | None:
    """One event as it is, or None where it belongs to no execution."""
    if type(event.body) in EXECUTION_BODIES:
        return RAW, event.execution or event.seq, (event,)
    return (RAW, 0, (event,)) if type(event.body) in COPIES else None
