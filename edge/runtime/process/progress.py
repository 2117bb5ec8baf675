"""Does the log still move? What the watchdog is told of the runtime depends on it.

Called by the daemon twice in each interval of the watchdog. The event loop alone could turn for ever in front of a
thread that hangs in a flush. Pure: the gate's two numbers are handed in. Must never judge an idle box, nor one whose
drive is merely slow: what is stuck was out at the last look already.
"""

from __future__ import annotations

from collections.abc import Callable


class Progress:
    """Called with nothing, says whether anything moved since it was called last, or had no need to."""

    def __init__(self, next_seq: Callable[[], int], durable_seq: Callable[[], int]) -> None:
        self._next_seq, self._durable_seq = next_seq, durable_seq
        #: What was durable at the last look, where more was on its way then.
        self._waited_above: int | None = None

    def __call__(self) -> bool:
        """False where an event has been on its way since the last look and none became durable in between."""
        durable_seq = self._durable_seq()
        waiting = self._next_seq() > durable_seq + 1
        stuck = waiting and self._waited_above == durable_seq
        self._waited_above = durable_seq if waiting else None
        return not stuck
