"""Frames on local stream sockets: four bytes of length, then one CBOR array. Bytes in, messages out.

Spoken between gateway and runtime, runtime and workers, command line and runtime. Pure: whoever owns the
socket feeds what came and writes what `pack` returns.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.limits import FRAME_BYTES_MAX

_LENGTH_BYTES: Final = 4


def pack(message: list[Any]) -> bytes:
    """One message as the bytes to write."""
    data = encode(message)
    assert len(data) <= FRAME_BYTES_MAX, f"a frame of {len(data)} bytes was built"
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


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
