"""Groups of events as columns: the body of a segment before it is compressed.

`pack` and `unpack` are inverse to one another, byte for byte, for any group that the log can hold; `pack` proves it
before it returns. What the chain gives anyway (each group's previous link) is not in it. Called by
`edge.segments.sealing` and by whoever reads a segment. Pure. It must never need to know what an event means: a
segment of any release is read by this file for ever (`LAYOUT`).

Measured on a pump guard (two device effects, a minute apart) and against other ways: DESIGN.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, compress, groupby
from operator import add
from struct import Struct
from typing import Any, Final, TypeVar

from edge.core.chain import Context, OpenedGroup, last_link, link_of, open_group
from edge.core.clock import Reading
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged
from edge.core.limits import SEALED_EVENTS_MAX
from edge.core.records import record
from edge.segments.planes import (
    Column,
    items_of,
    numbers_of,
    packed_items,
    packed_numbers,
    packed_runs,
    spread,
    steps,
)
from edge.segments.templates import PLAIN, Shaper, Template

LAYOUT: Final = 1
#: In an envelope: the execution and the cause are numbers of events.
_RELATIVE: Final = frozenset({1, 6})
#: A group's clocks and their trust in CBOR (RFC 8949 §3.1), where both need eight bytes, as all but the first do.
_CLOCKS: Final = Struct(">BQBQB")
_LONG_HEAD: Final = 0x1B
_BYTE: Final = 256
_LONG, _TOO_LONG, _SMALL = 1 << 32, 1 << 64, 24
_WHOLE: Final = Template((b"", b""), (PLAIN,))
"""What has no template, or would not come back from it, is kept whole."""
_T = TypeVar("_T")


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


@record
class Rows:
    """The events of one template, `seqs` their numbers. `held` is what stands in the holes, the envelope's first."""

    envelope: Template
    body: Template
    seqs: list[int]
    held: list[Column]


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
        packed_runs(group.epoch_key for group, _ in opened),
        packed_runs(each.context.boot_id for _, each in opened),
        packed_runs(at.wall_trust for at in readings),
        packed_numbers([len(each.parts) // 2 for _, each in opened]),
        jumps,
        packed_numbers(steps([at.mono_ns for at in readings])),
        packed_numbers(steps([at.wall_ns - at.mono_ns for at in readings])),
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
        packed_numbers(order),
        [[packed_items(items) for items in zip(*each, strict=True)] for each in rows],
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
    laid = _laid_out(packed)
    if wanted is not None:
        assert not linked, "the chain needs every event"
        wanted = _whole_groups(laid.firsts, laid.counts, wanted)
    pairs = _pairs(laid.seqs, wanted, *laid.events)
    for first, count, epoch_key, head, (boot, at_ns, wall_ns, trust) in zip(
        laid.firsts, laid.counts, laid.epochs, _heads(laid, log_id), laid.contexts, strict=True
    ):
        if wanted is not None and first not in wanted:
            continue
        parts: list[bytes] = []
        link = previous
        for seq in range(first, first + count):
            envelope, body = next(pairs)
            if linked:
                link = link_of(link, head, epoch_key, seq, envelope, body)
            parts += (envelope, body)
        context = Context(log_id, boot, Reading(at_ns, wall_ns, trust))
        yield Unpacked(epoch_key, OpenedGroup(first, context, previous, parts, head), link)
        previous = link


def checked(packed: bytes, log_id: bytes, previous: bytes) -> tuple[bytes, dict[str, int]]:
    """`(the chain's link after the last event, what a manifest says of them)`, as `unpack` would give it.

    Nothing is kept of the events, so a centre that only wants to know takes in twice as many. Raises ValueError.
    """
    laid = _laid_out(packed)
    counts = laid.counts
    heads = _each(_heads(laid, log_id), counts)
    pairs = _pairs(laid.seqs, None, *laid.events)
    link = last_link(previous, zip(heads, _each(laid.epochs, counts), laid.seqs, pairs, strict=True))
    boots, _, wall_ns, trusts = zip(*laid.contexts, strict=True)
    return link, {
        "first_seq": laid.seqs[0],
        "last_seq": laid.seqs[-1],
        "events": len(laid.seqs),
        "groups": len(counts),
        "wall_min_ns": min(wall_ns),
        "wall_max_ns": max(wall_ns),
        "trust_min": min(trusts),
        "boots": sum(1 for _ in groupby(boots)),
    }


def rows(packed: bytes) -> tuple[list[int], list[Rows]]:
    """Which rows each event is the next of, by its place, and all rows: the events without the chain. ValueError."""
    fields = _fields(packed)
    numbers, kinds = _by_template(_numbered(fields)[2], *fields[9:])
    made = []
    for envelope, body, own, columns in kinds:
        items = (items_of(column, len(own), 0, len(own)) for column in columns)
        held = [*envelope.held(items, own), *body.held(items, own)]
        made.append(Rows(envelope, body, own, held))
    return numbers, made


@record
class _Laid:
    """The columns of groups, read, and those of their events as they are."""

    firsts: list[int]
    counts: list[int]
    #: Number of every event.
    seqs: Sequence[int]
    epochs: list[bytes]
    #: Boot id, monotonic and wall clock in ns, trust.
    contexts: list[tuple[bytes, int, int, int]]
    events: list[Any]


def _laid_out(packed: bytes) -> _Laid:
    fields = _fields(packed)
    firsts, counts, seqs = _numbered(fields)
    _, _, epochs, boots, trusts, _, _, mono, wall, *events = fields
    mono_ns = list(accumulate(numbers_of(mono, len(counts))))
    wall_ns = list(map(add, mono_ns, accumulate(numbers_of(wall, len(counts)))))
    clocks = spread(boots, len(counts)), mono_ns, wall_ns, spread(trusts, len(counts))
    return _Laid(firsts, counts, seqs, spread(epochs, len(counts)), list(zip(*clocks, strict=True)), events)


def _numbered(fields: list[Any]) -> tuple[list[int], list[int], Sequence[int]]:
    """Each group's first number and its events, and the number of every event."""
    layout, first_seq, sizes, jumps = fields[0], fields[1], fields[5], fields[6]
    if layout != LAYOUT:
        raise ValueError(f"its columns have layout {layout}, and this release knows up to {LAYOUT}")
    counts = numbers_of(sizes, SEALED_EVENTS_MAX)
    if not counts or sum(counts) > SEALED_EVENTS_MAX or min(counts) < 1:
        raise ValueError(f"it holds more than {SEALED_EVENTS_MAX} events, or a group of none")
    firsts = _firsts(first_seq, counts, dict(jumps)) if jumps else _unbroken(first_seq, counts)
    if not jumps:
        return firsts, counts, range(firsts[0], firsts[-1] + counts[-1])
    each = zip(firsts, counts, strict=True)
    return firsts, counts, [seq for first, count in each for seq in range(first, first + count)]


def _heads(laid: _Laid, log_id: bytes) -> Iterator[bytes]:
    """Each group's context as `Context.encode` has it: what two boots have in common is encoded once."""
    known, start = b"", b""
    for boot, at_ns, wall_ns, trust in laid.contexts:
        if boot != known or not start:
            known, start = boot, encode([log_id, boot, 0, 0, 0])[:-3]
        if _LONG <= at_ns < _TOO_LONG and _LONG <= wall_ns < _TOO_LONG and 0 <= trust < _SMALL:
            yield start + _CLOCKS.pack(_LONG_HEAD, at_ns, _LONG_HEAD, wall_ns, trust)
        else:
            yield encode([log_id, boot, at_ns, wall_ns, trust])


def _each(values: Iterable[_T], counts: list[int]) -> list[_T]:
    """What is constant over a group, for each of its events."""
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


def _fields(packed: bytes) -> list[Any]:
    fields = decode(packed)
    if type(fields) is not list or len(fields) != 12:
        raise ValueError("it is no columns")
    return fields


def _unbroken(first_seq: int, counts: list[int]) -> list[int]:
    return list(accumulate(counts[:-1], initial=first_seq))


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


def _pairs(seqs: Sequence[int], wanted: range | None, *events: Any) -> Iterator[tuple[bytes, bytes]]:
    """Envelope and body of each event, or of those that are wanted."""
    numbers, kinds = _by_template(seqs, *events)
    made: list[Iterator[tuple[bytes, bytes]]] = []
    for envelope, body, own, columns in kinds:
        low, high = 0, len(own)
        if wanted is not None:
            low, high = bisect_left(own, wanted.start), bisect_left(own, wanted.stop)
        items = (items_of(column, len(own), low, high) for column in columns)
        some = own[low:high]
        made.append(zip(envelope.fill(items, some), body.fill(items, some), strict=True))
    if wanted is not None:
        numbers = [number for seq, number in zip(seqs, numbers, strict=True) if seq in wanted]
    return map(next, map(made.__getitem__, numbers))


def _by_number(seqs: Sequence[int], numbers: list[int], count: int) -> list[list[int]]:
    """The events of each number, in order. Raises ValueError where a number is none."""
    if min(numbers) < 0 or max(numbers) >= count:
        raise ValueError("an event has no template")
    if count <= _BYTE:
        packed, zeros, seqs = bytes(numbers), bytes(_BYTE), list(seqs)
        return [
            list(compress(seqs, packed.translate(zeros[:each] + b"\x01" + zeros[each + 1 :])))
            for each in range(count)
        ]
    made: list[list[int]] = [[] for _ in range(count)]
    for seq, number in zip(seqs, numbers, strict=True):
        made[number].append(seq)
    return made


def _by_template(
    seqs: Sequence[int], templates: Any, order: Any, columns: Any
) -> tuple[list[int], list[tuple[Template, Template, list[int], list[Any]]]]:
    """Which templates each event has, and those with their events' numbers and their columns."""
    numbers = numbers_of(order, len(seqs))
    if len(numbers) != len(seqs) or len(templates) != len(columns):
        raise ValueError("events and templates do not match")
    kinds = []
    seqs_of = _by_number(seqs, numbers, len(templates))
    for (envelope_plain, body_plain), own, each in zip(templates, seqs_of, columns, strict=True):
        envelope, body = Template.of_plain(envelope_plain), Template.of_plain(body_plain)
        if envelope.width + body.width != len(each):
            raise ValueError("a template and its columns do not match")
        kinds.append((envelope, body, own, each))
    return numbers, kinds
