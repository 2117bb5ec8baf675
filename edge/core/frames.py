"""Frames on local stream sockets: four bytes of length, then one CBOR array. Bytes in, messages out.

Spoken between gateway and runtime, runtime and workers, command line and runtime. Pure: whoever owns the
socket feeds what came and writes what `pack` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.limits import FRAME_BYTES_MAX

_LENGTH_BYTES: Final = 4


def pack(message: list[Any]) -> bytes:
    """One message as the bytes to write."""
    data = encode(message)
    assert len(data) <= FRAME_BYTES_MAX, f"a frame of {len(data)} bytes was built"
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


class FrameOutbox:
    """Gathers what is said within one turn of an event loop into one write; a lone message waits for nothing.

    At high load this is one system call where there were many. While turns have one message or two, the first is
    written at once, so that the other side starts while this one finishes its turn (5 % of a lone request).
    `write` takes bytes, `soon` calls a function at the end of the turn; both are the owner's.
    """

    def __init__(
        self, write: Callable[[bytes], object], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        self._write, self._soon = write, soon
        self._frames: list[bytes] = []
        self._turn_is_open = False
        self._crowded = False

    def send(self, message: list[Any]) -> None:
        """Say one message, in order."""
        if self._turn_is_open:
            self._frames.append(pack(message))
            return
        self._turn_is_open = True
        self._soon(self._end_turn)
        if self._crowded:
            self._frames.append(pack(message))
        else:
            self._write(pack(message))

    def _end_turn(self) -> None:
        self._turn_is_open = False
        frames, self._frames = self._frames, []
        self._crowded = len(frames) > 1
        if frames:
            self._write(frames[0] if len(frames) == 1 else b"".join(frames))


class FrameBuffer:
    """Collects received bytes and gives back whole messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[list[Any]]:
        """All messages completed by `data`, in order. Raises ValueError where the peer talks nonsense."""
        buffer = self._bytes
        if not buffer and len(data) >= _LENGTH_BYTES:
            # The usual case, one whole frame in one read, is taken without copying through the buffer.
            end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
            if end == len(data):
                return [_message(data[_LENGTH_BYTES:])]
        buffer += data
        messages = []
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes is announced, {FRAME_BYTES_MAX} is the bound")
            end = start + _LENGTH_BYTES + length
            if end > len(buffer):
                break
            messages.append(_message(bytes(buffer[start + _LENGTH_BYTES : end])))
            start = end
        if start:
            del buffer[:start]
        return messages


def _message(data: bytes) -> list[Any]:
    message = decode(data)
    if type(message) is not list or not message:
        raise ValueError("a frame holds no message")
    return message
