"""Frames on local sockets: packing, and what the buffer makes of pieces and nonsense."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge.core.codec import encode
from edge.core.frames import FrameBuffer, FrameOutbox, pack
from edge.core.limits import FRAME_BYTES_MAX


def test_a_whole_frame_gives_its_message() -> None:
    """One frame in one read is one message."""
    assert FrameBuffer().feed(pack(["a", 1])) == [["a", 1]]


def test_length_comes_first_in_four_bytes() -> None:
    """A frame is four bytes of length, big-endian, then the array."""
    data = encode(["a", 1])
    assert pack(["a", 1]) == len(data).to_bytes(4, "big") + data


def test_a_frame_byte_by_byte() -> None:
    """A message appears with its last byte and not before."""
    buffer, data = FrameBuffer(), pack([b"x" * 300])
    for byte in data[:-1]:
        assert buffer.feed(bytes([byte])) == []
    assert buffer.feed(data[-1:]) == [[b"x" * 300]]


def test_an_announced_giant_is_refused_at_once() -> None:
    """A length above the bound is refused before its bytes are collected."""
    with pytest.raises(ValueError, match="is the bound"):
        FrameBuffer().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("data", [encode([]), encode({}), encode("a"), b"\xff", b""])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """A frame that holds no list, or an empty one, is refused."""
    with pytest.raises(ValueError, match="frame"):
        FrameBuffer().feed(len(data).to_bytes(4, "big") + data)


def test_an_outbox_lets_a_lone_frame_go_at_once_and_gathers_a_crowd() -> None:
    """The first of a turn goes at once until a turn is crowded; then a turn is one write. Order is kept."""
    written: list[bytes] = []
    turn: list[Callable[[], None]] = []
    outbox = FrameOutbox(written.append, turn.append)
    a, b, c = (pack([letter]) for letter in "abc")
    for letter in "abc":
        outbox.send([letter])
    assert written == [a]
    turn.pop()()
    assert written == [a, b + c]
    outbox.send(["a"])
    outbox.send(["b"])
    assert written == [a, b + c]
    turn.pop()()
    outbox.send(["c"])
    turn.pop()()
    assert written == [a, b + c, a + b, c]
    outbox.send(["a"])
    assert written[4:] == [a]
    turn.pop()()
    assert (written[5:], turn) == ([], [])
