"""What to say to a client that does not open with MQTT 5. Pure.

Called by `connection` when the first packet cannot be read. Must never need more than the first bytes.
"""

from __future__ import annotations

from edge.core.records import record

#: As many first bytes as it takes to see the protocol's name and level.
OPENING_BYTES = 16


@record
class Refusal:
    """Bytes for the client and a line for the log."""

    answer: bytes
    text: str


def refusal_of(opening: bytes) -> Refusal | None:
    """The refusal of a CONNECT of another protocol version, or None where `opening` is no such thing."""
    if not opening or opening[0] != 0x10:
        return None
    at = 1
    while at < min(len(opening), 5) and opening[at] & 0x80:
        at += 1
    at += 1
    name_bytes = int.from_bytes(opening[at : at + 2], "big")
    name, level = opening[at + 2 : at + 2 + name_bytes], opening[at + 2 + name_bytes :][:1]
    if name not in (b"MQTT", b"MQIsdp") or not level:
        return None
    if level == b"\x05":
        return None
    if level[0] in (3, 4):
        version = "3.1.1" if level[0] == 4 else "3.1"
        # MQTT 3.1.1 §3.2.2.3, return code 1; in its own form, so that the client can say what is wrong.
        return Refusal(b"\x20\x02\x00\x01", f"a client speaks MQTT {version}; this broker speaks only MQTT 5")
    # MQTT 5 §3.1.2.2: reason code 0x84, unsupported protocol version.
    return Refusal(
        b"\x20\x03\x00\x84\x00", f"a client speaks MQTT level {level[0]}; this broker speaks MQTT 5"
    )
