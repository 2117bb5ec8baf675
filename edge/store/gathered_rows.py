"""The rows of one commit of the index, gathered before they are put: what goes to the same place is put in one go.

Called by `edge.store.eventlog`. Must be flushed before the transaction ends, and before its tables are read.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge.store.index_rows import key_of
from edge.store.joined_rows import Rows


class Gathered:
    """Rows of the groups of one commit, by table: put together, they cost one look-up for each place they go to."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.tables: dict[str, dict[bytes, bytes]] = {}
        #: Of the first group; what began before it may be open in the table.
        self.first_seq = 0
        self._ended: list[bytes] = []

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """One row."""
        self.tables.setdefault(table, {})[key] = value

    def end(self, execution: int) -> None:
        """An execution is not open any more: most begin and end within one commit, and are never put."""
        key = key_of(execution)
        gathered = self.tables.get("open", {}).pop(key, None)
        if gathered is None or execution < self.first_seq:
            self._ended.append(key)

    def flush(self) -> None:
        """Put all of it."""
        for table, gathered in self.tables.items():
            self._rows.put_all(table, gathered)
        self.tables.clear()
        for key in self._ended:
            self._rows.delete("open", key)
        self._ended.clear()


def keys_of_events(rows: Rows, execution: int, first: int = 0) -> Iterator[bytes]:
    """The keys of an execution's events, from event `first` on."""
    prefix = key_of(execution)
    for key, _ in rows.scan("executions", key_of(execution, first)):
        if key[:8] != prefix:
            return
        yield key
