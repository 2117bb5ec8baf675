"""Asking the box's runtime to seal, by its control socket. Called by the daemon of a box that does not by itself.

One question and its answer, blocking. A runtime that is not there is no trouble: what is sealed already goes on.
"""

from __future__ import annotations

import socket
from typing import Final

from edge.core.errors import Unavailable
from edge.core.frames import FrameBuffer, pack
from edge.core.limits import SEAL_PATIENCE_S
from edge.core.settings import Settings

_RECEIVE_BYTES: Final = 64 * 1024


def seal(settings: Settings) -> str:
    """Have the runtime seal all there is; what is wrong with that, or "". Raises Unavailable where none answers."""
    buffer = FrameBuffer()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way:
            way.settimeout(SEAL_PATIENCE_S)
            way.connect(str(settings.socket_path))
            way.sendall(pack(["hello", "cli"]) + pack(["call", 1, "seal", {}]))
            while data := way.recv(_RECEIVE_BYTES):
                for message in buffer.feed(data):
                    if message[0] == "reply":
                        return str(message[2]["problem"])
                    if message[0] == "error":
                        return str(message[2].get("message", "it was refused"))
    except OSError as error:
        raise Unavailable(f"No runtime serves {settings.data}.") from error
    raise Unavailable("The runtime went away.")
