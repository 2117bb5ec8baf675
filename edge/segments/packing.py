"""How a segment's body is written down: which codec, named in the manifest, and the only door to zstd.

`packed` chooses, `unpacked` reads any that was ever released. The receiver bounds what it opens: a body says in the
signed manifest how large it is unpacked, and not a byte more is made of it. Called by `edge.segments.sealed`.

Loaded by the short-lived sealer, the command line and the centre only. Never by a daemon of the box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import zstandard

from edge.core.chain import open_group
from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged
from edge.core.limits import SEALED_EVENTS_MAX, SEALED_UNPACKED_BYTES_MAX
from edge.segments import columns
from edge.segments.columns import Rows, StoredGroup, Unpacked, pack, unpack
from edge.segments.extent import Extent

#: Groups as columns, then zstd. What is written, unless a group does not come back from columns.
COLUMNS: Final = "columns-1+zstd"
#: The same groups one behind the other, then zstd: needs nothing but CBOR to be read.
PLAIN: Final = "groups-1+zstd"
CODECS: Final = (COLUMNS, PLAIN)
_LEVEL: Final = 19
_Reader = Callable[..., Iterator[Unpacked]]


def packed(groups: Sequence[StoredGroup]) -> tuple[str, bytes, int]:
    """`(codec, body, size unpacked)` of some groups, oldest first."""
    try:
        codec, data = COLUMNS, pack(groups)
    except LogDamaged:
        codec, data = PLAIN, encode([[group.first_seq, group.epoch_key, group.data] for group in groups])
    return codec, zstandard.ZstdCompressor(level=_LEVEL).compress(data), len(data)


def unpacked(
    codec: str,
    body: bytes,
    size_bytes: int,
    log_id: bytes,
    previous: bytes,
    *,
    linked: bool = True,
    wanted: range | None = None,
) -> Iterator[Unpacked]:
    """The groups, each with the chain's link after it, recomputed from every event where they are to be `linked`.

    Raises ValueError where the body is not what it says it is; LogDamaged where the chain breaks inside it.
    """
    reader, data = _opened(codec, body, size_bytes)
    with _as_said(codec):
        yield from reader(data, log_id, previous, linked=linked, wanted=wanted)


def checked(
    codec: str, body: bytes, size_bytes: int, log_id: bytes, previous: bytes
) -> tuple[bytes, dict[str, int]]:
    """`(link after the last event, what a manifest says)`: `unpacked` for who keeps nothing. Raises the same."""
    reader, data = _opened(codec, body, size_bytes)
    with _as_said(codec):
        if reader is unpack:
            return columns.checked(data, log_id, previous)
        seen, link = Extent(), previous
        for each in reader(data, log_id, previous, linked=True, wanted=None):
            seen.add(each.group)
            link = each.link
        return link, seen.fields()


def rows(codec: str, body: bytes, size_bytes: int) -> tuple[list[int], list[Rows]] | None:
    """The events as their columns have them, or None where the codec has none. Raises ValueError."""
    reader, data = _opened(codec, body, size_bytes)
    with _as_said(codec):
        return columns.rows(data) if reader is unpack else None


def _opened(codec: str, body: bytes, size_bytes: int) -> tuple[_Reader, bytes]:
    """How a body is read, and its bytes. Raises ValueError."""
    if not 0 < size_bytes <= SEALED_UNPACKED_BYTES_MAX:
        raise ValueError(
            f"its body would be {size_bytes} bytes, and at most {SEALED_UNPACKED_BYTES_MAX} are opened"
        )
    try:
        data = zstandard.ZstdDecompressor().decompress(body, max_output_size=size_bytes)
    except zstandard.ZstdError as error:
        raise ValueError(f"its body cannot be decompressed: {error}") from error
    if len(data) != size_bytes:
        raise ValueError(f"its body is {len(data)} bytes and should be {size_bytes}")
    reader: _Reader | None = {COLUMNS: unpack, PLAIN: _groups}.get(codec)
    if reader is None:
        raise ValueError(f"its codec is {codec!r}, and this release knows {', '.join(CODECS)}")
    return reader, data


@contextmanager
def _as_said(codec: str) -> Iterator[None]:
    """What a body raises that is of another shape: lists where numbers should be, and so on. Raises ValueError."""
    try:
        yield
    except (TypeError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"its body is not what {codec} says: {error}") from error


def _groups(
    data: bytes, log_id: bytes, previous: bytes, *, linked: bool, wanted: range | None
) -> Iterator[Unpacked]:
    events = 0
    for first_seq, epoch_key, stored in decode(data):
        group = open_group(first_seq, stored)
        events += len(group.parts) // 2
        if events > SEALED_EVENTS_MAX:
            raise ValueError(f"it holds more than {SEALED_EVENTS_MAX} events")
        if group.context.log_id != log_id:
            raise ValueError(f"the group at event {first_seq} is another log's")
        previous = group.check(previous, epoch_key) if linked else previous
        if wanted is not None and not (group.first_seq < wanted.stop and group.last_seq >= wanted.start):
            continue
        yield Unpacked(epoch_key, group, previous)
