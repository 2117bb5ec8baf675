"""Frames cut anywhere give the same messages."""

from __future__ import annotations

import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge.core.frames import FrameBuffer, pack

messages = st.lists(
    st.lists(st.integers(-(2**63), 2**63) | st.binary(max_size=40), min_size=1, max_size=4), max_size=6
)


@given(messages, st.lists(st.integers(0, 400), max_size=12))
def test_messages_come_out_whole_however_they_are_cut(sent: list[list[object]], cuts: list[int]) -> None:
    """Any cut of the stream gives every message once, in order, each as soon as its last byte is there."""
    stream = b"".join(pack(message) for message in sent)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    buffer, got = FrameBuffer(), []
    for start, end in itertools.pairwise(places):
        got += buffer.feed(stream[start:end])
        whole, offset = 0, 0
        while offset < end:
            offset += 4 + int.from_bytes(stream[offset : offset + 4], "big")
            whole += offset <= end
        assert len(got) == whole
    assert got == sent


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes_are_messages_or_a_value_error(pieces: list[bytes]) -> None:
    """No bytes a peer can send make the buffer raise anything but ValueError."""
    buffer = FrameBuffer()
    with contextlib.suppress(ValueError):
        for piece in pieces:
            buffer.feed(piece)
