"""A line that breaks: passes HTTP on between a box and its centre, and cuts it after so many bytes of a body.

What had come before the cut arrives: the line is silent until `taken` returns, and only then closed. It counts the
bytes of bodies that arrived, for each upload, which is what a mobile operator would bill.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable

_PIECE_BYTES = 2_048


class CuttingProxy:
    """On a free port of loopback. `cut_after` says for each body of so many bytes where it breaks, None for never."""

    def __init__(
        self,
        to_port: Callable[[], int],
        cut_after: Callable[[int], int | None],
        taken: Callable[[str, int], None],
    ) -> None:
        self._to_port, self._cut_after, self._taken = to_port, cut_after, taken
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.arrived: Counter[str] = Counter()
        self.cuts = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                box, _ = self._listening.accept()
                self._pass(box)

    def _pass(self, box: socket.socket) -> None:
        """One connection after the other: a box has one."""
        with (
            contextlib.suppress(OSError),
            box,
            socket.create_connection(("127.0.0.1", self._to_port())) as far,
        ):
            back = threading.Thread(target=_copy, args=(far, box), daemon=True)
            back.start()
            self._requests(box, far)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_WR)
            back.join()

    def _requests(self, box: socket.socket, far: socket.socket) -> None:
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                if not (piece := box.recv(_PIECE_BYTES)):
                    return
                waiting += piece
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            far.sendall(head + b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            target, _, query = lines[0].split(" ")[1].partition("?")
            sizes = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")]
            left = sizes[0] if sizes else 0
            cut = self._cut_after(left) if lines[0].startswith("PUT") and left else None
            done = 0
            while left:
                waiting = waiting or box.recv(_PIECE_BYTES)
                if not waiting:
                    return
                piece = waiting[: min(left, cut - done if cut is not None else left)]
                far.sendall(piece)
                self.arrived[target] += len(piece)
                done, left, waiting = done + len(piece), left - len(piece), waiting[len(piece) :]
                if cut is not None and done >= cut:
                    self.cuts += 1
                    self._taken(target, int(query.partition("offset=")[2].partition("&")[0]) + done)
                    return


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
