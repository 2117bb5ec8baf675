"""A segment's columns give back every group byte for byte, whatever stands in it, and refuse what was changed."""

from __future__ import annotations

import contextlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edge.core.chain import GENESIS, Context, Group, open_group, seal_group
from edge.core.clock import Reading
from edge.core.codec import encode
from edge.core.errors import LogDamaged
from edge.segments.columns import StoredGroup, pack, unpack
from edge.segments.extent import Extent
from edge.segments.packing import CODECS, COLUMNS, PLAIN, checked, packed, unpacked

LOG = b"log-id-8"
KEY = bytes(range(32))

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 30), inner, max_size=4)
    ),
    max_leaves=12,
)
#: What a release of ours writes, what another might, and what is no CBOR at all.
part = (
    st.lists(plain, min_size=1, max_size=7).map(encode)
    | st.dictionaries(st.integers(0, 23), plain | plain.map(encode), max_size=5).map(encode)
    | st.binary(max_size=30)
)
numbers = st.integers(0, 2**63 - 1)


@st.composite
def histories(draw: st.DrawFn) -> list[StoredGroup]:
    """Groups that follow one another in one chain, with jumps of their numbers between."""
    seq, link, made = draw(st.integers(1, 2**40)), draw(st.sampled_from([GENESIS, KEY])), []
    for _ in range(draw(st.integers(1, 6))):
        pairs = draw(st.lists(st.tuples(part, part), min_size=1, max_size=4))
        at = Reading(draw(numbers), draw(numbers), draw(st.integers(0, 3)))
        context = Context(LOG, draw(st.sampled_from([bytes(16), bytes(range(16))])), at)
        key = draw(st.sampled_from([KEY, bytes(32)]))
        seq += draw(st.sampled_from([0, 0, 0, 1_000_000]))
        group: Group = seal_group(seq, link, context, key, [each for pair in pairs for each in pair])
        made.append(StoredGroup(seq, key, group.data))
        seq, link = group.last_seq + 1, group.links[-1]
    return made


def first_link(groups: list[StoredGroup]) -> bytes:
    return open_group(groups[0].first_seq, groups[0].data).previous


@given(histories())
def test_whatever_is_packed_comes_back(groups: list[StoredGroup]) -> None:
    """Any envelope and body, odd ones and such that are no CBOR, and the chain ends where the log's does."""
    codec, body, size_bytes = packed(groups)
    back = list(unpacked(codec, body, size_bytes, LOG, first_link(groups)))
    assert [each.stored for each in back] == groups
    last = groups[-1]
    opened = open_group(last.first_seq, last.data)
    assert back[-1].link == opened.check(opened.previous, last.epoch_key)
    seen = Extent()
    for each in back:
        seen.add(each.group)
    assert checked(codec, body, size_bytes, LOG, first_link(groups)) == (back[-1].link, seen.fields())


@given(histories(), st.data())
def test_what_was_changed_gives_another_chain_or_is_refused(
    groups: list[StoredGroup], data: st.DataObject
) -> None:
    """Any changed byte of the columns: another link at the end, or an error of those that a reader expects."""
    with contextlib.suppress(LogDamaged):
        columns = bytearray(pack(groups))
        whole = list(unpack(bytes(columns), LOG, first_link(groups)))
        place = data.draw(st.integers(0, len(columns) - 1))
        columns[place] ^= 1 << data.draw(st.integers(0, 7))
        body = zstandard.ZstdCompressor().compress(bytes(columns))
        try:
            changed = list(unpacked(COLUMNS, body, len(columns), LOG, first_link(groups)))
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                checked(COLUMNS, body, len(columns), LOG, first_link(groups))
            return
        assert checked(COLUMNS, body, len(columns), LOG, first_link(groups))[0] == changed[-1].link
        assert [each.stored for each in changed] == [each.stored for each in whole] or changed[
            -1
        ].link != whole[-1].link


@given(st.binary(max_size=200), st.sampled_from([*CODECS, "later-9"]))
def test_bytes_that_are_no_columns_are_refused(data: bytes, codec: str) -> None:
    """Whatever is in a body, reading it ends in one of the errors that `Sealed.groups` names."""
    body = zstandard.ZstdCompressor().compress(data)
    with contextlib.suppress(ValueError, LogDamaged):
        read = list(unpacked(codec, body, max(1, len(data)), LOG, GENESIS))
        assert codec == PLAIN, read
        assert read == []  # an empty list of groups is one
