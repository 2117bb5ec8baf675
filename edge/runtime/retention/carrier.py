"""Writing again what is still needed of a segment before it is pruned.

Driven by `edge.runtime.retention.keeper`, group by group, between other work of the loop. Executions that go on are
carried event by event, as they were; of those that ended, what a repeated request or an owed answer needs. It must
never leave out what a restart would read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field, replace
from typing import Any, Final

from edge.core.carried import held_by, kept_of, logical, thinned
from edge.core.chain import Context, OpenedGroup, encode_event
from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.codec import decode
from edge.core.event_codec import decode_event
from edge.core.events import CatalogRegistered, Event, ExecutionFinished, ExecutionRequested, StepDone
from edge.core.records import record
from edge.core.retention_events import Carried, ExecutionCarried
from edge.core.settings import THIN
from edge.core.subscription_events import SubscriptionPosition
from edge.runtime.commit.gate import CommitGate
from edge.runtime.retention.needed import Needed
from edge.runtime.retention.on_time import OnTime
from edge.runtime.retention.terms import Terms, leaves_trace
from edge.store.eventlog import EventLog
from edge.store.index_prune import place_of
from edge.store.index_rows import payload_mark

#: Events looked at in one go.
_AT_ONCE: Final = 64
_CIRCUITS: Final = (CircuitOpened.CODE, CircuitClosed.CODE)


@record
class Wanted:
    """What is to be pruned: all up to event `through`, for that `cause`, under these terms."""

    terms: Terms
    cause: str
    through: int


@record
class _Piece:
    """An event as it stands in the log, under its own number."""

    seq: int
    context: bytes
    envelope: bytes
    body: bytes

    def event(self) -> Event:
        return decode_event(self.seq, self.envelope, self.body)


@record
class _Ended:
    """An execution that nobody carries on: its request, and its outcomes as far as they were met."""

    request: Event
    outcomes: dict[str | None, _Piece] = field(default_factory=dict)


class Carrier:
    """What is carried of one segment: `carried` counts the events written, `seen` those looked at."""

    def __init__(
        self,
        gate: CommitGate,
        eventlog: EventLog,
        needed: Needed,
        wanted: Wanted,
        on_time: OnTime,
        is_open: Callable[[int], bool],
    ) -> None:
        self._gate, self._eventlog, self._needed = gate, eventlog, needed
        self._terms, self._cause, self._through = wanted.terms, wanted.cause, wanted.through
        self._on_time, self._is_open = on_time, is_open
        self._ended: dict[int, _Ended] = {}
        self.carried = self.seen = 0

    def take(self, group: OpenedGroup) -> Iterator[None]:
        """Go over one group; gives way every few events."""
        for place in range(0, len(group.parts), 2):
            seq = group.first_seq + place // 2
            self._piece(_Piece(seq, group.context_bytes, group.parts[place], group.parts[place + 1]))
            self.seen += 1
            if self.seen % _AT_ONCE == 0:
                yield

    def rest(self) -> Iterator[None]:
        """Executions that ended in a later segment; gives way after each."""
        for execution in list(self._ended):
            self._straddling(execution, self._ended.pop(execution).request)
            yield

    # ---- one event ---------------------------------------------------------------------------------------

    def _piece(self, piece: _Piece) -> None:
        code, _, _ = _head(piece)
        if code == Carried.CODE:
            body = piece.event().body
            assert isinstance(body, Carried), piece
            if place_of(self._eventlog, body.seq) == piece.seq:  # else a later copy has its place
                self._original(_Piece(body.seq, body.context, body.envelope, body.body))
        elif code == ExecutionCarried.CODE:
            self._kept_before(piece)
        else:
            self._original(piece)

    def _original(self, piece: _Piece) -> None:
        code, execution, step = _head(piece)
        if self._is_needed(code, execution, piece.seq):
            self._carry(piece, execution)
        elif code == ExecutionRequested.CODE:
            self._met_request(piece)
        elif execution in self._ended:
            assert execution is not None, piece
            if code == StepDone.CODE:
                self._ended[execution].outcomes[step] = piece
            elif code == ExecutionFinished.CODE:
                self._met_end(execution, piece)

    def _is_needed(self, code: int, execution: int | None, seq: int) -> bool:
        needed = self._needed
        if code == CatalogRegistered.CODE:
            return seq in needed.catalog
        if code in _CIRCUITS:
            return seq in needed.circuits
        if execution is None or code == SubscriptionPosition.CODE:
            return False  # each subscription has just noted where it stands
        return execution in needed.executions or needed.of_subscription(execution, seq)

    def _carry(self, piece: _Piece, execution: int | None) -> None:
        if place_of(self._eventlog, piece.seq) > self._through:
            return  # carried before, by a runtime that ended in between
        is_open = execution is not None and self._is_open(execution)
        body = Carried(piece.seq, piece.context, piece.envelope, piece.body, is_open)
        self._gate.append(body, execution=execution, held_back=True)
        self.carried += 1

    # ---- executions that ended ---------------------------------------------------------------------------

    def _met_request(self, piece: _Piece) -> None:
        event = piece.event()
        body = event.body
        assert isinstance(body, ExecutionRequested), piece
        if body.parent is not None or body.batch is not None:
            return  # nobody outside asks for it again, and whoever began it has its outcome
        if body.request_id is not None or event.seq in self._needed.owed or self._cause == THIN:
            self._ended[event.seq] = _Ended(event)

    def _met_end(self, execution: int, piece: _Piece) -> None:
        end = piece.event()
        assert isinstance(end.body, ExecutionFinished), piece
        ended, step = self._ended[execution], end.body.result_step
        if step is not None and step not in ended.outcomes:
            return  # it stands in an earlier segment, or is a copy: all of its events are looked at
        del self._ended[execution]
        answer = [] if step is None else [ended.outcomes[step].event()]
        self._keep(ended.request, answer, end, piece.context)

    def _straddling(self, execution: int, request: Event) -> None:
        events = logical(self._gate.events_of(execution))
        end = events[-1]
        if not isinstance(end.body, ExecutionFinished) or end.seq > self._gate.durable_seq:
            self._carry_whole(events)
            return
        step = end.body.result_step
        answers = [event for event in events if isinstance(event.body, StepDone) and event.step == step]
        context = self._gate.context_of(end.seq).encode()
        self._keep(request, answers[-1:] if step is not None else [], end, context)

    def _carry_whole(self, events: list[Event]) -> None:
        """An execution of which it is not durably known that it ended."""
        for event in events:
            if event.seq <= self._through:
                context = self._eventlog.context_of(event.seq).encode()
                self._carry(_Piece(event.seq, context, *encode_event(event)), event.execution)

    def _keep(self, request: Event, answer: list[Event], end: Event, context: bytes) -> None:
        """Write what is kept of an execution that ended, if anything is."""
        body = request.body
        assert isinstance(body, ExecutionRequested), request
        age_s = self._age_s(context)
        owed = request.seq in self._needed.owed
        remembered = body.request_id is not None and age_s < self._terms.remember_s
        if owed or remembered:
            mark = payload_mark(body) if body.request_id is not None else b""
            self._append(request.seq, kept_of([request, *answer, end], context, mark, age_s))
        elif leaves_trace(self._terms, self._cause, age_s, again=False):
            self._append(request.seq, kept_of([request, thinned(end)], context, b"", age_s))

    def _kept_before(self, piece: _Piece) -> None:
        """What was kept of an execution when its own events were pruned: for longer, for less, or no more."""
        event = piece.event()
        body = event.body
        assert isinstance(body, ExecutionCarried), event
        parts = held_by(event)
        execution = parts[0].seq
        if place_of(self._eventlog, execution) != event.seq:
            return
        age_s = body.age_s + self._age_s(piece.context)
        if execution in self._needed.owed or (body.mark and age_s < self._terms.remember_s):
            self._append(execution, replace(body, age_s=age_s))
        elif leaves_trace(self._terms, self._cause, age_s, again=not body.mark):
            self._append(execution, kept_of([parts[0], thinned(parts[-1])], body.context, b"", age_s))

    def _append(self, execution: int, body: ExecutionCarried) -> None:
        place = place_of(self._eventlog, execution)
        if place > self._through and isinstance(self._eventlog.raw(place).body, ExecutionCarried):
            return  # written before, by a runtime that ended in between
        self._gate.append(body, execution=execution, held_back=True)
        self.carried += 1

    def _age_s(self, context: bytes) -> int:
        known = Context.decode(context)
        return self._on_time.age_s(known.boot_id, known.at.mono_ns)


def _head(piece: _Piece) -> tuple[int, int | None, str | None]:
    """Type, execution and step of an event, without the rest of it."""
    parts: list[Any] = decode(piece.envelope)
    code, execution, step = (*parts[:3], None, None)[:3]
    return code, piece.seq if execution == 0 else execution, step
