"""What a daemon logs, on its standard error: for people as it is, for systemd's journal with each line's priority.

Called once by the entry of a daemon. The journal takes `<3>` at a line's start for its priority (sd-daemon(3)), so
that `journalctl -p warning` finds what it should; nobody else is shown that. Must never open a file or a socket.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final

#: systemd says here which file its journal reads from; where standard error was led elsewhere it is another one.
_JOURNAL_STREAM: Final = "JOURNAL_STREAM"
#: Lowest level of each of syslog's priorities, highest first (RFC 5424 §6.2.1).
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7


class Prioritised(logging.Formatter):
    """Each line of a record with its priority: a traceback has many, and each is one entry of the journal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text, ready for the journal."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def journal_reads(fd: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the journal reads what is written to `fd`."""
    said = environment.get(_JOURNAL_STREAM)
    if not said:
        return False
    found = os.fstat(fd)
    return said == f"{found.st_dev}:{found.st_ino}"


def log_as(name: str, level: str) -> None:
    """Have everything from `level` up ("info", "warning", …) logged as `name: LEVEL message`."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = Prioritised if journal_reads(sys.stderr.fileno()) else logging.Formatter
    handler.setFormatter(formatter(f"{name}: %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
