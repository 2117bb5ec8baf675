"""What others did wrong, in the gateway's own log: said while it is seldom, counted while it is often.

Used by the daemon, by sources and by responses, where anybody who may publish decides how often a line is due. The
log of events has its own bound (`edge.runtime.requests.refusals`). It must never drop a kind in silence: what was not
said one by one is told by number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge.core.limits import COMPLAINTS_MAX, COMPLAINTS_S

#: Calls back after so many seconds: an event loop's `call_later`.
Later = Callable[[float, Callable[[], None]], object]


class Complaints:
    """The lines of one logger; of each kind COMPLAINTS_MAX in COMPLAINTS_S, then their number."""

    def __init__(self, logger: logging.Logger, later: Later) -> None:
        self._logger, self._later = logger, later
        #: How many of each kind came since its first line.
        self._came: dict[str, int] = {}

    def say(self, kind: str, level: int, message: str, *parts: object) -> None:
        """Log a line, if of this kind (in words, one of a few) there were not too many; else count it."""
        came = self._came.get(kind, 0)
        self._came[kind] = came + 1
        if came == 0:
            self._later(COMPLAINTS_S, lambda: self._over(kind))
        if came < COMPLAINTS_MAX:
            self._logger.log(level, message, *parts)

    def _over(self, kind: str) -> None:
        unsaid = self._came.pop(kind) - COMPLAINTS_MAX
        if unsaid > 0:
            self._logger.warning("%s: %d more in %d s, not said one by one", kind, unsaid, COMPLAINTS_S)
