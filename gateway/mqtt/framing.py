"""Bytes to MQTT 5 packets with the `mqtt5` codec: bounded, incremental, one kind of error.

Called by `codec_session` and by the embedded broker. Must never hold more than one unfinished packet, nor
let anything but `Malformed` out for bytes that came from outside.
"""

from __future__ import annotations

import mqtt5

#: A fixed header is at most five bytes (MQTT 5 §2.1.4).
_HEADER_BYTES_MAX = 5


class Malformed(Exception):
    """The bytes are not MQTT 5, or too many; `code` is the reason for a DISCONNECT."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def read_packet(view: memoryview) -> tuple[mqtt5.Packet, int]:
    """One packet from a buffer that holds all of it, and its size. Raises Malformed.

    mqtt5 0.8 answers a string that is not UTF-8 with pyo3's PanicException, which is a BaseException and has
    no importable name; let through, one bad packet would end the process.
    """
    try:
        return mqtt5.read(view)
    except (ValueError, IndexError, OverflowError) as error:
        raise Malformed(0x81, f"malformed packet: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise Malformed(0x81, "malformed packet: a string is not UTF-8") from None


class Framer:
    """Cuts a stream into packets."""

    def __init__(self, packet_bytes_max: int) -> None:
        self._max = packet_bytes_max
        self._held = bytearray()
        self._wanted = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the unfinished packet."""
        return len(self._held)

    def feed(self, data: bytes) -> list[mqtt5.Packet]:
        """The packets that `data` completes; raises Malformed, after which the stream is of no use.

        Packets in front of a malformed one are lost with it: the connection ends either way, and QoS 1 is
        sent again.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data, self._held = bytes(self._held), bytearray()
        packets: list[mqtt5.Packet] = []
        at, end = 0, len(data)
        view = memoryview(data)
        while at < end:
            self._wanted = size = self._size(data, at)
            if not size or at + size > end:
                self._held = bytearray(view[at:])
                break
            packet, used = read_packet(view[at : at + size])
            if used != size:
                raise Malformed(0x81, "malformed packet: its length does not match its content")
            packets.append(packet)
            at += size
        return packets

    def _size(self, data: bytes, at: int) -> int:
        """Size of the packet at `at` with its header; 0 where the header is not complete."""
        length = 0
        for place in range(1, _HEADER_BYTES_MAX):
            if at + place >= len(data):
                return 0
            byte = data[at + place]
            length |= (byte & 127) << (7 * (place - 1))
            if byte < 128:
                size = 1 + place + length
                if size > self._max:
                    raise Malformed(0x95, f"a packet of {size} bytes is larger than {self._max}")
                return size
        raise Malformed(0x81, "malformed packet: the remaining length is longer than four bytes")
