"""What the index notes of each event, beside the event itself: rows by execution, by request id, by what they name.

Called by `edge.store.eventlog` as groups come in and by `edge.store.index_prune` as they go, so that both agree on
which rows an event has. Pure; knows nothing of LMDB. Keys are big-endian, so that they sort by time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from typing import Any, Final

from edge.core.carried import held_by
from edge.core.chain import open_group
from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.codec import TABLE_TAG, VALUE_TAG, decode
from edge.core.events import (
    BootStarted,
    CatalogRegistered,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    LoopItems,
    LoopStarted,
    ResponsesDelivered,
    StepDone,
    TaskDone,
)
from edge.core.records import record
from edge.core.retention_events import Carried, ExecutionCarried, LogPruned
from edge.core.subscription_events import MessageReceived, SubscriptionPosition
from edge.core.values import TableRef, ValueRef

_REQUEST_KEY_BYTES: Final = 16
_PAYLOAD_DIGEST_BYTES: Final = 16
#: How a reference to a block begins in CBOR: its tag in two bytes.
_REFERENCES: Final = tuple(b"\xd9" + tag.to_bytes(2, "big") for tag in (TABLE_TAG, VALUE_TAG))

Row = tuple[bytes, bytes]


def request_key(principal: str, request_id: str) -> bytes:
    """Key of one request id of one principal: 16 bytes, time-independent."""
    text = f"{principal}\x00{request_id}".encode()
    return hashlib.blake2b(text, digest_size=_REQUEST_KEY_BYTES).digest()


def payload_mark(request: ExecutionRequested) -> bytes:
    """What two requests with the same id must share: playbook and payload, as 16 bytes."""
    payload = request.payload_digest or hashlib.sha256(request.payload or b"").digest()
    return hashlib.blake2b(request.digest + payload, digest_size=_PAYLOAD_DIGEST_BYTES).digest()


def key_of(*numbers: int) -> bytes:
    """Numbers as a key."""
    if len(numbers) == 2:  # the rows of executions, one for each event
        return numbers[0].to_bytes(8, "big") + numbers[1].to_bytes(8, "big")
    return b"".join(number.to_bytes(8, "big") for number in numbers)


@record
class IndexedGroup:
    """A durable group on its way into LMDB: its bytes, its epoch key, its decoded events."""

    first_seq: int
    last_seq: int
    last_link: bytes
    epoch_key: bytes
    data: bytes
    events: tuple[Event, ...]


@record
class Rows:
    """What one group puts in, by table; executions that ended, and those of which little is kept."""

    executions: list[Row] = field(default_factory=list)
    requests: list[Row] = field(default_factory=list)
    open: list[Row] = field(default_factory=list)
    catalog: list[Row] = field(default_factory=list)
    circuits: list[Row] = field(default_factory=list)
    carried: list[Row] = field(default_factory=list)
    blobs: list[Row] = field(default_factory=list)
    meta: list[Row] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    cleared: list[int] = field(default_factory=list)

    def tables(self) -> Iterator[tuple[str, list[Row]]]:
        """Tables that get rows, with them."""
        for name in _TABLES:
            if rows := getattr(self, name):
                yield name, rows


_TABLES: Final = ("executions", "requests", "open", "catalog", "circuits", "carried", "blobs", "meta")


def rows_of(group: IndexedGroup) -> Rows:
    """Everything a group puts into the tables beside itself. Raises LogDamaged."""
    rows = Rows()
    executions, rules = rows.executions, _RULES
    for event in group.events:
        execution, body = event.execution, event.body
        kind = type(body)
        if execution is not None and kind is not Carried:
            executions.append((key_of(execution, event.seq), b""))
        if kind is StepDone:  # most events are, and nearly none of them has more to note
            if body.table is not None:  # type: ignore[attr-defined]
                _blob_rows(rows, event)
        elif kind in rules:
            rules[kind](rows, event)
        elif kind is BootStarted:
            _boot_started(rows, event, group)
    return rows


def _requested(rows: Rows, event: Event) -> None:
    rows.open.append((key_of(event.seq), b""))
    _request_rows(rows, event)


def _request_rows(rows: Rows, event: Event) -> None:
    body = event.body
    assert isinstance(body, ExecutionRequested)
    if body.batch is not None:
        rows.executions.append((key_of(body.batch[0], event.seq), b""))
    if body.request_id is not None:
        mark = key_of(event.seq) + payload_mark(body)
        rows.requests.append((request_key(body.principal, body.request_id), mark))
    if body.payload_digest is not None:
        rows.blobs.append((blob_key(body.payload_digest, event.seq), b""))


def _finished(rows: Rows, event: Event) -> None:
    assert event.execution is not None, event
    rows.ended.append(event.execution)
    _blob_rows(rows, event)


def _registered(rows: Rows, event: Event) -> None:
    rows.catalog.append((event.body.digest, key_of(event.seq)))  # type: ignore[attr-defined]


def _circuit(rows: Rows, event: Event) -> None:
    rows.circuits.append((event.body.downstream.encode(), key_of(event.seq)))  # type: ignore[attr-defined]


def _position(rows: Rows, event: Event) -> None:
    assert event.execution is not None, event
    rows.meta.append((position_key(event.execution), key_of(event.seq)))


def _delivered(rows: Rows, event: Event) -> None:
    body = event.body
    assert isinstance(body, ResponsesDelivered)
    rows.meta.append((b"delivered", key_of(body.through, *(body.but or ()))))


def _pruned(rows: Rows, event: Event) -> None:
    body = event.body
    assert isinstance(body, LogPruned)
    rows.meta.append((b"pruned", key_of(body.through) + body.link))


def _boot_started(rows: Rows, event: Event, group: IndexedGroup) -> None:
    """Where a runtime began, and by which clock: what box-on time is counted from."""
    context = open_group(group.first_seq, group.data).context
    rows.meta.append((boot_key(event.seq), key_of(context.at.mono_ns) + context.boot_id))


def _carried(rows: Rows, event: Event) -> None:
    """The rows of the event that is carried, under its own number, and where it stands now."""
    body = event.body
    assert isinstance(body, Carried)
    rows.carried.append((key_of(body.seq), key_of(event.seq)))
    for each in held_by(event):
        if each.execution is not None:
            rows.executions.append((key_of(each.execution, each.seq), b""))
        if isinstance(each.body, ExecutionRequested) and not body.open:
            _request_rows(rows, each)
        elif not isinstance(each.body, ExecutionFinished):
            rule = _RULES.get(type(each.body))
            if rule is not None:
                rule(rows, each)
        else:
            _blob_rows(rows, each)


def _execution_carried(rows: Rows, event: Event) -> None:
    body = event.body
    assert isinstance(body, ExecutionCarried)
    request = held_by(event)[0]
    assert isinstance(request.body, ExecutionRequested), event
    rows.cleared.append(request.seq)
    rows.executions.pop()  # the number it has here is not one of the execution's
    rows.executions.append((key_of(request.seq, request.seq), b""))
    rows.carried.append((key_of(request.seq), key_of(event.seq)))
    if body.mark and request.body.request_id is not None:
        key = request_key(request.body.principal, request.body.request_id)
        rows.requests.append((key, key_of(request.seq) + body.mark))
    for each in held_by(event):
        rows.blobs.extend((blob_key(digest, request.seq), b"") for digest in blobs_of(each.body))


def _blob_rows(rows: Rows, event: Event) -> None:
    rows.blobs.extend((blob_key(digest, event.seq), b"") for digest in blobs_of(event.body))


_RULES: Final[dict[type, Callable[[Rows, Event], None]]] = {
    ExecutionRequested: _requested,
    ExecutionFinished: _finished,
    CatalogRegistered: _registered,
    CircuitOpened: _circuit,
    CircuitClosed: _circuit,
    SubscriptionPosition: _position,
    ResponsesDelivered: _delivered,
    StepDone: _blob_rows,
    TaskDone: _blob_rows,
    LoopStarted: _blob_rows,
    LoopItems: _blob_rows,
    MessageReceived: _blob_rows,
    Carried: _carried,
    ExecutionCarried: _execution_carried,
    LogPruned: _pruned,
}


def blob_key(digest: bytes, seq: int) -> bytes:
    """Row of one event that needs a blob."""
    return digest + key_of(seq)


def position_key(subscription: int) -> bytes:
    """Where the number of a subscription's newest position stands."""
    return b"position" + key_of(subscription)


def boot_key(seq: int) -> bytes:
    """Row of one start of a runtime."""
    return b"boot" + key_of(seq)


def blobs_of(body: Any) -> Iterable[bytes]:
    """Digests of what an event may need from the blob store."""
    kind = type(body)
    if kind is StepDone or kind is TaskDone:
        return () if body.table is None or body.table_bytes is not None else (body.table.digest,)
    if kind is LoopItems:
        return _digests_in(body.results)
    named = {
        ExecutionRequested: "payload_digest",
        MessageReceived: "payload_digest",
        ExecutionFinished: "result_digest",
        LoopStarted: "digest",
    }.get(kind)
    digest = getattr(body, named) if named is not None else None
    return () if digest is None else (digest,)


def _digests_in(results: bytes) -> list[bytes]:
    if not any(mark in results for mark in _REFERENCES):
        return []
    return [each.digest for each in decode(results) if type(each) in (TableRef, ValueRef)]
