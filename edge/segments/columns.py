"""Groups of events as columns: the body of a segment before it is compressed.

`pack` and `unpack` are inverse to one another, byte for byte, for any group that the log can hold; `pack` proves it
before it returns. What the chain gives anyway (each group's previous link) is not in it. Called by
`edge.segments.sealing` and by whoever reads a segment. Pure. It must never need to know what an event means: a
segment of any release is read by this file for ever (`LAYOUT`).

Measured on a pump guard (two device effects, a minute apart) and against other ways: DESIGN.md.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from typing import Any, Final

from edge.core.chain import Context, OpenedGroup, link_of, open_group
from edge.core.clock import Reading
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged
from edge.core.limits import SEALED_EVENTS_MAX
from edge.core.records import record
from edge.segments.templates import PLAIN, Shaper, Template

LAYOUT: Final = 1
#: In an envelope: the execution and the cause are numbers of events.
_RELATIVE: Final = frozenset({1, 6})
_WORD_BYTES: Final = 8
_WHOLE: Final = Template((b"", b""), (PLAIN,))
"""What has no template, or would not come back from it, is kept whole."""


@record
class StoredGroup:
    """A group as both homes of the log have it, and the key of its journal file."""

    first_seq: int
    epoch_key: bytes
    data: bytes


@record
class Unpacked:
    """A group taken out of a segment: opened, with the chain's `link` after it, recomputed from its events."""

    epoch_key: bytes
    group: OpenedGroup
    link: bytes

    @property
    def stored(self) -> StoredGroup:
        """As the homes of the log have it, byte for byte."""
        group = self.group
        data = encode([group.context_bytes, group.previous, group.parts])
        return StoredGroup(group.first_seq, self.epoch_key, data)


def pack(groups: Sequence[StoredGroup]) -> bytes:
    """The groups as columns. Raises LogDamaged where one of them is not what it should be."""
    opened = [(group, open_group(group.first_seq, group.data)) for group in groups]
    first = opened[0][1]
    try:
        packed = encode(_columns(opened))
        back = [each.stored for each in unpack(packed, first.context.log_id, first.previous)]
    except (ValueError, TypeError, OverflowError) as error:
        raise LogDamaged(f"The events from {first.first_seq} on cannot be made columns: {error}.") from error
    if back != list(groups):
        raise LogDamaged(f"The events from {first.first_seq} on do not come back as they are from columns.")
    return packed


def _columns(opened: list[tuple[StoredGroup, OpenedGroup]]) -> list[Any]:
    expected = opened[0][0].first_seq
    jumps: list[list[int]] = []
    for place, (group, each) in enumerate(opened):
        if group.first_seq != expected:
            jumps.append([place, group.first_seq - expected])
        expected = each.last_seq + 1
    readings = [each.context.at for _, each in opened]
    return [
        LAYOUT,
        opened[0][0].first_seq,
        _runs(group.epoch_key for group, _ in opened),
        _runs(each.context.boot_id for _, each in opened),
        _runs(at.wall_trust for at in readings),
        _numbers([len(each.parts) // 2 for _, each in opened]),
        jumps,
        _numbers(_steps([at.mono_ns for at in readings])),
        _numbers(_steps([at.wall_ns - at.mono_ns for at in readings])),
        *_events(opened),
    ]


def _events(opened: list[tuple[StoredGroup, OpenedGroup]]) -> list[Any]:
    """Templates of envelope and body, which of them each event has, and their columns."""
    shapes: dict[tuple[Template, Template], int] = {}
    order: list[int] = []
    rows: list[list[list[bytes]]] = []
    for group, each in opened:
        for place in range(0, len(each.parts), 2):
            seq = group.first_seq + place // 2
            envelope, items = _shape(each.parts[place], seq, _RELATIVE)
            body, more = _shape(each.parts[place + 1], seq, frozenset())
            number = shapes.setdefault((envelope, body), len(shapes))
            if number == len(rows):
                rows.append([])
            rows[number].append(items + more)
            order.append(number)
    templates = [[envelope.plain(), body.plain()] for envelope, body in shapes]
    return [
        templates,
        _numbers(order),
        [[_column(items) for items in zip(*each, strict=True)] for each in rows],
    ]


def _shape(data: bytes, seq: int, relative: frozenset[int]) -> tuple[Template, list[bytes]]:
    try:
        shaper = Shaper(seq, relative)
        template = shaper.shape(decode(data))
        if template.fill(iter([[item] for item in shaper.items]), [seq]) == [data]:
            return template, shaper.items
    except (ValueError, TypeError):
        pass  # nothing that our decoder knows
    return _WHOLE, [data]


def unpack(
    packed: bytes, log_id: bytes, previous: bytes, *, linked: bool = True, wanted: range | None = None
) -> Iterator[Unpacked]:
    """The groups again; `previous` is the chain's link before the first. Raises ValueError where it is no columns.

    Not `linked`, the chain is left alone (every link is `previous`): for readers of a body whose digest was signed.
    Then only groups with events that are `wanted` may be asked for, and little else is put together.
    """
    layout, first_seq, epochs, boots, trusts, sizes, jumps, mono, wall, *events = _fields(packed)
    if layout != LAYOUT:
        raise ValueError(f"its columns have layout {layout}, and this release knows up to {LAYOUT}")
    counts = _integers(sizes, SEALED_EVENTS_MAX)
    if sum(counts) > SEALED_EVENTS_MAX or min(counts, default=1) < 1:
        raise ValueError(f"it holds more than {SEALED_EVENTS_MAX} events, or a group of none")
    firsts = _firsts(first_seq, counts, dict(jumps))
    mono_ns = list(accumulate(_integers(mono, len(counts))))
    apart_ns = list(accumulate(_integers(wall, len(counts))))
    seqs = [seq for first, count in zip(firsts, counts, strict=True) for seq in range(first, first + count)]
    if wanted is not None:
        assert not linked, "the chain needs every event"
        wanted = _whole_groups(firsts, counts, wanted)
    pairs = _pairs(seqs, wanted, *events)
    rows = zip(firsts, counts, _spread(epochs, len(counts)), _spread(boots, len(counts)),
               _spread(trusts, len(counts)), mono_ns, apart_ns, strict=True)  # fmt: skip
    for first, count, epoch_key, boot, trust, at_ns, apart in rows:
        if wanted is not None and first not in wanted:
            continue
        head = encode([log_id, boot, at_ns, at_ns + apart, trust])
        parts: list[bytes] = []
        link = previous
        for seq in range(first, first + count):
            envelope, body = next(pairs)
            if linked:
                link = link_of(link, head, epoch_key, seq, envelope, body)
            parts += (envelope, body)
        context = Context(log_id, boot, Reading(at_ns, at_ns + apart, trust))
        yield Unpacked(epoch_key, OpenedGroup(first, context, previous, parts, head), link)
        previous = link


def _fields(packed: bytes) -> list[Any]:
    fields = decode(packed)
    if type(fields) is not list or len(fields) != 12:
        raise ValueError("it is no columns")
    return fields


def _firsts(first_seq: int, counts: list[int], jumps: dict[int, int]) -> list[int]:
    firsts, seq = [], first_seq
    for place, count in enumerate(counts):
        seq += jumps.get(place, 0)
        firsts.append(seq)
        seq += count
    return firsts


def _whole_groups(firsts: list[int], counts: list[int], wanted: range) -> range:
    """From the first event of the first group that holds a wanted one to the last of the last."""
    held = [
        (first, first + count)
        for first, count in zip(firsts, counts, strict=True)
        if first < wanted.stop and first + count > wanted.start
    ]
    return range(held[0][0], held[-1][1]) if held else range(0)


def _pairs(
    seqs: list[int], wanted: range | None, templates: Any, order: Any, columns: Any
) -> Iterator[tuple[bytes, bytes]]:
    """Envelope and body of each event, or of those that are wanted."""
    numbers = _integers(order, len(seqs))
    if len(numbers) != len(seqs) or len(templates) != len(columns):
        raise ValueError("events and templates do not match")
    seqs_of: list[list[int]] = [[] for _ in templates]
    for seq, number in zip(seqs, numbers, strict=True):
        seqs_of[number].append(seq)
    made: list[Iterator[tuple[bytes, bytes]]] = []
    for (envelope_plain, body_plain), own, each in zip(templates, seqs_of, columns, strict=True):
        envelope, body = Template.of_plain(envelope_plain), Template.of_plain(body_plain)
        if envelope.width + body.width != len(each):
            raise ValueError("a template and its columns do not match")
        low, high = 0, len(own)
        if wanted is not None:
            low, high = bisect_left(own, wanted.start), bisect_left(own, wanted.stop)
        items = (_items(column, len(own), low, high) for column in each)
        some = own[low:high]
        made.append(zip(envelope.fill(items, some), body.fill(items, some), strict=True))
    if wanted is not None:
        numbers = [number for seq, number in zip(seqs, numbers, strict=True) if seq in wanted]
    return (next(made[number]) for number in numbers)


# ---- columns -----------------------------------------------------------------------------------------------


def _column(items: Sequence[bytes]) -> Any:
    """One hole's items: `[item]` where all are the same, `[width, planes]` of one width, else `[widths, bytes]`."""
    if len(set(items)) == 1:
        return [items[0]]
    widths = [len(item) for item in items]
    if len(set(widths)) == 1:
        return [widths[0], _planes(b"".join(items), widths[0])]
    return [_numbers(widths), b"".join(items)]


def _items(column: Any, count: int, low: int, high: int) -> Iterable[bytes]:
    """The items of a column from place `low` on, up to `high`."""
    if len(column) == 1 and type(column[0]) is bytes:
        return repeat(column[0], high - low)
    widths, data = column
    if type(data) is not bytes:
        raise ValueError("a column holds no bytes")
    if type(widths) is int:
        if widths < 1 or widths * count != len(data):
            raise ValueError("a column has the wrong size")
        if high - low < count:
            data = b"".join(data[plane * count + low : plane * count + high] for plane in range(widths))
        joined = _joined(data, widths)
        return [joined[at : at + widths] for at in range(0, len(joined), widths)]
    ends = list(accumulate(_integers(widths, count)))
    if len(ends) != count or (ends[-1] if ends else 0) != len(data) or min(ends, default=0) < 0:
        raise ValueError("a column has the wrong size")
    return [data[start:end] for start, end in zip([0, *ends[:-1]][low:high], ends[low:high], strict=True)]


def _planes(data: bytes, width: int) -> bytes:
    """First bytes of all items, then second bytes, …: those of neighbours are alike, and pack together."""
    return b"".join(data[place::width] for place in range(width))


def _joined(data: bytes, width: int) -> bytes:
    joined = bytearray(len(data))
    count = len(data) // width
    for place in range(width):
        joined[place::width] = data[place * count : (place + 1) * count]
    return bytes(joined)


def _numbers(values: Sequence[int]) -> list[Any]:
    """Whole numbers: `[width, planes]`, little-endian; negative ones folded in (0, -1, 1, -2, … as 0, 1, 2, 3, …)."""
    folded = [value << 1 if value >= 0 else ~value << 1 | 1 for value in values]
    width = max(1, (max(folded, default=0).bit_length() + 7) // 8)
    return [width, _planes(b"".join(value.to_bytes(width, "little") for value in folded), width)]


def _integers(packed: Any, count_max: int) -> list[int]:
    width, data = packed
    if type(width) is not int or type(data) is not bytes or not 1 <= width <= 17 or len(data) % width:
        raise ValueError("a column of numbers has the wrong size")
    if len(data) // width > count_max:
        raise ValueError("a column of numbers is too long")
    if width <= _WORD_BYTES:
        words = array("Q", bytes(_spaced(data, width)))
        if sys.byteorder == "big":
            words.byteswap()
        return [~(value >> 1) if value & 1 else value >> 1 for value in words]
    joined = _joined(data, width)
    folded = (int.from_bytes(joined[at : at + width], "little") for at in range(0, len(joined), width))
    return [~(value >> 1) if value & 1 else value >> 1 for value in folded]


def _spaced(data: bytes, width: int) -> bytearray:
    """Planes of numbers as words of the machine's size, little-endian."""
    count = len(data) // width
    spaced = bytearray(_WORD_BYTES * count)
    for place in range(width):
        spaced[place::_WORD_BYTES] = data[place * count : (place + 1) * count]
    return spaced


def _steps(values: Sequence[int]) -> list[int]:
    return [value - before for value, before in zip(values, [0, *values[:-1]], strict=True)]


def _runs(values: Iterable[Any]) -> list[list[Any]]:
    """Neighbours that are the same as `[value, how many]`."""
    runs: list[list[Any]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return runs


def _spread(runs: Any, count: int) -> list[Any]:
    if sum(each[1] for each in runs) != count or min((each[1] for each in runs), default=1) < 1:
        raise ValueError("its groups and what is constant over them do not match")
    return [value for value, times in runs for _ in range(times)]
