"""The log's second home while the runtime runs: LMDB, and in memory what is durable but not in LMDB yet.

Owned by the gate, which hands every flushed group on. Groups go to LMDB by the thousand events, on a thread of their
own, and are looked up here until they are there. It must never hold a group that the journal has not flushed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from edge.core.carried import COPIES
from edge.core.chain import Context, open_group
from edge.core.errors import StorageFailed
from edge.core.events import Event, ExecutionRequested
from edge.core.limits import INDEX_EVENTS_PER_COMMIT
from edge.runtime.commit.threads import JobThread
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup, blobs_of, payload_mark, request_key

_LOOK_S: Final = 0.002
_T = TypeVar("_T")


class Index:
    """LMDB and what is on its way there; `failed` is called with the error of a commit."""

    def __init__(self, eventlog: EventLog, log_id: bytes, failed: Callable[[StorageFailed], None]) -> None:
        self._eventlog, self._log_id = eventlog, log_id
        self._thread = JobThread("index", failed)
        self._groups: deque[IndexedGroup] = deque()
        self._events = 0
        self._requests: dict[bytes, tuple[int, ExecutionRequested]] = {}
        self._committing = self._stopped = False

    def requested(self, seq: int, body: ExecutionRequested) -> None:
        """A request with an id is on its way: found from now on, durable or not."""
        assert body.request_id is not None
        self._requests[request_key(body.principal, body.request_id)] = (seq, body)

    def add(self, group: IndexedGroup) -> None:
        """A group is durable."""
        self._groups.append(group)
        self._events += len(group.events)

    def commit_if_full(self) -> None:
        """Begin a commit where enough has gathered."""
        if self._events >= INDEX_EVENTS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Begin a commit of all there is, if none is under way."""
        if self._committing or not self._groups or self._stopped:
            return
        self._committing = True
        groups = list(self._groups)
        self._thread.run(lambda: self._eventlog.commit(groups, self._log_id), lambda: self._committed(groups))

    def _committed(self, groups: list[IndexedGroup]) -> None:
        self._committing = False
        for group in groups:
            self._groups.popleft()
            self._events -= len(group.events)
            for event in group.events:
                body = event.body
                if type(body) is ExecutionRequested and body.request_id is not None:
                    self._requests.pop(request_key(body.principal, body.request_id), None)
        self.commit_if_full()

    async def reach(self, seq: int) -> None:
        """Wait until LMDB holds the durable event `seq`."""
        while not self._stopped and self._eventlog.last()[0] < seq:
            self.commit()
            await asyncio.sleep(_LOOK_S)

    async def result_of(self, job: Callable[[], _T]) -> _T:
        """Run a job on the index's thread, between commits."""
        return await self._thread.result_of(job)

    def needs_blob(self, digest: bytes) -> bool:
        """Whether an event needs that blob of which LMDB does not know yet."""
        return any(digest in blobs_of(event.body) for event in self._recent())

    def stop(self) -> None:
        """The log failed: nothing more is written."""
        self._stopped = True

    async def close(self) -> None:
        """Put all into LMDB, end the thread."""
        while not self._stopped and (self._groups or self._committing):
            self.commit()
            await asyncio.sleep(0.001)
        await self._thread.end()

    # ---- looking up ------------------------------------------------------------------------------

    def context_of(self, seq: int) -> Context:
        """What is constant over the group of a durable event. Raises LogDamaged."""
        found = next((group for group in self._groups if group.first_seq <= seq <= group.last_seq), None)
        return open_group(found.first_seq, found.data).context if found else self._eventlog.context_of(seq)

    def find_request(self, principal: str, request_id: str) -> tuple[int, bytes] | None:
        """Execution and payload mark of a request id."""
        key = request_key(principal, request_id)
        found = self._requests.get(key)
        if found is not None:
            return found[0], payload_mark(found[1])
        return self._eventlog.find_request(key)

    def events_of(self, execution: int, first: int, last: int) -> list[Event]:
        """The durable events of one execution, oldest first; those from `first` to `last`."""
        found = self._eventlog.events_of(execution, first, last)
        seen = found[-1].seq if found else first - 1
        # A copy repeats what is found in LMDB.
        found += [
            event
            for event in self._recent()
            if event.execution == execution and seen < event.seq <= last and type(event.body) not in COPIES
        ]
        return found

    def _recent(self) -> Iterator[Event]:
        return (event for group in self._groups for event in group.events)
