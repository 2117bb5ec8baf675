"""What a broker's reason codes mean in plain English, and whose fault they are. Pure.

Called by both session implementations. Must never import an MQTT library.
"""

from __future__ import annotations

from typing import Final

from edge.core.errors import EdgeError, Misconfigured, Unavailable

#: Another connection came under the same client id.
TAKEN_OVER: Final = "session taken over"
#: MQTT 5 §2.4, without the ones that only QoS 2 or extended authentication can give.
NAMES = {
    0x00: "success",
    0x01: "granted QoS 1",
    0x10: "no matching subscribers",
    0x11: "no subscription existed",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: TAKEN_OVER,
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}

#: Refusals of CONNECT that the same CONNECT may survive later; every other one needs a change by somebody.
_PASSING = frozenset({0x80, 0x83, 0x88, 0x89, 0x97, 0x9F})

_MENDS = {
    0x84: "The broker must speak MQTT 5; mosquitto does from version 1.6.",
    0x85: "Choose another client_id.",
    0x86: "Check the broker's user name and password.",
    0x87: "Check the credentials or certificate and the broker's access list.",
    0x9A: "Allow retained messages in the broker (mosquitto: retain_available true).",
    0x9B: "The broker must allow QoS 1.",
}


def name(code: int) -> str:
    """The reason code in words, for example `quota exceeded (0x97)`."""
    return f"{NAMES.get(code, 'unknown reason')} (0x{code:02X})"


def connect_refused(where: str, code: int, said: str | None = None) -> EdgeError:
    """The error for a CONNACK with a reason code of 0x80 or above."""
    message = f"The broker at {where} refused the connection: {name(code)}"
    message += f", it said {said!r}." if said else "."
    if code in _PASSING:
        return Unavailable(message)
    return Misconfigured(message, mend=_MENDS.get(code, ""))


def subscribe_refused(where: str, refused: list[tuple[str, int]]) -> EdgeError:
    """The error for a SUBACK that refuses at least one filter."""
    listed = ", ".join(f"{pattern}: {name(code)}" for pattern, code in refused)
    return Misconfigured(
        f"The broker at {where} refused subscriptions ({listed}).",
        mend="Check the topic filters and the broker's access list.",
    )


def only_old_mqtt(where: str) -> EdgeError:
    """The error for a broker that answers an MQTT 5 CONNECT in the form of MQTT 3.1.1."""
    return Misconfigured(f"The broker at {where} does not speak MQTT 5.", mend=_MENDS[0x84])
