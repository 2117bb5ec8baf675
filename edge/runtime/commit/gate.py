"""Group commit and the gate: appends gather, one flush carries them, and only then may anything leave.

Owned by the runtime's loop. `append` gives an event its sequence number at once and the scheduler goes on
from it; `after` calls back when the event is durable, and receipts, answers and effects wait there (design §4,
output commit). While one flush runs the next group gathers, so nobody waits for a window. An event that nobody
waits for (a pure step's outcome) is held back for the next flush that somebody does wait for, a few
milliseconds at most: it would be the flush that the answer behind it has to wait for.

Two threads stand behind it: one owns the journal, one the LMDB write transaction. They run nothing but
system calls and LMDB; encoding and hashing happen here, on the loop, because a thread that needs the
interpreter lock after each flush would wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from edge.core.chain import Context, Group, encode_event, open_group, seal_group
from edge.core.clock import Clock
from edge.core.errors import StorageFailed
from edge.core.event_body import Body
from edge.core.events import Event, ExecutionRequested
from edge.core.limits import GROUP_BYTES_MAX, GROUP_EVENTS_MAX, INDEX_EVENTS_PER_COMMIT
from edge.core.timing import Moment
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog, IndexedGroup, payload_mark, request_key
from edge.store.journal import Journal

logger = logging.getLogger(__name__)

#: A drive whose flush took longer than this gets a linger before the next one (measured: halves latency at
#: 20 ms a flush, costs latency on a fast drive).
SLOW_FLUSH_S = 0.001
LINGER_S = 0.0003
#: Where the last flush was quicker than this and no claim is under way, the next runs on the loop itself: handing it
#: to the thread and back costs as much again (80 µs of 180 on a drive that flushes in 90).
INLINE_FLUSH_S = 0.0005
#: How long an event that nobody waits for may stay in memory only. Losing it means running its step again.
HOLD_BACK_S = 0.02
#: Room a group's frame, context and array heads may add to its events.
_GROUP_OVERHEAD_BYTES = 8 * GROUP_EVENTS_MAX + 512

Durable = Callable[[bytes], None]
"""Called once the event is durable, with the chain's link after it."""


class CommitGate:
    """The single writer's front: append, wait for durable, look up what is not in LMDB yet."""

    def __init__(
        self,
        journal: Journal,
        eventlog: EventLog,
        blobs: BlobStore,
        clock: Clock,
        boot_id: bytes,
        *,
        on_failure: Callable[[StorageFailed], None],
        has_claims: Callable[[], bool] = lambda: True,
        commit_window_ms: int = 0,
    ) -> None:
        self._journal, self._eventlog, self._blobs = journal, eventlog, blobs
        self.clock, self._boot_id = clock, boot_id
        self._on_failure, self._has_claims = on_failure, has_claims
        self._window_s = commit_window_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._next_seq = journal.last_seq + 1
        self._link = journal.last_link
        self.durable_seq = journal.last_seq
        self._pending: deque[Event] = deque()
        self._blobs_pending: list[tuple[bytes, bytes]] = []
        self._blobs_unwritten: dict[bytes, bytes] = {}
        self._in_flight: list[Event] = []
        self._waiting: dict[int, list[Durable]] = {}
        self._flushing = self._scheduled = self._failed = False
        #: Up to here somebody waits; what is appended above it may be held back.
        self._wanted_seq = journal.last_seq
        self._held_since_s = 0.0
        self._hold_timer: asyncio.TimerHandle | None = None
        self._flush_took_s = 0.0
        self._overlay: deque[IndexedGroup] = deque()
        self._overlay_events = 0
        self._overlay_requests: dict[bytes, tuple[int, ExecutionRequested]] = {}
        self._indexing = False
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._journal_jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._index_jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_serve, args=(jobs,), name=name, daemon=True)
            for jobs, name in ((self._journal_jobs, "journal"), (self._index_jobs, "index"))
        ]
        for thread in self._threads:
            thread.start()

    # ---- appending -------------------------------------------------------------------------------

    @property
    def next_seq(self) -> int:
        """The sequence number the next append will get."""
        return self._next_seq

    def append(self, body: Body, *, held_back: bool = False, **envelope: Any) -> Event:
        """Give an event its number and put it into the next group. `envelope` as the fields of `Event`.

        An `ExecutionRequested` gets its own number as its execution. Returns at once; not durable yet. With
        `held_back` it goes with the next event that is wanted durable, or after HOLD_BACK_S.
        """
        seq = self._next_seq
        if type(body) is ExecutionRequested:
            envelope["execution"] = seq
            if body.request_id is not None:
                key = request_key(body.principal, body.request_id)
                self._overlay_requests[key] = (seq, body)
        event = Event(seq, body, **envelope)
        self._pending.append(event)
        self._next_seq = seq + 1
        if held_back:
            self._hold_back()
        else:
            self._want(seq)
        return event

    def store_blob(self, digest: bytes, data: bytes) -> None:
        """Write a blob before the next group is flushed; the event that names it is appended after this."""
        self._blobs_pending.append((digest, data))
        self._blobs_unwritten[digest] = data

    def blob(self, digest: bytes) -> bytes:
        """A blob by its SHA-256, written or still on its way. Raises LogDamaged."""
        return self._blobs_unwritten.get(digest) or self._blobs.get(digest)

    def after(self, seq: int, callback: Durable) -> None:
        """Call back once event `seq` is durable; never before, never from inside this call."""
        assert seq > self.durable_seq, "it is durable already, and its link is not kept here"
        self._waiting.setdefault(seq, []).append(callback)
        self._want(seq)

    # ---- flushing --------------------------------------------------------------------------------

    def _want(self, seq: int) -> None:
        if seq > self._wanted_seq:
            self._wanted_seq = seq
            self._schedule()

    def _hold_back(self) -> None:
        self._idle.clear()
        if len(self._pending) == 1 or self._hold_timer is None:
            self._held_since_s = self._loop.time()
        if self._hold_timer is None:
            self._hold_timer = self._loop.call_later(HOLD_BACK_S, self._held_long_enough)

    def _held_long_enough(self) -> None:
        self._hold_timer = None
        if not self._pending:
            return
        left_s = self._held_since_s + HOLD_BACK_S - self._loop.time()
        if left_s > HOLD_BACK_S / 4:  # what was held when the timer started is durable; these are newer
            self._hold_timer = self._loop.call_later(left_s, self._held_long_enough)
        else:
            self._want(self._next_seq - 1)

    def _schedule(self) -> None:
        if self._scheduled or self._flushing or self._failed:
            return
        self._scheduled = True
        self._idle.clear()
        delay_s = self._window_s
        if self._flush_took_s > SLOW_FLUSH_S and self._has_claims():
            delay_s = max(delay_s, LINGER_S)
        if delay_s:
            self._loop.call_later(delay_s, self._flush)
        else:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._flushing or self._failed or not self._pending:
            return
        self._flushing = True
        try:
            batch, parts, size_bytes = self._take_batch()
        except (TypeError, ValueError) as error:
            # An event that cannot be written down is our mistake; going on without it would be a lie.
            self._fail(_unexpected(error))
            return
        self._in_flight = batch
        if self._journal.has_room_for(size_bytes):
            self._write(batch, parts)
        else:
            self._run(self._journal.roll, lambda: self._rolled(batch, parts))

    def _take_batch(self) -> tuple[list[Event], list[bytes], int]:
        """The next group's events, their encoded parts, and a bound of its size in bytes.

        Encoded only here: what an append leads to (a claim) is on its way by now.
        """
        batch: list[Event] = []
        parts: list[bytes] = []
        size_bytes = _GROUP_OVERHEAD_BYTES
        while self._pending and len(batch) < GROUP_EVENTS_MAX:
            envelope, body = encode_event(self._pending[0])
            more_bytes = len(envelope) + len(body)
            if batch and size_bytes + more_bytes > GROUP_BYTES_MAX:
                break
            batch.append(self._pending.popleft())
            parts += (envelope, body)
            size_bytes += more_bytes
        return batch, parts, size_bytes

    def _rolled(self, batch: list[Event], parts: list[bytes]) -> None:
        self._index_now()
        self._write(batch, parts)

    def _write(self, batch: list[Event], parts: list[bytes]) -> None:
        context = Context(self._journal.log_id, self._boot_id, self.clock.read())
        epoch_key = self._journal.header.epoch_key
        group = seal_group(batch[0].seq, self._link, context, epoch_key, parts)
        self._link = group.links[-1]
        blobs, self._blobs_pending = self._blobs_pending, []
        started_s = time.monotonic()

        def write() -> None:
            for _, data in blobs:
                self._blobs.put(data)
            self._journal.write(group)

        def written() -> None:
            for digest, _ in blobs:
                self._blobs_unwritten.pop(digest, None)
            self._written(group, epoch_key, batch, time.monotonic() - started_s)

        if not blobs and 0 < self._flush_took_s < INLINE_FLUSH_S and not self._has_claims():
            self._run_here(write, written)
        else:
            self._run(write, written)

    def _written(self, group: Group, epoch_key: bytes, batch: list[Event], took_s: float) -> None:
        self._flush_took_s = took_s
        self.durable_seq = group.last_seq
        events = tuple(batch)
        self._overlay.append(
            IndexedGroup(group.first_seq, group.last_seq, group.links[-1], epoch_key, group.data, events)
        )
        self._overlay_events += len(events)
        self._in_flight = []
        self._flushing = False
        if not self._pending:
            self._idle.set()
        elif self._wanted_seq > self.durable_seq:
            self._schedule()
        else:
            self._hold_back()
        self._call_back(
            deque(
                (callback, link)
                for seq, link in enumerate(group.links, group.first_seq)
                for callback in self._waiting.pop(seq, ())
            )
        )
        if self._overlay_events >= INDEX_EVENTS_PER_COMMIT:
            self._index_now()

    def _call_back(self, due: deque[tuple[Durable, bytes]]) -> None:
        """Tell all who wait for a group; one whose callback fails does not take the others' away from them."""
        try:
            while due:
                callback, link = due.popleft()
                callback(link)
        finally:
            if due:
                self._loop.call_soon(self._call_back, due)

    def _run_here(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Run a job on the loop's own thread: no hand-over to and fro, where nothing else is to be done."""
        try:
            job()
        except StorageFailed as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - as on the thread: whatever it is, nothing more is flushed
            self._fail(_unexpected(error))
        else:
            then()

    def _run(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Run a job on the journal thread and go on here; any error ends the runtime."""

        def work() -> None:
            try:
                job()
            except StorageFailed as error:
                self._loop.call_soon_threadsafe(self._fail, error)
            except Exception as error:  # noqa: BLE001 - the thread's top: whatever it is, nothing more is flushed
                self._loop.call_soon_threadsafe(self._fail, _unexpected(error))
            else:
                self._loop.call_soon_threadsafe(then)

        self._journal_jobs.put(work)

    def _fail(self, error: StorageFailed) -> None:
        self._failed = True
        self._waiting.clear()
        self._idle.set()
        self._on_failure(error)

    # ---- the second home ---------------------------------------------------------------------------

    def _index_now(self) -> None:
        if self._indexing or not self._overlay or self._failed:
            return
        self._indexing = True
        groups = list(self._overlay)

        def work() -> None:
            try:
                self._eventlog.commit(groups, self._journal.log_id)
            except StorageFailed as error:
                self._loop.call_soon_threadsafe(self._fail, error)
            except Exception as error:  # noqa: BLE001 - the thread's top
                self._loop.call_soon_threadsafe(self._fail, _unexpected(error))
            else:
                self._loop.call_soon_threadsafe(self._indexed, groups)

        self._index_jobs.put(work)

    def _indexed(self, groups: list[IndexedGroup]) -> None:
        self._indexing = False
        for group in groups:
            self._overlay.popleft()
            self._overlay_events -= len(group.events)
            for event in group.events:
                body = event.body
                if type(body) is ExecutionRequested and body.request_id is not None:
                    self._overlay_requests.pop(request_key(body.principal, body.request_id), None)
        if self._overlay_events >= INDEX_EVENTS_PER_COMMIT:
            self._index_now()

    # ---- looking up ------------------------------------------------------------------------------

    def now(self) -> Moment:
        """The clocks, as the next group's context will have them."""
        return Moment(self._boot_id, self.clock.read())

    def context_of(self, seq: int) -> Context:
        """What is constant over the group of a durable event: its clocks above all. Raises LogDamaged."""
        assert seq <= self.durable_seq, "its group is not written yet"
        found = next((group for group in self._overlay if group.first_seq <= seq <= group.last_seq), None)
        return open_group(found.first_seq, found.data).context if found else self._eventlog.context_of(seq)

    def find_request(self, principal: str, request_id: str) -> tuple[int, bytes] | None:
        """Execution and payload mark of a request id, from memory first, then LMDB."""
        key = request_key(principal, request_id)
        found = self._overlay_requests.get(key)
        if found is not None:
            return found[0], payload_mark(found[1])
        return self._eventlog.find_request(key)

    def events_of(self, execution: int, first: int = 0, last: int = 2**63) -> list[Event]:
        """All events of one execution appended so far, durable or not, oldest first; those from `first` to `last`."""
        found = self._eventlog.events_of(execution, first, last)
        seen = found[-1].seq if found else first - 1
        recent = (event for group in self._overlay for event in group.events)
        found += [event for event in recent if event.execution == execution and seen < event.seq <= last]
        unflushed = (event for queue in (self._in_flight, self._pending) for event in queue)
        found += [event for event in unflushed if event.execution == execution and first <= event.seq <= last]
        return found

    async def flushed(self) -> None:
        """Wait until nothing appended is left to flush (or the journal failed)."""
        self._want(self._next_seq - 1)
        while not self._failed and (self._pending or self._flushing or self._scheduled):
            await self._idle.wait()
            self._want(self._next_seq - 1)

    async def close(self) -> None:
        """Flush all, put all into LMDB, end both threads."""
        await self.flushed()
        while not self._failed and (self._overlay or self._indexing):
            self._index_now()
            await asyncio.sleep(0.001)
        for jobs in (self._journal_jobs, self._index_jobs):
            jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)


def _unexpected(error: Exception) -> StorageFailed:
    return StorageFailed(f"Writing the log ended with {type(error).__name__}: {error}.")


def _serve(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
