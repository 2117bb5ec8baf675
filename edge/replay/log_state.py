"""What a whole log says, as one digest: every execution folded, on the box event by event, at the centre by shapes.

Called by `edge replay --all` and `edge central show`. A source of segments gives its events as columns, and of those
each sequence of shapes is folded once (`edge.replay.programs`), which is some ten times as fast; what has no shape,
and all of a source that has no columns, goes through `histories` or the same fold. Both give the same digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from edge.core.carried import COPIES, held_by
from edge.core.errors import LogDamaged
from edge.core.events import Event, ExecutionFinished, ExecutionRequested
from edge.core.records import record
from edge.core.retention_events import ExecutionCarried
from edge.core.state import EXECUTION_BODIES, RUNNING, fold
from edge.replay.programs import Program
from edge.replay.reconstruct import events_of, histories
from edge.replay.shapes import RAW, Met, Shapes, raw
from edge.replay.source import Columned, Source
from edge.replay.state_digest import log_digest, state_digest

#: So many sequences of shapes are remembered; beyond them an execution that goes a new way is folded for itself.
_PROGRAMS_MAX: Final = 4_096
_SEEN_MAX: Final = 65_536


@record
class LogState:
    """A whole log: its events and executions, and one digest of all.

    `open` have not ended, of `thinned` only request, answer and end are kept, of `beheaded` the request is lost and
    nothing can be folded. `lacks` says what of the log is not here.
    """

    events: int
    executions: int
    open: int
    thinned: int
    beheaded: int
    through: int
    digest: bytes
    lacks: str = ""


def log_state(source: Source, through: int | None = None) -> LogState:
    """Everything a log says, as one digest. Raises LogDamaged, SegmentRejected."""
    end, lacks = _end_of(source, through)
    folded = _Folded()
    events, last = _by_shapes(folded, source) if end is None and isinstance(source, Columned) else (
        _one_by_one(folded, source, end)
    )  # fmt: skip
    digest = log_digest(source.log_id, folded.found)
    return LogState(
        events, len(folded.found), folded.open, folded.thinned, folded.beheaded, last, digest, lacks
    )


def _end_of(source: Source, through: int | None) -> tuple[int | None, str]:
    """How far a log can be folded: up to what is missing of it."""
    first = next((each for each in source.missing if through is None or each.first <= through), None)
    if first is None:
        return through, ""
    return first.first - 1, f"{first.why} not here: this is the state after event {first.first - 1}"


class _Folded:
    """The digests found so far, and what is counted of them."""

    def __init__(self) -> None:
        self.found: list[tuple[int, bytes]] = []
        self.open = self.thinned = self.beheaded = 0

    def add(self, history: list[Event]) -> bytes | None:
        """One history more; its state's digest, where it has its request. Raises LogDamaged."""
        if type(held_by(history[0])[0].body) is not ExecutionRequested:
            self.beheaded += 1
            return None
        state = fold(history)
        digest = state_digest(state)
        self.found.append((state.seq, digest))
        self.open += state.status == RUNNING
        self.thinned += type(history[-1].body) is ExecutionCarried
        return digest


def _one_by_one(folded: _Folded, source: Source, end: int | None) -> tuple[int, int]:
    events = last = 0

    def counted() -> Iterator[Event]:
        nonlocal events, last
        for event in events_of(source, through=end):
            events, last = events + 1, max(last, event.seq if end is None else min(event.seq, end))
            yield event

    for history in histories(counted()):
        folded.add(history)
    return events, last


def _by_shapes(folded: _Folded, source: Columned) -> tuple[int, int]:
    by_shape = _ByShape(folded)
    events = last = 0
    for part in source.columns():
        if isinstance(part, tuple):
            numbers, rows = part
            streams = [by_shape.shapes.stream(each) for each in rows]
            by_shape.meet(map(next, map(streams.__getitem__, numbers)))
            events, last = events + len(numbers), max(last, *(each.seqs[-1] for each in rows if each.seqs))
        else:
            by_shape.meet(raw(event) for group in part for event in group.events())
            events, last = events + sum(len(each.parts) // 2 for each in part), part[-1].last_seq
    by_shape.close()
    return events, last


class _ByShape:
    """Executions as sequences of shapes, with their rows' items one behind the other."""

    def __init__(self, folded: _Folded) -> None:
        self.shapes = Shapes()
        self._folded = folded
        self._going: dict[int, tuple[list[int], list[Any]]] = {}
        self._ended: set[int] = set()
        self._programs: dict[tuple[int, ...], Program] = {}
        self._seen: set[tuple[int, ...]] = set()

    def meet(self, events: Iterable[Met | None]) -> None:
        """The events of one segment, in order. Raises LogDamaged."""
        going, ends = self._going, self.shapes.ends
        for met in events:
            if met is None:
                continue
            shape, execution, row = met
            if shape == RAW:
                self._meet_raw(execution, row[0])
                continue
            held = going.get(execution)
            if held is None:
                held = going[execution] = ([shape], list(row))
            else:
                held[0].append(shape)
                held[1].extend(row)
            if shape in ends:
                self._end(execution)

    def _meet_raw(self, execution: int, event: Event) -> None:
        """As `edge.replay.reconstruct.histories` does with each."""
        ends = type(event.body) in (ExecutionFinished, ExecutionCarried)
        if type(event.body) in COPIES:
            held = held_by(event)[0]
            if (
                held.execution is None
                or held.execution in self._ended
                or type(held.body) not in EXECUTION_BODIES
            ):
                return
            execution = held.execution
        shapes, items = self._going.setdefault(execution, ([], []))
        shapes.append(RAW)
        items.append(event)
        if ends:
            self._end(execution)

    def _end(self, execution: int) -> None:
        self._ended.add(execution)
        self._settle(execution, *self._going.pop(execution))

    def close(self) -> None:
        """What has not ended."""
        for execution, held in self._going.items():
            self._settle(execution, *held)
        self._going.clear()

    def _settle(self, execution: int, shapes: list[int], items: list[Any]) -> None:
        key = tuple(shapes)
        program = self._programs.get(key)
        if program is None:
            self._settle_new(key, execution, items)
            return
        program.uses += 1
        digest = program.digest(items)
        if program.uses & (program.uses - 1) == 0:
            own = state_digest(fold(self._history(key, execution, items)))
            assert digest == own, f"execution {execution} does not fold as others of its shapes do"
        self._folded.found.append((execution, digest))
        self._folded.open += program.running

    def _settle_new(self, key: tuple[int, ...], execution: int, items: list[Any]) -> None:
        """Folded for itself; where it went a way that was gone before, that way is remembered."""
        digest = self._folded.add(self._history(key, execution, items))
        if digest is None or RAW in key:
            return
        if key not in self._seen:
            if len(self._seen) < _SEEN_MAX:
                self._seen.add(key)
            return
        if len(self._programs) < _PROGRAMS_MAX:
            made = Program([shape for number in key if (shape := self.shapes.known[number]) is not None])
            assert made.digest(items) == digest, f"execution {execution} does not fold as its shapes do"
            self._programs[key] = made

    def _history(self, key: tuple[int, ...], execution: int, items: list[Any]) -> list[Event]:
        history: list[Event] = []
        first = 0
        for number in key:
            shape = self.shapes.known[number]
            if shape is None:
                history.append(items[first])
                first += 1
                continue
            try:
                history.append(shape.event(items[first : first + shape.width], execution))
            except ValueError as error:
                raise LogDamaged(str(error)) from error
            first += shape.width
        return history
