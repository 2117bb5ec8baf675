"""Rows that vouch for each other: what a table of LMDB gives is what was put in, what it does not find is not there.

LMDB has no checksums. A flipped bit may change a row, hide it, or hide a whole page of them; a request id that is
hidden is run again. So each row ends in a checksum over its table, its key, its value and the key of the row after
it. To find a key means to check its row; not to find it means to check the row before: that one names what comes
next. The first row of each table is a mark, so an empty table is told from a lost one.

Used by `edge.store.eventlog` and `edge.store.index_prune` within one transaction; knows nothing of what rows mean.
Must never hand out a row, or its absence, unchecked.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from edge.core.errors import LogDamaged

#: Before every key that there is: keys have eight bytes or are texts.
FIRST: Final = b"\x00"
_CHECK_BYTES: Final = 4
MEND: Final = "Run `edge log recover`: the index is made again from the journal."


def damaged(what: str) -> LogDamaged:
    """The error for an index that does not hold together."""
    return LogDamaged(f"The event log's index is damaged: {what}.", mend=MEND, code=LogDamaged.INDEX)


def sealed(table: str, key: bytes, value: bytes, after: bytes = b"") -> bytes:
    """A value as it is stored: with the checksum over itself, its key, and the key after it where rows are joined."""
    seed = _SEEDS[table] + len(key)
    return value + zlib.crc32(key + value + after, seed).to_bytes(_CHECK_BYTES, "little")


def opened(table: str, key: bytes, stored: bytes, after: bytes = b"") -> bytes:
    """The value that was sealed. Raises LogDamaged where anything is not as it was."""
    value = stored[:-_CHECK_BYTES]
    check = zlib.crc32(key + value + after, _SEEDS[table] + len(key)).to_bytes(_CHECK_BYTES, "little")
    if not stored.endswith(check) or len(stored) < _CHECK_BYTES:
        raise damaged(f"a row of its table `{table}`, or the one after it, is not what was written")
    return value


_SEEDS: Final = {
    name: zlib.crc32(name.encode())
    for name in (
        *("groups", "executions", "requests", "open", "catalog", "circuits", "carried", "blobs", "meta"),
    )
}


def _run(
    table: str, keys: list[bytes], rows: Mapping[bytes, bytes], after: bytes
) -> list[tuple[bytes, bytes]]:
    """Rows that follow one another, sealed: written out, since a call for each would cost as much again."""
    seed, crc32 = _SEEDS[table], zlib.crc32
    made = []
    for key, follow in zip(keys, [*keys[1:], after], strict=True):
        value = rows[key]
        check = crc32(key + value + follow, seed + len(key))
        made.append((key, value + check.to_bytes(_CHECK_BYTES, "little")))
    return made


class Rows:
    """The tables of one transaction of LMDB. `joined` False: an index of an earlier release, which is only read."""

    def __init__(self, txn: Any, db: dict[str, Any], *, joined: bool = True) -> None:
        self.txn, self.db = txn, db
        self._joined = joined
        self._cursors: dict[str, Any] = {}

    def close(self) -> None:
        """Let go of the cursors; before the transaction ends."""
        for cursor in self._cursors.values():
            cursor.close()

    def _cursor(self, table: str) -> Any:
        found = self._cursors.get(table)
        if found is None:
            found = self._cursors[table] = self.txn.cursor(db=self.db[table])
        return found

    def begin(self) -> None:
        """Give every table its mark, and let go of what is in it."""
        for table, db in self.db.items():
            self.txn.drop(db, delete=False)
            if table != "groups":
                self.txn.put(FIRST, sealed(table, FIRST, b""), db=db)

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key; None where it is surely not there. Raises LogDamaged."""
        if not self._joined:
            stored = self.txn.get(key, db=self.db[table]) if table in self.db else None
            return None if stored is None else bytes(stored)
        cursor = self._cursor(table)
        found = cursor.set_range(key)
        after = cursor.key() if found else b""
        if after == key:
            stored = cursor.value()
            return opened(table, key, stored, cursor.key() if cursor.next() else b"")
        self._before(table, cursor, after)
        return None

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Put one row, over one that is there. Raises LogDamaged."""
        self.put_all(table, {key: value})

    def put_all(self, table: str, rows: Mapping[bytes, bytes]) -> None:
        """Put rows, over those that are there. Those that fall between the same two cost one look-up together."""
        cursor = self._cursor(table)
        keys = sorted(rows)
        at = 0
        while at < len(keys):
            key = keys[at]
            after = cursor.key() if cursor.set_range(key) else b""
            if after == key:
                stored = cursor.value()
                after = cursor.key() if cursor.next() else b""
                opened(table, key, stored, after)
                cursor.put(key, sealed(table, key, rows[key], after))
                at += 1
                continue
            before, value = self._before(table, cursor, after)
            end = bisect_left(keys, after, at) if after else len(keys)
            cursor.put(before, sealed(table, before, value, key))
            if end == at + 1:
                cursor.put(key, sealed(table, key, rows[key], after))
            else:
                cursor.putmulti(_run(table, keys[at:end], rows, after))
            at = end

    def delete(self, table: str, key: bytes) -> bool:
        """Take a row out; False where it is surely not there. Raises LogDamaged."""
        if self.get(table, key) is None:
            return False
        cursor = self._cursor(table)
        cursor.set_key(key)
        after = cursor.key() if cursor.next() else b""
        cursor.set_key(key)
        before, value = self._before(table, cursor, key)
        cursor.put(before, sealed(table, before, value, after))
        self.txn.delete(key, db=self.db[table])
        return True

    def _before(self, table: str, cursor: Any, after: bytes) -> tuple[bytes, bytes]:
        """The row before where the cursor is (at `after`, or behind the last row where that is empty), checked."""
        if not (cursor.prev() if after else cursor.last()):
            self._no_mark(table)
        key, stored = cursor.key(), cursor.value()
        return key, opened(table, key, stored, after)

    def scan(self, table: str, start: bytes = FIRST) -> Iterator[tuple[bytes, bytes]]:
        """Rows from a key on, in order, each checked, and that none before the first of them is missing."""
        if table not in self.db:
            return
        with self.txn.cursor(db=self.db[table]) as cursor:
            more = cursor.set_range(start)
            if self._joined and (cursor.key() if more else b"") != start:
                self._before(table, cursor, cursor.key() if more else b"")
                more = cursor.set_range(start)
            while more:
                key, stored = cursor.key(), cursor.value()
                more = cursor.next()
                value = opened(table, key, stored, cursor.key() if more else b"") if self._joined else stored
                if key != FIRST:
                    yield key, value

    def scan_back(self, table: str, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows below a key, the highest first, each checked."""
        with self.txn.cursor(db=self.db[table]) as cursor:
            after = cursor.key() if cursor.set_range(end) else b""
            while True:
                key, value = self._before(table, cursor, after)
                if key == FIRST:
                    return
                yield key, value
                after = key

    def _no_mark(self, table: str) -> NoReturn:
        raise damaged(f"its table `{table}` has lost its first row")
