"""The command line's connection to a running runtime: one blocking socket, one question at a time.

Used by every command that asks instead of reading files. It never opens the log itself.
"""

from __future__ import annotations

import socket
from typing import Any, Final, Self

from edge.core.errors import RequestRefused, Unavailable, not_allowed
from edge.core.frames import FrameBuffer, pack
from edge.core.settings import Settings

_RECEIVE_BYTES: Final = 256 * 1024


class RemoteProblem(RequestRefused):
    """The runtime refused; its problem document says why."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(
            str(problem.get("message", "")),
            mend=str(problem.get("mend", "")),
            code=str(problem.get("code", "refused")),
        )


class NoAnswerInTime(Unavailable):
    """The runtime is there and has not answered within the time it was given."""


class RuntimeClient:
    """A connection to the runtime of one data folder; a context manager."""

    def __init__(self, settings: Settings, timeout_s: float = 30.0) -> None:
        """Raises Unavailable where no runtime listens, Misconfigured where this user may not ask it."""
        self._settings = settings
        self._buffer = FrameBuffer()
        self._messages: list[list[Any]] = []
        self._token = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(settings.socket_path))
        except PermissionError as error:
            self._socket.close()
            raise not_allowed(settings.socket_path) from error
        except OSError as error:
            self._socket.close()
            raise Unavailable(
                f"No runtime serves {settings.data}.",
                mend="Start one with `edge up`, or name its folder with --data.",
            ) from error
        try:
            self._send(["hello", "cli"])
            _, self.box, self.log_id = self._wait("welcome")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, operation: str, **arguments: Any) -> Any:
        """Ask one thing. Raises RemoteProblem where it is refused, Unavailable where the runtime goes away."""
        self._token += 1
        self._send(["call", self._token, operation, arguments])
        kind, _, value = self._wait("reply", "error")
        if kind == "error":
            raise RemoteProblem(value)
        return value

    def submit(self, playbook: str, payload: bytes, content_type: str, request_id: str | None) -> str:
        """Submit a local request, no broker: its execution id once it is durable. Raises RemoteProblem."""
        self._token += 1
        fields = [playbook, "local", request_id, "local", None, None, content_type, True, None, None, payload]
        self._send(["submit", self._token, *fields])
        message = self._wait("accepted", "refused")
        if message[0] == "refused":
            raise RemoteProblem(message[2])
        return str(message[2])

    def answer(self) -> tuple[str, str, bytes]:
        """Wait for the answer to a local request: `(status, content type, payload)`."""
        message = self._wait("answer")
        return message[8], message[9], message[10]

    def _send(self, message: list[Any]) -> None:
        try:
            self._socket.sendall(pack(message))
        except OSError as error:
            raise self._gone() from error

    def _wait(self, *kinds: str) -> list[Any]:
        while True:
            for index, message in enumerate(self._messages):
                if message[0] in kinds:
                    return self._messages.pop(index)
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise NoAnswerInTime(
                    "The runtime did not answer in time.", mend="`edge show` tells how far it is."
                ) from error
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self._messages += self._buffer.feed(data)

    def _gone(self) -> Unavailable:
        return Unavailable(
            "The runtime went away.", mend="Ask again once it is back; what was accepted is safe."
        )
