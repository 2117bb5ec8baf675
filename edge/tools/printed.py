"""What author code prints: a stream that keeps the last bytes and drops the rest.

Used by the `python` kind in place of stdout and stderr. Must never grow: a block that prints megabytes costs
what its last kilobyte costs.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from edge.core.limits import PRINTED_BYTES_MAX

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _TailRaw(io.RawIOBase):
    """A write-only file that remembers its last PRINTED_BYTES_MAX bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = b""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        self.tail = (self.tail + bytes(view[-PRINTED_BYTES_MAX:]))[-PRINTED_BYTES_MAX:]
        return len(view)


class Printed:
    """The tail of what was printed while `captured` was open."""

    def __init__(self) -> None:
        self._raw = _TailRaw()
        # A real text file with a real `.buffer`: libraries expect both.
        self._text = io.TextIOWrapper(
            io.BufferedWriter(self._raw), encoding="utf-8", errors="backslashreplace", newline="\n"
        )

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Both standard streams go here until the block ends, whatever it did to them meanwhile."""
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self._text
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before

    def tail(self) -> str:
        """The last of it, whole characters only."""
        with suppress(ValueError):  # The block closed or detached its stdout: what came through counts.
            self._text.flush()
        return self._raw.tail.decode("utf-8", errors="ignore").strip()
