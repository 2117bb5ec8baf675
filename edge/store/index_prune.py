"""Taking the log's beginning out of the index: its groups, and every row that only its events had.

Called by the runtime's index thread (`edge.runtime.commit.index`) once `log.pruned` is durable, a few thousand
events at a time: each call is one transaction, so a process that is killed goes on where it was. It must never touch
an event above the number it is given, nor the rows of one that is carried.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from edge.core.carried import COPIES, held_by
from edge.core.chain import OpenedGroup, link_of
from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.events import BootStarted, CatalogRegistered, Event, ExecutionRequested
from edge.core.records import record
from edge.core.retention_events import ExecutionCarried
from edge.core.subscription_events import SubscriptionPosition
from edge.store.eventlog import EventLog
from edge.store.index_rows import blob_key, blobs_of, boot_key, key_of, position_key, request_key
from edge.store.joined_rows import Rows

#: Before the digest of a blob that no event needs any longer: its file is to go.
_CONDEMNED: Final = b"condemned"


@record
class Boot:
    """A start of a runtime: event `seq`, at `mono_ns` of the boot `boot_id`."""

    seq: int
    mono_ns: int
    boot_id: bytes


def first_of(log: EventLog) -> int:
    """The number of the oldest event that is in the index; 0 where it is empty."""
    with log.reading() as rows, rows.txn.cursor(db=rows.db["groups"]) as cursor:
        return int.from_bytes(cursor.key(), "big") if cursor.first() else 0


def pruned_of(log: EventLog) -> tuple[int, bytes]:
    """Up to which event the log is pruned, by its own word, and the link there; (0, b"") where it is whole."""
    with log.reading() as rows:
        value = rows.get("meta", b"pruned") or b""
    return int.from_bytes(value[:8], "big"), value[8:]


def place_of(log: EventLog, seq: int) -> int:
    """The number of the event that carries event `seq`; 0 where none does."""
    with log.reading() as rows:
        return int.from_bytes(rows.get("carried", key_of(seq)) or b"", "big")


def boots_of(log: EventLog) -> list[Boot]:
    """The starts of runtimes that the log still holds, oldest first."""
    prefix = boot_key(0)[:-8]
    found = []
    with log.reading() as rows:
        for key, value in rows.scan("meta", prefix):
            if not key.startswith(prefix):
                break
            seq = int.from_bytes(key[len(prefix) :], "big")
            found.append(Boot(seq, int.from_bytes(value[:8], "big"), value[8:]))
    return found


def clocks_of(log: EventLog) -> list[tuple[bytes, int]]:
    """`(boot id, CLOCK_BOOTTIME in ns)` of each boot in the log, first and last readings, oldest first."""
    readings: list[tuple[bytes, int]] = []
    for boot in boots_of(log):
        before = group_before(log, boot.seq)
        if before is not None:
            readings.append((before.context.boot_id, before.context.at.mono_ns))
        readings.append((boot.boot_id, boot.mono_ns))
    return readings


def group_before(log: EventLog, seq: int) -> OpenedGroup | None:
    """The newest group that ends below event `seq`; None where there is none."""
    with log.reading() as rows, rows.txn.cursor(db=rows.db["groups"]) as cursor:
        more = cursor.prev() if cursor.set_range(key_of(seq)) else cursor.last()
        while more:
            _, group, _ = log.group_at(cursor)
            if group.last_seq < seq:
                return group
            more = cursor.prev()
    return None


def link_after(log: EventLog, seq: int) -> bytes | None:
    """The chain's link after an event; None where it is not in the index. Raises LogDamaged."""
    found = next(log.groups(seq - 1, 1), None)
    if found is None or not found[1].holds(seq):
        return None
    epoch_key, group, _ = found
    link = group.previous
    for place in range(0, 2 * (seq - group.first_seq) + 2, 2):
        parts = group.parts[place : place + 2]
        link = link_of(link, group.context_bytes, epoch_key, group.first_seq + place // 2, *parts)
    return link


def used_bytes(log: EventLog) -> int:
    """What the tables take, without pages that are free again: the file itself never shrinks."""
    with log.reading() as rows:
        stats = [rows.txn.stat(db=table) for table in rows.db.values()]
    return sum(s["psize"] * (s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"]) for s in stats)


def prune(log: EventLog, through: int, events_max: int) -> bool:
    """Take out groups up to `through`, oldest first, some `events_max` events; False where none is left.

    Raises StorageFailed, LogDamaged.
    """
    events = 0
    with log.writing() as rows:
        while events < events_max:
            with rows.txn.cursor(db=rows.db["groups"]) as cursor:
                if not cursor.first():
                    return False
                _, group, _ = log.group_at(cursor)
                if group.last_seq > through:
                    return False
                cursor.delete()
            _forget(log, rows, group, through)
            events += len(group.parts) // 2
    return True


def _forget(log: EventLog, rows: Rows, group: OpenedGroup, through: int) -> None:
    for event in group.events():
        if type(event.body) is BootStarted:
            rows.delete("meta", boot_key(event.seq))
        original = held_by(event)[0]
        place = int.from_bytes(rows.get("carried", key_of(original.seq)) or b"", "big")
        # A later copy has the rows now; of several copies below `through` the newest one gives them up.
        if place > through:
            _forget_dropped(log, rows, event, place)
            continue
        if place != (event.seq if type(event.body) in COPIES else 0):
            continue
        rows.delete("carried", key_of(original.seq))
        _forget_rows(rows, original, held_by(event) if type(event.body) is ExecutionCarried else (original,))


def _forget_dropped(log: EventLog, rows: Rows, event: Event, place: int) -> None:
    """Blobs that an event needs and the copy of it at `place` does not: what is kept of an execution is less."""
    needed = {digest for part in held_by(event) for digest in blobs_of(part.body)}
    if needed:
        needed -= {digest for part in held_by(log.raw(place)) for digest in blobs_of(part.body)}
    for digest in needed:
        _forget_blob(rows, digest, held_by(event)[0].seq)


def _forget_rows(rows: Rows, event: Event, parts: Iterable[Event]) -> None:
    """Every row that the event had; those that several may have only where they are its own."""
    body, seq = event.body, key_of(event.seq)
    if event.execution is not None:
        rows.delete("executions", key_of(event.execution) + seq)
    if isinstance(body, ExecutionRequested):
        if body.batch is not None:
            rows.delete("executions", key_of(body.batch[0]) + seq)
        if body.request_id is not None:
            _forget_own(rows, "requests", request_key(body.principal, body.request_id), seq)
    elif isinstance(body, CatalogRegistered):
        _forget_own(rows, "catalog", body.digest, seq)
    elif isinstance(body, CircuitOpened | CircuitClosed):
        _forget_own(rows, "circuits", body.downstream.encode(), seq)
    elif isinstance(body, SubscriptionPosition) and event.execution is not None:
        _forget_own(rows, "meta", position_key(event.execution), seq)
    for part in parts:
        for digest in blobs_of(part.body):
            _forget_blob(rows, digest, event.seq)


def _forget_own(rows: Rows, table: str, key: bytes, seq: bytes) -> None:
    value = rows.get(table, key)
    if value is not None and value[:8] == seq:
        rows.delete(table, key)


def _forget_blob(rows: Rows, digest: bytes, seq: int) -> None:
    if rows.delete("blobs", blob_key(digest, seq)) and not _is_needed(rows, digest):
        rows.put("meta", _CONDEMNED + digest, b"")


def _is_needed(rows: Rows, digest: bytes) -> bool:
    return any(key.startswith(digest) for key, _ in islice(rows.scan("blobs", digest), 1))


def condemned_of(log: EventLog, count_max: int) -> tuple[list[bytes], list[bytes]]:
    """Digests of blobs that no event needs any longer, and of those that one needs again."""
    gone: list[bytes] = []
    needed: list[bytes] = []
    with log.reading() as rows:
        for key, _ in islice(rows.scan("meta", _CONDEMNED), count_max):
            if not key.startswith(_CONDEMNED):
                break
            digest = key[len(_CONDEMNED) :]
            (needed if _is_needed(rows, digest) else gone).append(digest)
    return gone, needed


def acquit(log: EventLog, digests: Iterable[bytes]) -> None:
    """These are gone, or needed again: nothing more is to be done about them. Raises StorageFailed."""
    with log.writing() as rows:
        for digest in digests:
            rows.delete("meta", _CONDEMNED + digest)
