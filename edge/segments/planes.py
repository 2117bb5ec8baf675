"""One column as bytes: items of CBOR side by side, whole numbers, and what stays the same over neighbours.

Called by `edge.segments.columns` alone. Items of one width stand with their first bytes first, then their second
bytes, and so on ("planes"): what neighbours share lies together and packs. Pure; knows neither templates nor events.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final

Column = bytes | Iterable[bytes]
"""What fills a hole: an item for each piece, or the one that is the same in all."""
_WORD_BYTES: Final = 8
_EVEN: Final = bytes(range(0, 256, 2))
_HALVES: Final = bytes(value >> 1 for value in range(256))


def packed_items(items: Sequence[bytes]) -> Any:
    """A column: `[item]` where all are the same, `[width, planes]` of one width, else `[widths, bytes]`."""
    if len(set(items)) == 1:
        return [items[0]]
    widths = [len(item) for item in items]
    if len(set(widths)) == 1:
        return [widths[0], _planes(b"".join(items), widths[0])]
    return [packed_numbers(widths), b"".join(items)]


def items_of(column: Any, count: int, low: int, high: int) -> Column:
    """The items from place `low` on, up to `high`, of a column of `count`. Raises ValueError."""
    if len(column) == 1 and type(column[0]) is bytes:
        item: bytes = column[0]
        return item
    widths, data = column
    if type(data) is not bytes:
        raise ValueError("a column holds no bytes")
    if type(widths) is int:
        if widths < 1 or widths * count != len(data):
            raise ValueError("a column has the wrong size")
        if high - low < count:
            data = b"".join(data[plane * count + low : plane * count + high] for plane in range(widths))
        return pieces(_joined(data, widths), widths)
    sizes = numbers_of(widths, count)
    if len(sizes) != count or sum(sizes) != len(data) or min(sizes, default=0) < 0:
        raise ValueError("a column has the wrong size")
    return _cut(data, sizes) if high - low == count else _cut(data, sizes)[low:high]


def pieces(data: bytes, width: int) -> Sequence[bytes]:
    """Bytes cut into pieces of one width: by `struct`, which takes a sixth of the time of slices."""
    return struct.unpack(f"{width}s" * (len(data) // width), data)


def _cut(data: bytes, sizes: list[int]) -> Sequence[bytes]:
    known = {size: f"{size}s" for size in set(sizes)}
    return struct.unpack("".join(map(known.__getitem__, sizes)), data)


def _planes(data: bytes, width: int) -> bytes:
    """First bytes of all items, then second bytes, …: those of neighbours are alike, and pack together."""
    return b"".join(data[place::width] for place in range(width))


def _joined(data: bytes, width: int) -> bytes:
    joined = bytearray(len(data))
    count = len(data) // width
    for place in range(width):
        joined[place::width] = data[place * count : (place + 1) * count]
    return bytes(joined)


def packed_numbers(values: Sequence[int]) -> list[Any]:
    """Whole numbers: `[width, planes]`, little-endian; negative ones folded in (0, -1, 1, -2, … as 0, 1, 2, 3, …)."""
    folded = [value << 1 if value >= 0 else ~value << 1 | 1 for value in values]
    width = max(1, (max(folded, default=0).bit_length() + 7) // 8)
    return [width, _planes(b"".join(value.to_bytes(width, "little") for value in folded), width)]


def numbers_of(packed: Any, count_max: int) -> list[int]:
    """What `packed_numbers` gave, `count_max` at most. Raises ValueError."""
    width, data = packed
    if type(width) is not int or type(data) is not bytes or not 1 <= width <= 17 or len(data) % width:
        raise ValueError("a column of numbers has the wrong size")
    if len(data) // width > count_max:
        raise ValueError("a column of numbers is too long")
    if width == 1 and not data.translate(None, _EVEN):
        return list(data.translate(_HALVES))  # small and never negative, as most are
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


def steps(values: Sequence[int]) -> list[int]:
    """How far each is from the one before, the first from 0."""
    return [value - before for value, before in zip(values, [0, *values[:-1]], strict=True)]


def packed_runs(values: Iterable[Any]) -> list[list[Any]]:
    """Neighbours that are the same as `[value, how many]`."""
    runs: list[list[Any]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return runs


def spread(runs: Any, count: int) -> list[Any]:
    """What `packed_runs` gave, one by one. Raises ValueError where that is not `count` values."""
    if sum(each[1] for each in runs) != count or min((each[1] for each in runs), default=1) < 1:
        raise ValueError("its groups and what is constant over them do not match")
    return [value for value, times in runs for _ in range(times)] if len(runs) != 1 else [runs[0][0]] * count
