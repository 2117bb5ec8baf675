"""The engine: requests in, answers out, everything in between in the log.

Owned by the daemon, spoken to by the socket (`edge.runtime.api.socket`). It accepts or refuses submissions, resumes
what a restart interrupted, and hands finished executions to whoever is owed the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from edge.core.carried import held_by
from edge.core.errors import LogDamaged, RequestRefused, StorageFailed
from edge.core.events import (
    Event,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    StepWaiting,
)
from edge.core.limits import EXECUTIONS_OPEN_MAX, EXECUTIONS_PARKED_MAX, INLINE_BYTES_MAX
from edge.core.records import record
from edge.core.scheduler import only_waits
from edge.core.state import Execution, fold
from edge.core.values import TableRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.callback_door import CallbackDoor
from edge.runtime.executions.catalog import Catalog
from edge.runtime.executions.children import Children, Surroundings, is_owed
from edge.runtime.executions.executor import Executor
from edge.runtime.requests.admit import FreeSpace, Submission, read_input, request_event, started_workload
from edge.runtime.requests.answers import Answer, Owed, build_answer, unless_lost
from edge.runtime.requests.refusals import Refusals
from edge.runtime.running.live import Live
from edge.runtime.waiting.tokens import Tokens
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks, request_key
from edge.store.eventlog import EventLog
from edge.store.index_prune import pruned_of
from edge.store.index_rows import payload_mark
from edge.tools.registry import runs_author_code
from playbooks.blueprint import Blueprint

#: Sequence numbers have 64 bits.
_SEQ_DIGITS_MAX: Final = 18
#: More open executions than these are not all folded before a runtime serves: a fold takes a third of a millisecond.
_TAKEN_UP_MAX: Final = 1_000


@record
class Receipt:
    """What `accepted` says: the request is event `seq` of the log, the chain after it is `link`."""

    execution_id: str
    seq: int
    link: bytes | None
    duplicate: bool
    finished: Answer | None = None


Accepted = Callable[[Receipt], None]


class Engine:
    """All executions of one box."""

    def __init__(
        self,
        gate: CommitGate,
        eventlog: EventLog,
        blobs: BlobStore,
        blocks: Blocks,
        log_id: bytes,
        free_space: FreeSpace,
        tokens: Tokens,
    ) -> None:
        self._gate, self._eventlog, self._blobs, self._blocks = gate, eventlog, blobs, blocks
        self._log_id, self._free_space = log_id.hex(), free_space
        self.refusals = Refusals(gate)
        self.catalog = Catalog(gate, eventlog)
        #: Encoded default workloads by blueprint: requests that bring a table share them.
        self._workloads: dict[bytes, bytes] = {}
        self.executor = Executor(gate, blocks, tokens, on_finished=self._finished)
        self.executor.parking.fold = lambda execution: self._taken_up(self.events_of(execution))
        self.executor.parking.resume = lambda execution: self._resume(self._eventlog.events_of(execution))
        self.callbacks = CallbackDoor(self, tokens, gate)
        around = Surroundings(self.catalog.find, self.execution_id, self.state_of, self._live)
        self._children = Children(self.executor, gate, blocks, around)
        self.owed = Owed(eventlog.delivered()[0])
        #: Called with each answer once its end is durable.
        self.on_answer: Callable[[Answer], None] = lambda answer: None
        #: Makes an execution of a subscription's batch as it was, and is told of its end (`subscriptions`).
        self.batch_again: Callable[[Blueprint, Execution], Live] | None = None
        self.on_batch_end: Callable[[Execution], None] = lambda state: None
        #: Called when the last open execution ended.
        self.on_quiet: Callable[[], None] = lambda: None

    def execution_id(self, seq: int) -> str:
        """The name an execution has outside: log id and sequence number of its request."""
        return f"{self._log_id}-{seq}"

    def execution_seq(self, execution_id: str) -> int:
        """The sequence number in an execution's name. Raises RequestRefused where it is none of this log."""
        log_id, _, number = execution_id.rpartition("-")
        sound = number.isascii() and number.isdecimal() and len(number) <= _SEQ_DIGITS_MAX
        if (log_id and log_id != self._log_id) or not sound:
            raise RequestRefused(
                f"{execution_id!r} is no execution of this log.",
                mend=f"Ids look like {self._log_id}-42; `edge log show` lists them.",
                code="execution_unknown",
            )
        return int(number)

    # ---- requests ----------------------------------------------------------------------------------

    def submit(self, submission: Submission, accepted: Accepted) -> None:
        """Accept a request: `accepted(receipt)` once it is durable. Raises RequestRefused.

        The same request id of the same principal gives the execution it gave before, with its recorded answer if
        it has one.
        """
        try:
            self._accept(submission, accepted)
        except RequestRefused as error:
            self.refusals.note(
                error.problem_code, submission.principal, submission.playbook, submission.request_id
            )
            raise

    def _accept(self, submission: Submission, accepted: Accepted) -> None:
        blueprint = self.catalog.playbook(submission.playbook)
        body, blob = request_event(submission, blueprint)
        if submission.request_id is not None:
            known = self._gate.find_request(submission.principal, submission.request_id)
            if known is not None:
                self._accept_again(known, body, accepted)
                return
        full = len(self.executor.open) >= EXECUTIONS_OPEN_MAX
        if full or len(self.executor.parking) >= EXECUTIONS_PARKED_MAX:
            count, what = (EXECUTIONS_OPEN_MAX, "are open") if full else (EXECUTIONS_PARKED_MAX, "wait")
            raise RequestRefused(
                f"{count} executions {what} already.",
                mend="Send it again later.",
                code="queue_full",
                retry_after_ms=1_000,
            )
        self._free_space.require()
        given = read_input(submission.content_type, submission.payload)
        live = self._live(blueprint, Execution(self._gate.next_seq, body), given, submission.payload)
        if blob is not None:
            assert body.payload_digest is not None, "a large request is a blob"
            self._gate.store_blob(body.payload_digest, blob)
        event = self._gate.append(body)
        self._gate.after(event.seq, lambda link: accepted(Receipt(live.execution_id, event.seq, link, False)))
        self.executor.open[event.seq] = live
        if not self.executor.deadlines.watch(live):
            self.executor.advance(live)

    def _accept_again(self, known: tuple[int, bytes], body: ExecutionRequested, accepted: Accepted) -> None:
        seq, mark = known
        if mark != payload_mark(body):
            raise RequestRefused(
                f"Request id {body.request_id!r} was used before, with another playbook or payload.",
                mend="Use a new id for a new request; the same id only to send the same request again.",
                code="request_id_reused",
            )
        execution_id = self.execution_id(seq)
        if seq > self._gate.durable_seq:
            self._gate.after(seq, lambda link: accepted(Receipt(execution_id, seq, link, True)))
            return
        state = self.state_of(seq)
        done = state.finished is not None and state.finished_seq <= self._gate.durable_seq
        answer = build_answer(state, execution_id, self._blobs) if done else None
        accepted(Receipt(execution_id, seq, None, True, answer))

    def _live(
        self, blueprint: Blueprint, state: Execution, given: dict[str, Any] | None, payload: bytes
    ) -> Live:
        seq = state.seq
        live = Live(self.execution_id(seq), blueprint, state, {}, self._blocks.read, last_seq=seq)
        if given is not None:
            live.workload = started_workload(blueprint, given, live.execution_id)
            return live
        live.workload = started_workload(blueprint, {}, live.execution_id)
        if not blueprint.defaults:
            live.share_workload(self._workloads)
        if len(payload) <= INLINE_BYTES_MAX:
            digest = hashlib.sha256(payload).digest()
            live.request_table = TableRef(request_key(seq), digest, len(payload), None, None)
            live.request_table_bytes = payload
            return live
        try:
            live.request_table = self._blocks.put(blueprint.digest, seq, request_key(seq), payload)
        except StorageFailed as error:
            raise RequestRefused(
                error.message,
                mend="Send it again when less is under way.",
                code="cache_full",
                retry_after_ms=1_000,
            ) from error
        return live

    def cancel(self, execution: int, by: str, reason: str | None, cancelled: Callable[[str], None]) -> None:
        """End an execution: nothing more of it begins, what is under way is recorded.

        `cancelled(status)` once that is durable, or with how it had ended before. Raises RequestRefused where there
        is none of that number.
        """
        live = self.executor.parking.find(execution)
        if live is None:
            cancelled(self.state_of(execution).status)
            return
        seq = self.executor.cancel(live, by, reason)
        self._gate.after(seq, lambda _: cancelled("cancelled"))

    # ---- after a restart -----------------------------------------------------------------------------

    def load(self) -> None:
        """Take up the catalog and the circuits that the log holds; nothing begins. Raises LogDamaged."""
        self.catalog.load()
        self.executor.circuits.take_up(self._eventlog.circuits())

    def resume(self) -> int:
        """Take up every execution the log leaves open, and every answer still owed; how many were open.

        Each gets an `execution.resumed` first, durable before anything is dispatched again, so that a block
        that brings the box down is counted; but for those that only wait, which try nothing. Of very many, those
        that seem to wait are taken up after this, a few at a time.
        """
        through, but = self._eventlog.delivered()
        finished = [
            event
            for _, group, _ in self._eventlog.groups(through)
            for each in group.events()
            for event in held_by(each)
            if event.seq > through and isinstance(event.body, ExecutionFinished)
        ]
        for execution in sorted(but):
            with unless_lost(execution):
                self.owed.add(execution, self.state_of(execution).finished_seq)
        for event in finished:
            assert event.execution is not None, event
            with unless_lost(event.execution):
                if is_owed(self._eventlog.event(event.execution)):
                    self.owed.add(event.execution, event.seq)
        resumed = self._eventlog.open_executions()
        unread = self._seem_to_rest(resumed) if len(resumed) > _TAKEN_UP_MAX else set()
        self.executor.parking.leave_unread(sorted(unread))
        for seq in resumed:
            if seq not in unread:
                self._resume(self._eventlog.events_of(seq))
        self._children.taken_up()
        return len(resumed)

    def _seem_to_rest(self, executions: list[int]) -> set[int]:
        """Those whose newest event says that a task waits. Who awaits children and batches must know all of them."""
        resting = [
            event.execution
            for event in self._eventlog.newest(executions)
            if type(event.body) is StepWaiting and event.execution is not None
        ]
        return {execution for execution in resting if is_owed(self._eventlog.event(execution))}

    def _resume(self, events: list[Event]) -> None:
        state = fold(events)
        # Whether anybody still waits for a child is not known yet.
        if state.request.parent is None and self.executor.parking.park(
            self.catalog.blueprint_of(state), state
        ):
            return
        live = self._taken_up(events)
        self.executor.open[state.seq] = live
        if self.executor.deadlines.watch(live):
            return
        if only_waits(live.blueprint, state):
            self.executor.advance(live)
            return
        seq = self.executor.append(live, ExecutionResumed())
        self._gate.after(seq, lambda _: self.executor.advance(live))

    def _taken_up(self, events: list[Event]) -> Live:
        """An execution in memory again, by its events."""
        state = fold(events)
        blueprint, request = self.catalog.blueprint_of(state), state.request
        payload = request.payload or b""
        try:
            if request.payload_digest is not None:
                payload = self._gate.blob(request.payload_digest)
            if request.batch is not None:
                assert self.batch_again is not None
                live = self.batch_again(blueprint, state)
            else:
                live = self._live(blueprint, state, read_input(request.content_type, payload), payload)
        except (RequestRefused, LogDamaged) as error:
            # It was accepted, so it must end: a runtime that cannot start over one execution helps nobody.
            live = Live(
                self.execution_id(state.seq), blueprint, state, {}, self._blocks.read, doomed=error.problem()
            )
        if any(runs_author_code(task.kind) for step in blueprint.steps for task in step.tasks):
            live.author_made.update(state.steps)  # which of them it was is not known any longer
        live.last_seq = events[-1].seq
        return live

    # ---- answers -----------------------------------------------------------------------------------

    def _finished(self, live: Live) -> None:
        if live.state.request.parent is None:
            self.owed.add(live.state.seq, live.state.finished_seq)
        if live.state.request.batch is not None:
            self.owed.settle(live.state.seq)
            self.on_batch_end(live.state)
        elif live.state.request.parent is None:
            self.on_answer(build_answer(live.state, live.execution_id, self._blobs))
        if not self.executor.open:
            self.on_quiet()

    def answer(self, execution: int) -> Answer:
        """The recorded answer of a finished execution, from the log."""
        return build_answer(self.state_of(execution), self.execution_id(execution), self._blobs)

    def delivered(self, execution: int) -> None:
        """The broker has the answer."""
        self.owed.settle(execution)

    def note_watermark(self) -> None:
        """Record what was delivered since the last note, if anything."""
        body = self.owed.watermark()
        if body is not None:
            self._gate.append(body, held_back=True)

    def note_owed(self) -> None:
        """Record what was delivered, changed or not: what stands before it in the log is needed no longer."""
        self._gate.append(self.owed.standing(), held_back=True)

    # ---- looking up ----------------------------------------------------------------------------------

    def events_of(self, execution: int) -> list[Event]:
        """Every event of one execution, oldest first. Raises RequestRefused where there is none."""
        events = self._gate.events_of(execution)
        if not events or type(events[0].body) is not ExecutionRequested:
            through, _ = pruned_of(self._eventlog)
            if execution <= through:
                raise RequestRefused(
                    f"Execution {self.execution_id(execution)} was pruned: the log begins after event {through}.",
                    mend="Ask for it where the log was stored upstream; what is to be kept how long is in edge.toml.",
                    code="execution_pruned",
                )
            raise RequestRefused(
                f"There is no execution {self.execution_id(execution)} in the log.",
                mend="`edge log show` lists what there is.",
                code="execution_unknown",
            )
        return events

    def state_of(self, execution: int) -> Execution:
        """The folded state of one execution, running or not."""
        live = self.executor.open.get(execution)
        return live.state if live is not None else fold(self.events_of(execution))
