"""When it is written down which answers were delivered: with a flush that comes anyway, seldom by one of its own.

Called by the gate before each flush and by the daemon now and then. A flush costs a drive some 4 KiB, and the file
system's own journal up to three times that; of a box that is asked now and then it was a third of the wear. What is
not written down yet is answered a second time after a crash, which the promise of at least one answer allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.runtime.requests.answers import Owed

#: At high load every flush would carry a note otherwise.
ALONG_S: Final = 5.0
#: From then on a note is worth its flush: whoever is asked no more should not answer again after weeks.
ALONE_S: Final = 600.0


class DeliveryNotes:
    """Two moments to note; `note` writes one, `now_s` is any clock that only goes on."""

    def __init__(self, owed: Owed, note: Callable[[], None], now_s: Callable[[], float]) -> None:
        self._owed, self._note, self._now_s = owed, note, now_s
        self._noted_s = now_s() - ALONG_S
        self._unnoted_since_s: float | None = None

    def along(self) -> None:
        """Something is about to be flushed: a note may go with it."""
        if self._owed.changed and self._now_s() - self._noted_s >= ALONG_S:
            self._write()

    def alone(self) -> None:
        """Asked now and then: what waited long enough is noted by itself."""
        if not self._owed.changed:
            self._unnoted_since_s = None
        elif self._unnoted_since_s is None:
            self._unnoted_since_s = self._now_s()
        elif self._now_s() - self._unnoted_since_s >= ALONE_S:
            self._write()

    def _write(self) -> None:
        self._noted_s, self._unnoted_since_s = self._now_s(), None
        self._note()
