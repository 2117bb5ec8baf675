"""Templates: what is the same in many pieces of CBOR, with holes for what differs.

Events of one kind differ in a few numbers and texts. A template is the bytes around those, and each hole becomes a
column over all events of that template, which packs far better than the events one behind the other. It is found from
the values (`shape_of`) and put together again without looking at any (`Template.fill`), which is what a centre does
millions of times. Used by `edge.segments.columns`. Pure; knows nothing of events.

A hole keeps the item's own bytes, so that what was written by another release, or oddly, comes back as it was.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import add, sub
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.records import record
from edge.segments.planes import Column, pieces

#: Kinds of holes: an item's bytes as they are; a number written relative to the event's; a byte string whose content
#: is CBOR itself and has a template of its own.
PLAIN: Final = 0
RELATIVE: Final = 1
#: Shorter content is not looked into: it would cost more columns than it saves.
_NESTED_BYTES_MIN: Final = 4

Hole = Any
"""PLAIN, RELATIVE, or a Template: content of a byte string."""


@record
class Template:
    """`chunks` stand around the `holes`: one more of them than holes."""

    chunks: tuple[bytes, ...]
    holes: tuple[Hole, ...]

    def plain(self) -> list[Any]:
        """As CBOR can hold it: chunks and holes by turns."""
        made: list[Any] = [self.chunks[0]]
        for hole, chunk in zip(self.holes, self.chunks[1:], strict=True):
            made += [hole.plain() if isinstance(hole, Template) else hole, chunk]
        return made

    @classmethod
    def of_plain(cls, parts: Any, depth: int = 0) -> Template:
        """The template that `plain` gave. Raises ValueError."""
        if type(parts) is not list or len(parts) % 2 == 0 or depth > _DEPTH_MAX:
            raise ValueError("a template is no list of chunks and holes")
        holes = tuple(
            cls.of_plain(hole, depth + 1) if type(hole) is list else _kind(hole) for hole in parts[1::2]
        )
        chunks = tuple(parts[::2])
        if any(type(chunk) is not bytes for chunk in chunks):
            raise ValueError("a template's chunk is no bytes")
        return cls(chunks, holes)

    @property
    def width(self) -> int:
        """How many columns it has, those of nested templates included."""
        return sum(hole.width if isinstance(hole, Template) else 1 for hole in self.holes)

    def fill(self, columns: Iterator[Column], seqs: list[int]) -> list[bytes]:
        """The pieces of CBOR, one for each of `seqs`; takes its columns from `columns` in order. ValueError."""
        woven = self._woven(columns, seqs)
        return [woven] * len(seqs) if isinstance(woven, bytes) else list(woven)

    def held(self, columns: Iterator[Column], seqs: list[int]) -> list[Column]:
        """What stands in each hole: content of a byte string as that string, relative numbers as they are written."""
        return [_held(hole, columns, seqs) for hole in self.holes]

    def _woven(self, columns: Iterator[Column], seqs: list[int]) -> Column:
        """As `fill`; what is the same in all of them, once."""
        parts: list[Column] = [self.chunks[0]]
        for hole, chunk in zip(self.holes, self.chunks[1:], strict=True):
            if hole == RELATIVE:
                _put(parts, as_items(absolute(next(columns), seqs)))
            else:
                _put(parts, _held(hole, columns, seqs))
            _put(parts, chunk)
        if len(parts) == 1:
            return parts[0]
        every = [repeat(part) if type(part) is bytes else part for part in parts]
        return map(b"".join, zip(*every))  # noqa: B905 - what is the same repeats without an end


def _held(hole: Hole, columns: Iterator[Column], seqs: list[int]) -> Column:
    if not isinstance(hole, Template):
        return next(columns)
    content = hole._woven(columns, seqs)
    return byte_string(content) if isinstance(content, bytes) else _byte_strings(list(content))


def _byte_strings(contents: list[bytes]) -> list[bytes]:
    """Each content as `byte_string` gives it."""
    sizes = list(map(len, contents))
    if max(sizes, default=0) < len(_HEADS):
        return list(map(add, map(_HEADS.__getitem__, sizes), contents))
    return list(map(byte_string, contents))


def _put(parts: list[Column], part: Column) -> None:
    """One more, joined with what is before where neither differs from piece to piece."""
    last = parts[-1]
    if type(part) is bytes and type(last) is bytes:
        parts[-1] = last + part
    else:
        parts.append(part)


def absolute(column: Column, seqs: list[int]) -> list[Any]:
    """Numbers of events again, from how far back they are; of those there are few different ones."""
    if isinstance(column, bytes):
        back = decode(column)
        return [seq - back for seq in seqs]
    backs = list(column)
    known = {item: decode(item) for item in set(backs)}
    return list(map(sub, seqs, map(known.__getitem__, backs)))


def as_items(numbers: Sequence[int]) -> Sequence[bytes]:
    """Numbers of events in CBOR (RFC 8949 §3.1)."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    for head, code, width in ((b"\x1a", "I", 4), (b"\x19", "H", 2)):
        if 1 << 4 * width <= low and high < 1 << 8 * width:
            try:
                return _of_one_width(struct.pack(f">{len(numbers)}{code}", *numbers), head, width)
            except struct.error as error:
                raise ValueError(f"a number of an event is none: {error}") from error
    return [encode(number) for number in numbers]


def _of_one_width(data: bytes, head: bytes, width: int) -> Sequence[bytes]:
    """Items that take the same bytes, put together plane by plane."""
    size, step = len(data) // width, width + 1
    made = bytearray(step * size)
    made[::step] = head * size
    for place in range(width):
        made[1 + place :: step] = data[place::width]
    return pieces(bytes(made), step)


_DEPTH_MAX: Final = 8


def _kind(hole: Any) -> int:
    if hole not in (PLAIN, RELATIVE) or type(hole) is not int:
        raise ValueError(f"a template has a hole of kind {hole!r}")
    return int(hole)


def byte_string(content: bytes) -> bytes:
    """A byte string in CBOR's shortest form (RFC 8949 §3.1)."""
    size = len(content)
    return (_HEADS[size] if size < len(_HEADS) else _head(0x40, size)) + content


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major | number])
    for code, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * width:
            return bytes([major | code]) + number.to_bytes(width, "big")
    raise ValueError("a length does not fit in 64 bits")


_HEADS: Final = tuple(_head(0x40, size) for size in range(256))


class Shaper:
    """Finds the template of one piece of CBOR and what fills it."""

    def __init__(self, seq: int, relative: frozenset[int] = frozenset()) -> None:
        """`relative`: places of the outermost array whose numbers are written relative to event `seq`."""
        self._seq, self._relative = seq, relative
        self.items: list[bytes] = []
        self._chunks: list[bytes] = [b""]
        self._holes: list[Hole] = []

    def shape(self, value: Any) -> Template:
        """The template of a decoded value; `items` are what stands in its holes, nested ones in order."""
        self._walk(value, outermost=True)
        return Template(tuple(self._chunks), tuple(self._holes))

    def _walk(self, value: Any, *, outermost: bool = False) -> None:
        kind = type(value)
        if kind is list:
            self._chunks[-1] += _head(0x80, len(value))
            for place, each in enumerate(value):
                if outermost and place in self._relative and type(each) is int:
                    self._hole(encode(self._seq - each), RELATIVE)
                else:
                    self._walk(each)
        elif kind is dict:
            self._chunks[-1] += _head(0xA0, len(value))
            for key, each in value.items():
                self._chunks[-1] += encode(key)
                self._walk(each)
        elif value is None or kind is bool:
            self._chunks[-1] += encode(value)
        elif kind is bytes and len(value) >= _NESTED_BYTES_MIN and (inner := _content(value)) is not None:
            nested = Shaper(self._seq)
            template = nested.shape(inner)
            self.items += nested.items
            self._holes.append(template)
            self._chunks.append(b"")
        else:
            self._hole(encode(value), PLAIN)

    def _hole(self, item: bytes, kind: int) -> None:
        self.items.append(item)
        self._holes.append(kind)
        self._chunks.append(b"")


def _content(value: bytes) -> Any:
    """What a byte string holds where that is a list or map in the CBOR that we write; else None."""
    if not 0x80 <= value[0] < 0xC0:
        return None
    try:
        found = decode(value)
    except ValueError:
        return None
    return found if type(found) in (list, dict) and encode(found) == value else None
