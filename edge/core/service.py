"""This process as a service: what systemd (or whoever started it) is told of it, by sd_notify(3).

Owned by the top of a daemon: ready, how it goes, still alive, stopping. Datagrams to the socket that `NOTIFY_SOCKET`
names, and nothing at all where it names none. Must never hold the daemon up: who does not listen is not waited for.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, MutableMapping
from typing import Final, Protocol

logger = logging.getLogger(__name__)

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG_US: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
#: A full queue at the other end is waited for this long; systemd reads it within milliseconds.
_SEND_S: Final = 1.0
_STATUS_CHARS_MAX: Final = 200
#: A line break in a status would begin another assignment: what a broker says must not be taken for what we say.
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")


class CallLater(Protocol):
    """An event loop's `call_later`."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call back once, after `delay` seconds."""


class Service:
    """What is said to who started this process. `watchdog_s` is 0 where nobody wants to hear that it lives."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address, self.watchdog_s = address, watchdog_s
        self._ready = self._stopping = False
        self._last = ""

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Service:
        """As the environment says; its variables are taken out, for they are meant for no child of ours."""
        address = environment.pop(_SOCKET, "")
        microseconds = environment.pop(_WATCHDOG_US, "")
        pid = environment.pop(_WATCHDOG_PID, "")
        watched = microseconds.isascii() and microseconds.isdecimal() and pid in ("", str(os.getpid()))
        known = len(address) > 1 and address[0] in "/@"
        return cls(address if known else "", int(microseconds) / 1e6 if watched and known else 0.0)

    def ready(self, status: str) -> None:
        """It serves, or as much of that as is its own to do; from the second time on only a new status is said."""
        if not self._ready and not self._stopping:
            self._ready = True
            self._last = ""
            self._say("READY=1")
        self.status(status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same line is said once."""
        if text != self._last and not self._stopping:
            self._last = text
            self._say(f"STATUS={_CONTROLS.sub(' ', text)[:_STATUS_CHARS_MAX]}")

    def stopping(self) -> None:
        """It was told to stop and is tidying up; nothing is said after this but that it lives."""
        self.status("stopping")
        self._stopping = True
        self._say("STOPPING=1")

    def watch(self, call_later: CallLater, progresses: Callable[[], bool] = lambda: True) -> None:
        """Say that it lives, twice in each interval, from the loop that does the work: one that hangs says nothing.

        `progresses` is asked each time; while it says no, nothing is sent, and systemd starts the process anew.
        """
        if self.watchdog_s <= 0:
            return
        if progresses():
            self._say("WATCHDOG=1")
        else:
            logger.error("nothing moves any more; the watchdog is not told that all is well")
        call_later(self.watchdog_s / 2, lambda: self.watch(call_later, progresses))

    def _say(self, line: str) -> None:
        if not self._address:
            return
        # A name in the abstract namespace begins with a zero, which the environment cannot hold.
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
                way.settimeout(_SEND_S)
                way.sendto(line.encode("utf-8", "replace"), address)
        except OSError as error:
            logger.warning("%s could not be told %s: %s", self._address, line, error)
