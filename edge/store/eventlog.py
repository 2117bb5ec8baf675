"""The event log's second home: LMDB, for looking up by sequence, by execution and by request id.

The only module that imports lmdb, and the runtime is the only process that opens it while it runs. One thread
(the index thread) writes; reads come from the runtime's loop through short read transactions. Default sync
mode, never WRITEMAP, NOSYNC or MAPASYNC: those lose or corrupt in 94 % of simulated power cuts (research/
reliability_security §4). Never opened before a fork: py-lmdb refuses an inherited environment.

It never holds an event that the journal has not flushed, and it is behind the journal by up to
INDEX_EVENTS_PER_COMMIT events: each commit costs the drive some 29 KB whatever is in it.

Tables (keys big-endian, so that they sort by time):
  groups      first sequence number          → epoch key ‖ the group's bytes, as in the journal
  executions  request seq ‖ event seq        → nothing; also subscription ‖ event seq, its batches' requests too
  requests    digest of (principal, id)      → request seq ‖ digest of the payload
  open        request seq of what is running → nothing
  catalog     blueprint digest               → seq of the event that holds it
  circuits    name of a downstream           → seq of its latest event
  carried     seq of an event whose place was pruned → seq of the event that carries it
  blobs       digest ‖ seq                   → nothing: what event needs which blob
  meta        "last" → seq ‖ link, "delivered" → watermark, "log" → log id, "position" ‖ subscription → seq,
              "pruned" → seq ‖ link, "boot" ‖ seq → clock ‖ boot id, "blobs" → seq from which blobs are noted
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from edge.core.carried import held_by
from edge.core.chain import EPOCH_KEY_BYTES, GENESIS, Context, OpenedGroup, open_group
from edge.core.errors import LogDamaged, Misconfigured, StorageFailed
from edge.core.events import Event, ExecutionRequested
from edge.core.limits import INDEX_MAP_BYTES, KIB
from edge.store import mapped_pages
from edge.store.index_rows import IndexedGroup, key_of, payload_mark, position_key, request_key, rows_of

_TABLES: Final = (
    *(b"groups", b"executions", b"requests", b"open", b"catalog", b"circuits", b"carried", b"blobs", b"meta"),
)
#: Those that an index of an earlier release lacks until a runtime opens it: whoever only reads does without.
_LATER_TABLES: Final = (b"circuits", b"carried", b"blobs")
_MEND: Final = "Run `edge log recover`: it is made again from the journal."

#: What LMDB says where a page is not what it should be. It has no checksums: most damage it does not notice.
_DAMAGE: Final = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PanicError, lmdb.BadTxnError)


class EventLog:
    """The open LMDB environment."""

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        """Open or start the store. Raises StorageFailed, LogDamaged."""
        if not readonly:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        try:
            self._env = lmdb.open(
                str(folder),
                map_size=INDEX_MAP_BYTES,
                max_dbs=len(_TABLES),
                max_readers=16,
                readonly=readonly,
                create=not readonly,
                mode=0o640,
                metasync=True,
                sync=True,
                writemap=False,
            )
            self._env.reader_check()
            self._db: dict[str, Any] = {}
            for name in _TABLES:
                try:
                    self._db[name.decode()] = self._env.open_db(name, create=not readonly)
                except lmdb.NotFoundError:
                    if name not in _LATER_TABLES:
                        raise
            if not readonly:
                self._note_from_where()
            self.last()
        except _DAMAGE as error:
            raise _damaged(error) from error
        except lmdb.Error as error:
            if isinstance(error, lmdb.ReadonlyError) or "ermission denied" in str(error):
                raise Misconfigured(
                    f"The index in {folder} may not be used by this user.",
                    mend="Give the data folder to the user who runs the box.",
                ) from error
            raise StorageFailed(f"The event log's index in {folder} cannot be opened: {error}.") from error
        #: As in `edge.store.blobs`.
        self.make_room: Callable[[int], bool] = lambda size_bytes: False
        self._data_path = folder / "data.mdb"
        self._address = mapped_pages.find_mapping(self._data_path)

    def _note_from_where(self) -> None:
        """An index of an earlier release did not note which blobs its events need: it does from its end on."""
        with self._env.begin(write=True) as txn:
            if txn.get(b"blobs", db=self._db["meta"]) is None:
                last = txn.get(b"last", db=self._db["meta"])
                txn.put(
                    b"blobs",
                    key_of(1 + int.from_bytes(last[:8] if last else b"", "big")),
                    db=self._db["meta"],
                )

    @staticmethod
    def there(folder: Path) -> bool:
        """Whether a folder holds an index that something was written to."""
        path = folder / "data.mdb"
        if not path.exists():
            return False
        try:
            log = EventLog(folder, readonly=True)
        except StorageFailed:  # its tables were never made
            return False
        try:
            return log.last()[0] > 0
        finally:
            log.close()

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """A read transaction: what LMDB raises over a page that is damaged is damage of the log."""
        try:
            with self._env.begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise LogDamaged(
                f"The index cannot be read: {error}.", mend=_MEND, code=LogDamaged.INDEX
            ) from error

    def last(self) -> tuple[int, bytes]:
        """Sequence number and link of the last event in here; (0, GENESIS) when empty."""
        with self._reading() as txn:
            value = txn.get(b"last", db=self._db["meta"])
        return (int.from_bytes(value[:8], "big"), value[8:]) if value else (0, GENESIS)

    def log_id(self) -> bytes | None:
        """The id of the log that this index belongs to, None when empty."""
        with self._reading() as txn:
            value = txn.get(b"log", db=self._db["meta"])
            return bytes(value) if value else None

    def delivered(self) -> tuple[int, frozenset[int]]:
        """The watermark of answers the broker has: `(through, executions below it still owed)`."""
        with self._reading() as txn:
            value = txn.get(b"delivered", db=self._db["meta"]) or b""
        numbers = [int.from_bytes(value[i : i + 8], "big") for i in range(0, len(value), 8)]
        return (numbers[0], frozenset(numbers[1:])) if numbers else (0, frozenset())

    def commit(self, groups: Iterable[IndexedGroup], log_id: bytes) -> None:
        """Put durable groups in, in one transaction; index thread only. StorageFailed, LogDamaged."""
        groups = list(groups)
        try:
            self._commit(groups, log_id)
        except StorageFailed:  # nothing of it was done
            if not self.make_room(sum(len(group.data) for group in groups)):
                raise
            self._commit(groups, log_id)

    def _commit(self, groups: list[IndexedGroup], log_id: bytes) -> None:
        with self.writing() as (txn, _):
            txn.put(b"log", log_id, db=self._db["meta"])
            for group in groups:
                self._put_group(txn, group)
                last = key_of(group.last_seq) + group.last_link
                txn.put(b"last", last, db=self._db["meta"])
        if self._address is not None:
            mapped_pages.release(self._address, self._data_path.stat().st_size)

    @contextmanager
    def writing(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """A write transaction and the tables, for `edge.store.index_prune` too; index thread only.

        Raises StorageFailed, LogDamaged; then nothing of it is done.
        """
        try:
            with self._env.begin(write=True) as txn:
                yield txn, self._db
        except _DAMAGE as error:
            raise _damaged(error) from error
        except lmdb.Error as error:
            raise StorageFailed(self._not_written(error)) from error

    @contextmanager
    def reading(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """A read transaction and the tables, for `edge.store.index_prune`. Raises LogDamaged."""
        with self._reading() as txn:
            yield txn, self._db

    def _not_written(self, error: lmdb.Error) -> str:
        """LMDB says "Input/output error" of a drive that is full, too: the room that is left tells them apart."""
        stat = os.statvfs(self._data_path.parent)
        left_kb = stat.f_bavail * stat.f_frsize // KIB
        return f"The event log's index could not be written: {error}. The drive has {left_kb} KB left."

    def _put_group(self, txn: Any, group: IndexedGroup) -> None:
        if not txn.put(
            key_of(group.first_seq), group.epoch_key + group.data, db=self._db["groups"], append=True
        ):
            raise LogDamaged(f"The index holds event {group.first_seq} or a later one already.")
        rows = rows_of(group)
        for execution in rows.cleared:
            self._clear(txn, execution)
        # Whole lists in one call each: a call for every row cost a fifth of the runtime's CPU under load.
        for table, pairs in rows.tables():
            with txn.cursor(db=self._db[table]) as cursor:
                cursor.putmulti(pairs)
        for execution in rows.ended:
            txn.delete(key_of(execution), db=self._db["open"])

    def _clear(self, txn: Any, execution: int) -> None:
        """Forget which events an execution had: what is kept of it comes in their place."""
        with txn.cursor(db=self._db["executions"]) as cursor:
            more = cursor.set_range(key_of(execution))
            while more and cursor.key()[:8] == key_of(execution):
                more = cursor.delete()

    def find_request(self, key: bytes) -> tuple[int, bytes] | None:
        """Execution and payload mark recorded under a request key."""
        with self._reading() as txn:
            value = txn.get(key, db=self._db["requests"])
            if not value:
                return None
            seq, mark = int.from_bytes(value[:8], "big"), bytes(value[8:])
            _, event = self._located(txn, seq)
            body, known = held_by(event)[0].body, getattr(event.body, "mark", None)
        if (
            not isinstance(body, ExecutionRequested)
            or request_key(body.principal, body.request_id or "") != key
            or (payload_mark(body) if known is None else known) != mark
        ):
            raise LogDamaged(f"The index names event {seq} for a request that is not there.", mend=_MEND)
        return seq, mark

    def open_executions(self) -> list[int]:
        """Executions without an end, oldest first."""
        with self._reading() as txn, txn.cursor(db=self._db["open"]) as cursor:
            return [int.from_bytes(key, "big") for key in cursor.iternext(keys=True, values=False)]

    def catalog(self) -> list[int]:
        """Sequence numbers of all `catalog.registered` events, oldest first."""
        with self._reading() as txn, txn.cursor(db=self._db["catalog"]) as cursor:
            return sorted(int.from_bytes(value, "big") for value in cursor.iternext(keys=False, values=True))

    def circuits(self) -> list[Event]:
        """The latest event of each downstream that has a circuit breaker."""
        if "circuits" not in self._db:
            return []
        with self._reading() as txn, txn.cursor(db=self._db["circuits"]) as cursor:
            seqs = [int.from_bytes(value, "big") for value in cursor.iternext(keys=False, values=True)]
            return [self._event(txn, seq) for seq in seqs]

    def events_of(self, execution: int, first: int = 0, last: int = 2**63) -> list[Event]:
        """All events of one execution from `first` to `last` that are in here, oldest first. Raises LogDamaged.

        Of a subscription also the requests of its batches.
        """
        prefix = key_of(execution)
        found: list[Event] = []
        group: OpenedGroup | None = None
        with self._reading() as txn, txn.cursor(db=self._db["executions"]) as cursor:
            more = cursor.set_range(key_of(execution, first))
            while more and cursor.key()[:8] == prefix:
                seq = int.from_bytes(cursor.key()[8:], "big")
                if seq > last:
                    break
                # Neighbours mostly share a group: opening it anew for each took seconds for a long execution. Others'
                # events in it are not decoded: thousands of executions that wait share their groups.
                group, event = self._located(txn, seq, group)
                found += (event,) if event.seq == seq else held_by(event)
                more = cursor.next()
        return found

    def newest_of(self, execution: int, count: int) -> int:
        """The number of the `count`th newest event of a subscription; of its first where it has fewer."""
        seq = 0
        with self._reading() as txn, txn.cursor(db=self._db["executions"]) as cursor:
            more = self._before(cursor, execution + 1) if count else False
            while more and count and int.from_bytes(cursor.key()[:8], "big") == execution:
                seq = int.from_bytes(cursor.key()[8:], "big")
                count -= 1
                more = cursor.prev()
        return seq

    def position(self, subscription: int) -> int:
        """The number of the newest event that notes how far a subscription came; 0 where there is none."""
        with self._reading() as txn:
            return int.from_bytes(txn.get(position_key(subscription), db=self._db["meta"]) or b"", "big")

    def event(self, seq: int) -> Event:
        """One event by its number. Raises LogDamaged where it is not in here."""
        with self._reading() as txn:
            return self._event(txn, seq)

    def raw(self, seq: int) -> Event:
        """The event that stands under a number in the log itself, a copy as the copy it is. Raises LogDamaged."""
        with self._reading() as txn:
            group = self._group_holding(txn, seq)
        if group is None:
            raise LogDamaged(f"Event {seq} is not in the index.")
        return group.event(seq)

    def context_of(self, seq: int) -> Context:
        """What is constant over the group of an event. Raises LogDamaged where it is not in here."""
        with self._reading() as txn:
            group, event = self._located(txn, seq)
        return group.context if event.seq == seq else Context.decode(event.body.context)  # type: ignore[attr-defined]

    def _event(self, txn: Any, seq: int) -> Event:
        _, event = self._located(txn, seq)
        return event if event.seq == seq else held_by(event)[0]

    def _located(self, txn: Any, seq: int, near: OpenedGroup | None = None) -> tuple[OpenedGroup, Event]:
        """The event of that number, or the one that carries it, with its group. Raises LogDamaged.

        `near` is a group that was opened before: it is looked into first.
        """
        # A copy goes before its original: what is kept of an execution that ended stands for all of it.
        place = txn.get(key_of(seq), db=self._db["carried"]) if "carried" in self._db else None
        seq = int.from_bytes(place, "big") if place else seq
        group = near if near is not None and near.holds(seq) else self._group_holding(txn, seq)
        if group is None:
            raise LogDamaged(f"Event {seq} is not in the index.")
        return group, group.event(seq)

    def _group_holding(self, txn: Any, seq: int) -> OpenedGroup | None:
        with txn.cursor(db=self._db["groups"]) as cursor:
            if not (cursor.set_key(key_of(seq)) or self._before(cursor, seq)):
                return None
            first = int.from_bytes(cursor.key(), "big")
            value = bytes(cursor.value())
            group = open_group(first, value[EPOCH_KEY_BYTES:])
            if group.last_seq < seq:
                return None
            link = group.check(group.previous, value[:EPOCH_KEY_BYTES])
            if link != self._link_after(txn, cursor, group.last_seq, link):
                raise LogDamaged(
                    f"The index has damaged events from {first} to {group.last_seq}: they do not join what follows.",
                    mend=_MEND,
                )
            return group

    def _link_after(self, txn: Any, cursor: Any, seq: int, unknown: bytes) -> bytes:
        """What the log says elsewhere about the link after event `seq`; `unknown` where the next event is lost.

        LMDB has no checksums: a flipped bit in a group is noticed here or nowhere.
        """
        if not cursor.next():
            return bytes(txn.get(b"last", db=self._db["meta"])[8:])
        first = int.from_bytes(cursor.key(), "big")
        previous = open_group(first, bytes(cursor.value()[EPOCH_KEY_BYTES:])).previous
        return previous if first == seq + 1 else unknown

    @staticmethod
    def _before(cursor: Any, seq: int) -> bool:
        return bool(cursor.prev() if cursor.set_range(key_of(seq)) else cursor.last())

    def groups(
        self, after_seq: int = 0, count_max: int = 2**62
    ) -> Iterator[tuple[bytes, OpenedGroup, bytes]]:
        """Groups that end above `after_seq`: `(epoch key, group, its bytes)`, oldest first. Raises LogDamaged."""
        with self._reading() as txn, txn.cursor(db=self._db["groups"]) as cursor:
            more = self._before(cursor, after_seq + 1) or cursor.first()
            while more and count_max > 0:
                value = bytes(cursor.value())
                data = value[EPOCH_KEY_BYTES:]
                group = open_group(int.from_bytes(cursor.key(), "big"), data)
                if group.last_seq > after_seq:
                    count_max -= 1
                    yield value[:EPOCH_KEY_BYTES], group, data
                more = cursor.next()

    def read_all(self) -> int:
        """Read every entry of every table, so that no damaged page stays unseen; how many there are. LogDamaged."""
        with self._reading() as txn:
            return sum(sum(1 for _ in txn.cursor(db=table)) for table in self._db.values())

    def reclaim_readers(self) -> int:
        """Free reader slots of dead processes; a stuck one keeps every page since alive."""
        return int(self._env.reader_check())

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


def _damaged(error: lmdb.Error) -> LogDamaged:
    return LogDamaged(f"The event log's index is damaged: {error}.", mend=_MEND, code=LogDamaged.INDEX)
