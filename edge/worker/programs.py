"""The worker's side of its launcher: one program run, as the `shell` tool asks for it.

Used by `edge.worker.hydrate`. A worker without programs has no launcher and refuses.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

from edge.core.errors import ToolFailed, Unavailable
from edge.core.frames import FrameBuffer, pack
from edge.core.values import Ended

_RECEIVE_BYTES = 256 * 1024
#: Set once, by a worker that has a launcher, after it has locked itself in.
_door: socket.socket | None = None


def use(door: socket.socket) -> None:
    """From now on programs are run by way of this socket."""
    global _door
    _door = door


def run_program(argv: Sequence[str], environment: Mapping[str, str], given: bytes, timeout_ms: int) -> Ended:
    """Run a program to its end. Raises ToolFailed `sandbox_unavailable`, Unavailable."""
    if _door is None:
        raise ToolFailed(
            "Programs cannot be run here: this process has no launcher.",
            code="sandbox_unavailable",
            mend="Run it on a box: `edge up`, or as a service.",
        )
    _door.sendall(pack([list(argv), dict(environment), given, timeout_ms]))
    buffer = FrameBuffer()
    while data := _door.recv(_RECEIVE_BYTES):
        for message in buffer.feed(data):
            return Ended(*message)
    raise Unavailable("The worker's launcher is gone.")
