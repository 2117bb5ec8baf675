"""The worker's side of its porter: Python's own `socket` asks it to resolve and to connect.

Used by a worker whose step was granted hosts, once, after it has locked itself in. Convenience and clear refusals
only: what is allowed is held by the porter and the filter. Libraries that call the C library's `connect` past
Python's `socket` find it refused.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.worker.porter import MESSAGE_BYTES_MAX

_INET: Final = (socket.AF_INET, socket.AF_INET6)
_MEND: Final = "Add it to the step's spec.policy.access.hosts."


class ResolutionFailed(socket.gaierror):
    """A granted name that could not be resolved: no refusal of the sandbox."""


class Outside:
    """Python's socket functions, by way of the porter."""

    def __init__(self, door: socket.socket) -> None:
        self._door, self._lock = door, threading.Lock()
        self._getaddrinfo = socket.getaddrinfo
        self._connect_ex = socket.socket.connect_ex

    def open(self) -> None:
        """Put these in the place of Python's own, for the rest of this process."""
        outside = self

        def connect(sock: socket.socket, address: Any) -> None:
            code = outside.connect_ex(sock, address)
            if code:
                raise OSError(code, os.strerror(code))

        def connect_ex(sock: socket.socket, address: Any) -> int:
            return outside.connect_ex(sock, address)

        socket.socket.connect = connect  # type: ignore[method-assign, assignment]
        socket.socket.connect_ex = connect_ex  # type: ignore[method-assign, assignment]
        socket.getaddrinfo = self.getaddrinfo
        socket.gethostbyname = self.gethostbyname

    def _ask(self, message: list[Any], sock: socket.socket | None = None) -> list[Any]:
        """One question; raises PermissionError where it is refused, ConnectionError where the porter is gone."""
        with self._lock:
            socket.send_fds(self._door, [encode(message)], [] if sock is None else [sock.fileno()])
            data = self._door.recv(16 * MESSAGE_BYTES_MAX)
        if not data:
            raise ConnectionError("The worker's porter is gone.")
        reply: list[Any] = decode(data)
        if reply[0] is False and reply[1] == 0:
            raise PermissionError(errno.EPERM, f"{reply[2]}. {_MEND}")
        return reply

    def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - its callers name it so
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As `socket.getaddrinfo`, for TCP; numbers need no porter."""
        if isinstance(host, bytes):
            host = host.decode("ascii")
        if host is not None:
            try:
                numeric = flags | socket.AI_NUMERICHOST
                return list(self._getaddrinfo(host, port, family, type or socket.SOCK_STREAM, proto, numeric))
            except socket.gaierror:
                if flags & socket.AI_NUMERICHOST:
                    raise
        number = {"http": 80, "https": 443, None: 0}.get(port, port)
        reply = self._ask(["resolve", str(host), int(number), int(family)])
        if reply[0] is False:
            raise ResolutionFailed(reply[1], reply[2])
        stream, tcp = socket.SOCK_STREAM, socket.IPPROTO_TCP
        return [(socket.AddressFamily(kind), stream, tcp, "", tuple(address)) for kind, address in reply[1]]

    def gethostbyname(self, host: str) -> str:
        """As `socket.gethostbyname`."""
        return str(self.getaddrinfo(host, 0, socket.AF_INET)[0][4][0])

    def connect_ex(self, sock: socket.socket, address: Any) -> int:
        """As `socket.connect_ex`; raises PermissionError where the host is not granted, TimeoutError."""
        if sock.family not in _INET:
            return int(self._connect_ex(sock, address))
        if not isinstance(address, tuple):
            raise TypeError("an address is a tuple of host and port")
        target = self.getaddrinfo(address[0], address[1], sock.family)[0][4]
        timeout_s = sock.gettimeout()
        code = int(self._ask(["connect", [*target[:2], *address[2:4]]], sock)[1])
        try:
            if code == errno.EINPROGRESS and timeout_s != 0:
                poll = select.poll()
                poll.register(sock, select.POLLOUT)
                if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                    raise TimeoutError("timed out")
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        finally:
            if timeout_s is None:
                os.set_blocking(sock.fileno(), True)
        return code
