"""The only door to MQTT: values, a Session Protocol, and a factory that imports one implementation.

Called by the gateway, the firmware bridge and the CLI. Must never import an MQTT library by itself, nor both
implementations in one process that uses one; never imports pyarrow or lmdb.
"""

from __future__ import annotations

from edge.core.errors import Misconfigured
from gateway.mqtt.session import (
    NEVER,
    ONCE,
    REFUSED,
    BrokerAddress,
    Message,
    OnLost,
    OnMessage,
    Session,
    Settings,
    Will,
)

__all__ = [
    "IMPLEMENTATIONS",
    "NEVER",
    "ONCE",
    "REFUSED",
    "BrokerAddress",
    "Message",
    "OnLost",
    "OnMessage",
    "Session",
    "Settings",
    "Will",
    "open_session",
]

#: `paho` is the reference; `codec` does the same for a fraction of the CPU (DESIGN.md has the figures).
IMPLEMENTATIONS = ("paho", "codec")


def open_session(
    implementation: str = "paho",
    *,
    address: BrokerAddress,
    settings: Settings,
    on_message: OnMessage,
    on_lost: OnLost,
) -> Session:
    """A session that is not yet connected; raises Misconfigured for an unknown implementation."""
    if implementation == "paho":
        from gateway.mqtt.paho_session import PahoSession

        return PahoSession(address, settings, on_message=on_message, on_lost=on_lost)
    if implementation == "codec":
        from gateway.mqtt.codec_session import CodecSession

        return CodecSession(address, settings, on_message=on_message, on_lost=on_lost)
    raise Misconfigured(
        f"There is no MQTT implementation named {implementation!r}.",
        mend=f"Choose one of {', '.join(IMPLEMENTATIONS)}.",
    )
