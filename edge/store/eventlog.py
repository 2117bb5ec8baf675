"""The event log's second home: LMDB, for looking up by sequence, by execution and by request id.

The only module that imports lmdb, and the runtime is the only process that opens it while it runs. One thread
(the index thread) writes; reads come from the runtime's loop through short read transactions. Default sync
mode, never WRITEMAP, NOSYNC or MAPASYNC: those lose or corrupt in 94 % of simulated power cuts (research/
reliability_security §4). Never opened before a fork: py-lmdb refuses an inherited environment.

It never holds an event that the journal has not flushed, and it is behind the journal by up to
INDEX_EVENTS_PER_COMMIT events: each commit costs the drive some 29 KB whatever is in it.

Tables (keys big-endian, so that they sort by time). Each value ends in a checksum, and the rows of all tables but
`groups` vouch for what comes after them (`edge.store.joined_rows`):
  groups      first sequence number          → epoch key ‖ the group's bytes, as in the journal
  executions  request seq ‖ event seq        → nothing; also subscription ‖ event seq, its batches' requests too
  requests    digest of (principal, id)      → request seq ‖ digest of the payload
  open        request seq of what is running → nothing
  catalog     blueprint digest               → seq of the event that holds it
  circuits    name of a downstream           → seq of its latest event
  carried     seq of an event whose place was pruned → seq of the event that carries it
  blobs       digest ‖ seq                   → nothing: what event needs which blob
  meta        "last" → seq ‖ link, "delivered" → watermark, "log" → log id, "position" ‖ subscription → seq,
              "pruned" → seq ‖ link, "boot" ‖ seq → clock ‖ boot id
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb

from edge.core.carried import held_by
from edge.core.chain import EPOCH_KEY_BYTES, GENESIS, Context, OpenedGroup, open_group
from edge.core.errors import LogDamaged, Misconfigured, StorageFailed
from edge.core.events import Event, ExecutionRequested
from edge.core.limits import INDEX_MAP_BYTES, INDEX_MAP_BYTES_MIN, KIB
from edge.store import mapped_pages
from edge.store.gathered_rows import Gathered, keys_of_events
from edge.store.index_rows import IndexedGroup, key_of, payload_mark, position_key, request_key, rows_of
from edge.store.joined_rows import FIRST, Rows, damaged, opened, sealed
from edge.store.reserve import room_left

_TABLES: Final = tuple(b"groups executions requests open catalog circuits carried blobs meta".split())
#: Those that an index of an earlier release lacks until a runtime opens it: whoever only reads does without.
_LATER_TABLES: Final = (b"circuits", b"carried", b"blobs")
#: What LMDB says where a page is not what it should be. It has no checksums: most damage it does not notice.
_DAMAGE: Final = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PanicError, lmdb.BadTxnError)
#: LMDB's table of readers; a larger file than it needs gives it room for more.
_LOCK_BYTES: Final = 4 * KIB


def _open_environment(folder: Path, readonly: bool) -> lmdb.Environment:
    """LMDB's own handle, with as much address space as this process may have. Raises lmdb.Error."""
    map_size_bytes = INDEX_MAP_BYTES
    while True:
        try:
            return lmdb.open(
                str(folder),
                map_size=map_size_bytes,
                max_dbs=len(_TABLES),
                max_readers=16,
                readonly=readonly,
                create=not readonly,
                mode=0o640,
                metasync=True,
                sync=True,
                writemap=False,
            )
        except lmdb.MemoryError:
            if map_size_bytes <= INDEX_MAP_BYTES_MIN:
                raise
            map_size_bytes //= 2


def _opened_tables(env: lmdb.Environment, *, readonly: bool) -> dict[str, Any]:
    """Every table by name, new ones made in one transaction: each of its own would be flushed. Raises lmdb.Error."""
    made: dict[str, Any] = {}
    with nullcontext() if readonly else env.begin(write=True) as txn:
        for name in _TABLES:
            try:
                made[name.decode()] = env.open_db(name, txn=txn, create=not readonly)
            except lmdb.NotFoundError:
                if name not in _LATER_TABLES:
                    raise
    return made


class EventLog:
    """The open LMDB environment."""

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        """Open or start the store. Raises StorageFailed, LogDamaged."""
        #: Told of damage that a look-up meets.
        self.on_damage: Callable[[LogDamaged], None] = lambda error: None
        if not readonly:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            mapped_pages.hold_room(folder / "lock.mdb", _LOCK_BYTES)
        try:
            self._env = _open_environment(folder, readonly)
            self._env.reader_check()
            self._db = _opened_tables(self._env, readonly=readonly)
            self._joined = self._are_joined()
            if not readonly:
                self._begin_anew()
            self.last()
        except _DAMAGE as error:
            raise damaged(str(error)) from error
        except lmdb.Error as error:
            if isinstance(error, lmdb.ReadonlyError) or "ermission denied" in str(error):
                raise Misconfigured(
                    f"The index in {folder} may not be used by this user.",
                    mend="Give the data folder to the user who runs the box.",
                ) from error
            words = f"The event log's index in {folder} cannot be opened: {error}."
            raise StorageFailed(f"{words} {room_left(folder)}") from error
        #: As in `edge.store.blobs`.
        self.make_room: Callable[[int], bool] = lambda size_bytes: False
        self._data_path = folder / "data.mdb"
        self._address = mapped_pages.find_mapping(self._data_path)

    def _are_joined(self) -> bool:
        """Whether rows vouch for each other: in an index of an earlier release no table has a mark."""
        with self._env.begin() as txn:
            return any(txn.get(FIRST, db=db) is not None for name, db in self._db.items() if name != "groups")

    def _begin_anew(self) -> None:
        """Empty an index of an earlier release, which catching up with the journal fills again; begin a new one."""
        if self._joined:
            return
        with self._env.begin(write=True) as txn, closing(Rows(txn, self._db)) as rows:
            rows.begin()
        self._joined = True

    @staticmethod
    def there(folder: Path) -> bool:
        """Whether a folder holds an index that something was written to."""
        if not (folder / "data.mdb").exists():
            return False
        try:
            log = EventLog(folder, readonly=True)
        except StorageFailed:  # its tables were never made
            return False
        with closing(log):
            return log.last()[0] > 0

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """The tables, for reading: what LMDB raises over a page that is damaged is damage of the log. LogDamaged."""
        try:
            with self._env.begin() as txn, closing(Rows(txn, self._db, joined=self._joined)) as rows:
                yield rows
        except lmdb.Error as error:
            found = damaged(str(error))
            self.on_damage(found)
            raise found from error
        except LogDamaged as error:
            if error.problem_code == LogDamaged.INDEX:
                self.on_damage(error)
            raise

    def last(self) -> tuple[int, bytes]:
        """Sequence number and link of the last event in here; (0, GENESIS) when empty."""
        with self.reading() as rows:
            value = rows.get("meta", b"last")
        return (int.from_bytes(value[:8], "big"), value[8:]) if value else (0, GENESIS)

    def log_id(self) -> bytes | None:
        """The id of the log that this index belongs to, None when empty."""
        with self.reading() as rows:
            return rows.get("meta", b"log") or None

    def delivered(self) -> tuple[int, frozenset[int]]:
        """The watermark of answers the broker has: `(through, executions below it still owed)`."""
        with self.reading() as rows:
            value = rows.get("meta", b"delivered") or b""
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
        with self.writing() as rows:
            gathered = Gathered(rows)
            gathered.put("meta", b"log", log_id)
            for group in groups:
                gathered.first_seq = gathered.first_seq or group.first_seq
                self._put_group(rows, gathered, group)
                gathered.put("meta", b"last", key_of(group.last_seq) + group.last_link)
            gathered.flush()
        self.let_go()

    def let_go(self) -> None:
        """Give back what of the file counts as our memory; reading maps it again."""
        if self._address is not None:
            mapped_pages.release(self._address, self._data_path.stat().st_size)

    @contextmanager
    def writing(self) -> Iterator[Rows]:
        """The tables in a write transaction; index thread only. StorageFailed, LogDamaged: then nothing is done."""
        try:
            with self._env.begin(write=True) as txn, closing(Rows(txn, self._db)) as rows:
                yield rows
        except _DAMAGE as error:
            raise damaged(str(error)) from error
        except lmdb.Error as error:
            raise StorageFailed(self._not_written(error)) from error

    def _not_written(self, error: lmdb.Error) -> str:
        return f"The event log's index could not be written: {error}. {room_left(self._data_path.parent)}"

    def _put_group(self, rows: Rows, gathered: Gathered, group: IndexedGroup) -> None:
        key = key_of(group.first_seq)
        stored = sealed("groups", key, group.epoch_key + group.data)
        if not rows.txn.put(key, stored, db=self._db["groups"], append=True):
            raise LogDamaged(f"The index holds event {group.first_seq} or a later one already.")
        made = rows_of(group)
        for execution in made.cleared:
            # Which events it had is forgotten: what is kept of it comes in their place.
            gathered.flush()
            for each in list(keys_of_events(rows, execution)):
                rows.delete("executions", each)
        for table, pairs in made.tables():
            gathered.tables.setdefault(table, {}).update(pairs)
        for execution in made.ended:
            gathered.end(execution)

    def find_request(self, key: bytes) -> tuple[int, bytes] | None:
        """Execution and payload mark recorded under a request key."""
        with self.reading() as rows:
            value = rows.get("requests", key)
            if not value:
                return None
            seq, mark = int.from_bytes(value[:8], "big"), value[8:]
            _, event = self._located(rows, seq)
            body, known = held_by(event)[0].body, getattr(event.body, "mark", None)
        if (
            not isinstance(body, ExecutionRequested)
            or request_key(body.principal, body.request_id or "") != key
            or (payload_mark(body) if known is None else known) != mark
        ):
            raise damaged(f"it names event {seq} for a request that is not there")
        return seq, mark

    def open_executions(self) -> list[int]:
        """Executions without an end, oldest first."""
        with self.reading() as rows:
            return [int.from_bytes(key, "big") for key, _ in rows.scan("open")]

    def catalog(self) -> list[int]:
        """Sequence numbers of all `catalog.registered` events, oldest first."""
        with self.reading() as rows:
            return sorted(int.from_bytes(value, "big") for _, value in rows.scan("catalog"))

    def circuits(self) -> list[Event]:
        """The latest event of each downstream that has a circuit breaker."""
        with self.reading() as rows:
            seqs = [int.from_bytes(value, "big") for _, value in rows.scan("circuits")]
            return [self._event(rows, seq) for seq in seqs]

    def events_of(self, execution: int, first: int = 0, last: int = 2**63) -> list[Event]:
        """All events of one execution from `first` to `last` that are in here, oldest first. Raises LogDamaged.

        Of a subscription also the requests of its batches.
        """
        found: list[Event] = []
        group: OpenedGroup | None = None
        with self.reading() as rows:
            for key in keys_of_events(rows, execution, first):
                seq = int.from_bytes(key[8:], "big")
                if seq > last:
                    break
                # Neighbours mostly share a group: opening it anew for each took seconds for a long execution. Others'
                # events in it are not decoded: thousands of executions that wait share their groups.
                group, event = self._located(rows, seq, group)
                found += (event,) if event.seq == seq else held_by(event)
        return found

    def newest(self, executions: Iterable[int]) -> Iterator[Event]:
        """The newest event of each execution. Raises LogDamaged."""
        group: OpenedGroup | None = None
        with self.reading() as rows:
            for execution in executions:
                key, _ = next(rows.scan_back("executions", key_of(execution + 1)), (b"", b""))
                group, event = self._located(rows, seq := int.from_bytes(key[8:], "big"), group)
                yield event if event.seq == seq else held_by(event)[-1]

    def newest_of(self, execution: int, count: int) -> int:
        """The number of the `count`th newest event of a subscription; of its first where it has fewer."""
        seq, prefix = 0, key_of(execution)
        with self.reading() as rows:
            for key, _ in islice(rows.scan_back("executions", key_of(execution + 1)), count):
                if key[:8] != prefix:
                    break
                seq = int.from_bytes(key[8:], "big")
        return seq

    def position(self, subscription: int) -> int:
        """The number of the newest event that notes how far a subscription came; 0 where there is none."""
        with self.reading() as rows:
            return int.from_bytes(rows.get("meta", position_key(subscription)) or b"", "big")

    def event(self, seq: int) -> Event:
        """One event by its number. Raises LogDamaged where it is not in here."""
        with self.reading() as rows:
            return self._event(rows, seq)

    def raw(self, seq: int) -> Event:
        """The event that stands under a number in the log itself, a copy as the copy it is. Raises LogDamaged."""
        with self.reading() as rows:
            group = self._group_holding(rows, seq)
        if group is None:
            raise LogDamaged(f"Event {seq} is not in the index.")
        return group.event(seq)

    def context_of(self, seq: int) -> Context:
        """What is constant over the group of an event. Raises LogDamaged where it is not in here."""
        with self.reading() as rows:
            group, event = self._located(rows, seq)
        return group.context if event.seq == seq else Context.decode(event.body.context)  # type: ignore[attr-defined]

    def _event(self, rows: Rows, seq: int) -> Event:
        _, event = self._located(rows, seq)
        return event if event.seq == seq else held_by(event)[0]

    def _located(self, rows: Rows, seq: int, near: OpenedGroup | None = None) -> tuple[OpenedGroup, Event]:
        """The event of that number, or the one that carries it, with its group. Raises LogDamaged.

        `near` is a group that was opened before: it is looked into first.
        """
        # A copy goes before its original: what is kept of an execution that ended stands for all of it.
        place = rows.get("carried", key_of(seq))
        seq = int.from_bytes(place, "big") if place else seq
        group = near if near is not None and near.holds(seq) else self._group_holding(rows, seq)
        if group is None:
            raise LogDamaged(f"Event {seq} is not in the index.")
        return group, group.event(seq)

    def _group_holding(self, rows: Rows, seq: int) -> OpenedGroup | None:
        with rows.txn.cursor(db=self._db["groups"]) as cursor:
            if not (cursor.set_key(key_of(seq)) or self._before(cursor, seq)):
                return None
            _, group, _ = self.group_at(cursor)
            return group if group.last_seq >= seq else None

    def group_at(self, cursor: Any) -> tuple[bytes, OpenedGroup, bytes]:
        """The group that a cursor of `groups` stands at: `(epoch key, group, its bytes)`. Raises LogDamaged."""
        key, value = bytes(cursor.key()), bytes(cursor.value())
        value = opened("groups", key, value) if self._joined else value
        data = value[EPOCH_KEY_BYTES:]
        return value[:EPOCH_KEY_BYTES], open_group(int.from_bytes(key, "big"), data), data

    @staticmethod
    def _before(cursor: Any, seq: int) -> bool:
        return bool(cursor.prev() if cursor.set_range(key_of(seq)) else cursor.last())

    def groups(
        self, after_seq: int = 0, count_max: int = 2**62
    ) -> Iterator[tuple[bytes, OpenedGroup, bytes]]:
        """Groups that end above `after_seq`: `(epoch key, group, its bytes)`, oldest first. Raises LogDamaged."""
        with self.reading() as rows, rows.txn.cursor(db=self._db["groups"]) as cursor:
            more = self._before(cursor, after_seq + 1) or cursor.first()
            while more and count_max > 0:
                found = self.group_at(cursor)
                if found[1].last_seq > after_seq:
                    count_max -= 1
                    yield found
                more = cursor.next()

    def read_all(self) -> int:
        """Read and check every row of every table, so that nothing stays unseen; how many there are. LogDamaged."""
        tables = [table for table in self._db if table != "groups"]
        with self.reading() as rows:
            return sum(sum(1 for _ in rows.scan(table)) for table in tables) + sum(1 for _ in self.groups())

    def reclaim_readers(self) -> int:
        """Free reader slots of dead processes; a stuck one keeps every page since alive."""
        return int(self._env.reader_check())

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
