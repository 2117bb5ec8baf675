"""How far a long command is: one line that is written over, with rate and time left; nothing where nobody looks.

Used by commands that move many bytes. It writes to standard error only, where that is a terminal, and must never be
what a result depends on.
"""

from __future__ import annotations

import sys
import time
from typing import Final, Self

_BAR: Final = 30
_PER_S: Final = 10


class Progress:
    """A bar on standard error, inside a `with`. Call it with what was done since the last call."""

    def __init__(self, total_bytes: int, label: str) -> None:
        self._total_bytes, self._label = max(1, total_bytes), label
        self._done_bytes = 0
        self._began_s = self._shown_s = time.monotonic()
        self._seen = sys.stderr.isatty()

    def __call__(self, size_bytes: int) -> None:
        """So many bytes more."""
        self._done_bytes += size_bytes
        now_s = time.monotonic()
        if self._seen and now_s - self._shown_s >= 1 / _PER_S:
            self._shown_s = now_s
            self._show(now_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The last state, and an end of the line: what is said next has a line of its own."""
        if self._seen and self._done_bytes:
            self._show(time.monotonic())
            print(file=sys.stderr)

    def _show(self, now_s: float) -> None:
        share = min(1.0, self._done_bytes / self._total_bytes)
        rate = self._done_bytes / max(now_s - self._began_s, 1e-6)
        left_s = (self._total_bytes - self._done_bytes) / rate if rate else 0.0
        bar = "#" * round(share * _BAR)
        line = f"\r{self._label} [{bar:<{_BAR}}] {share:4.0%} {rate / 1e6:6.1f} MB/s {max(0, left_s):4.0f} s left "
        print(line, end="", file=sys.stderr, flush=True)
