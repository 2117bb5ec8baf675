"""The runtime's C heap: one for all threads, and given back to the system when a burst of work is over.

Called by `__main__` (once) and by the daemon. Knows glibc and nothing else of the runtime. A burst of requests leaves
a heap with holes: 2.3 of 26 MB went back after 20,000 executions at 256 in flight.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

#: malloc.h
_M_ARENA_MAX: Final = -8
#: So much later than the last work: a burst with pauses is still one.
_QUIET_S: Final = 0.25
#: Fewer events than this leave no holes worth the millisecond it takes.
_EVENTS_MIN: Final = 1_000

_libc: Final = ctypes.CDLL(None)


def one_heap() -> None:
    """Keep glibc from giving each thread a heap of its own: three threads that run system calls need none."""
    _libc.mallopt(_M_ARENA_MAX, 1)


class Trimmer:
    """Gives free memory back once nothing has been open for a moment. `later(seconds, call)` is the loop's."""

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], Any],
        last_seq: Callable[[], int],
        is_idle: Callable[[], bool],
        let_go: Callable[[], object] = lambda: None,
        trim: Callable[[], object] = lambda: _libc.malloc_trim(0),
    ) -> None:
        """`let_go` gives back what is no heap of ours."""
        self._later, self._last_seq, self._is_idle = later, last_seq, is_idle
        self._let_go, self._trim = let_go, trim
        self._trimmed_seq = last_seq()
        self._seen_seq = 0
        self._waiting = False

    def quiet(self) -> None:
        """Nothing is open just now."""
        self._seen_seq = self._last_seq()
        if not self._waiting and self._seen_seq - self._trimmed_seq >= _EVENTS_MIN:
            self._waiting = True
            self._later(_QUIET_S, self._look)

    def _look(self) -> None:
        self._waiting = False
        if not self._is_idle():
            return  # the next quiet moment comes by here again
        if self._last_seq() != self._seen_seq:
            self.quiet()
            return
        self._trimmed_seq = self._seen_seq
        self._trim()
        self._let_go()
