"""Does the log still move? What the watchdog is told of the runtime depends on it.

Called by the daemon twice in each interval of the watchdog. The event loop alone could turn for ever in front of a
thread that hangs in a flush. Pure: it looks at two numbers of the gate's. Must never judge an idle box, nor one whose
drive is merely slow: what is stuck was out at the last look already.
"""

from __future__ import annotations

from typing import Protocol


class Numbers(Protocol):
    """What is looked at; the commit gate has it."""

    durable_seq: int

    @property
    def next_seq(self) -> int:
        """The number that the next event will get."""


class Progress:
    """Called with nothing, says whether anything moved since it was called last, or had no need to."""

    def __init__(self, log: Numbers) -> None:
        self._log = log
        #: What was durable at the last look, where more was on its way then.
        self._waited_above: int | None = None

    def __call__(self) -> bool:
        """False where an event has been on its way since the last look and none became durable in between."""
        durable_seq = self._log.durable_seq
        waiting = self._log.next_seq > durable_seq + 1
        stuck = waiting and self._waited_above == durable_seq
        self._waited_above = durable_seq if waiting else None
        return not stuck
