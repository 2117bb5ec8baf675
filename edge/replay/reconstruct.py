"""State again from recorded outcomes alone: a pure fold, without a playbook, to the end or to a place in the log.

Called by `edge replay` and `edge central show`. Nothing is run and nothing evaluated: the decisions stand in the
events (design §4). Where the source has not all events, what it lacks is said with the state, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from edge.core.carried import COPIES, held_by
from edge.core.chain import OpenedGroup
from edge.core.codec import encode
from edge.core.endings import what_counts
from edge.core.errors import LogDamaged, RequestRefused
from edge.core.events import Event, ExecutionFinished, ExecutionRequested
from edge.core.records import record
from edge.core.retention_events import ExecutionCarried
from edge.core.state import EXECUTION_BODIES, RUNNING, Execution, fold
from edge.replay.source import Source
from edge.replay.state_digest import state_digest

#: How the envelope of a copy begins, behind its head.
_COPY_CODES: Final = frozenset(encode(each.CODE) for each in COPIES)


@record
class Reconstructed:
    """One execution's state, the events it was folded of, and its digest.

    `through` is its last event that was looked at; `thinned`, that only request, answer and end are kept of it.
    """

    execution: int
    state: Execution
    events: tuple[Event, ...]
    digest: bytes
    through: int
    thinned: bool = False


def events_of(
    source: Source, after_seq: int = 0, through: int | None = None, *, of: int | None = None
) -> Iterator[Event]:
    """A log's events up to a place in it, and what stands later in it for such as are pruned. Raises LogDamaged, ….

    A copy comes when it was written, so later than what it stands for. Where they are wanted `of` one execution, what
    is surely not its own is left out without decoding it.
    """
    pruned = False
    for place, group in enumerate(source.groups(after_seq)):
        pruned = pruned or (place == 0 and group.first_seq > after_seq + 1)
        made = group.events() if of is None else list(_perhaps_of(group, of))
        if through is None or group.last_seq <= through:
            yield from made
        elif group.first_seq <= through or pruned:
            yield from (event for event in made if _is_of(event, through))
        else:
            return


def _perhaps_of(group: OpenedGroup, execution: int) -> Iterator[Event]:
    """Events whose envelope has that number somewhere in it, the request itself, and all copies."""
    number = encode(execution)
    for place in range(0, len(group.parts), 2):
        envelope = group.parts[place]
        seq = group.first_seq + place // 2
        if number in envelope or seq == execution or envelope[1:3] in _COPY_CODES:
            yield group.event(seq)


def _is_of(event: Event, through: int) -> bool:
    """Whether an event tells of what was at a place in the log."""
    return event.seq <= through or (type(event.body) in COPIES and held_by(event)[-1].seq <= through)


def histories(events: Iterable[Event]) -> Iterator[list[Event]]:
    """The histories in some events, each when it ends, those that do not at last. Raises LogDamaged.

    What was carried counts for the executions whose own events are no longer there.
    """
    going: dict[int, list[Event]] = {}
    ended: set[int] = set()
    for event in events:
        kind = type(event.body)
        if kind in EXECUTION_BODIES:
            execution = event.execution
            assert execution is not None, event
            history = going.get(execution)
            if history is None:
                going[execution] = [event]
            else:
                history.append(event)
            if kind is ExecutionFinished:
                ended.add(execution)
                yield going.pop(execution)
        elif kind in COPIES:
            held = held_by(event)
            execution = held[0].execution
            if execution is None or execution in ended or type(held[0].body) not in EXECUTION_BODIES:
                continue
            going.setdefault(execution, []).append(event)
            if kind is ExecutionCarried:
                ended.add(execution)
                yield going.pop(execution)
    yield from going.values()


def reconstruct(source: Source, execution: int, through: int | None = None) -> Reconstructed:
    """One execution as it was after event `through`, or as it is now. Raises RequestRefused, LogDamaged, …."""
    gap = next((each for each in source.missing if each.first <= execution <= each.last), None)
    if gap is not None:
        raise RequestRefused(
            f"Execution {execution} began among events that are not here ({gap.why}).",
            mend="Bring the missing segments; `edge central gaps` lists them.",
        )
    if through is not None and through < execution:
        raise RequestRefused(
            f"Execution {execution} had not begun at event {through}: it is named after the event that began it.",
            mend="Ask for a later event.",
        )
    history: list[Event] = []
    last = execution
    for event in events_of(source, execution - 1, through, of=execution):
        last = max(last, event.seq)
        if _belongs(event, execution):
            history.append(event)
            if type(event.body) in (ExecutionFinished, ExecutionCarried):
                break
    if not history or type(held_by(history[0])[0].body) is not ExecutionRequested:
        raise _absent(source, execution)
    state = fold(history)
    if state.status == RUNNING:
        _require_whole(source, execution, through)
    thinned = type(history[-1].body) is ExecutionCarried
    events = tuple(what_counts(history))
    last = last if through is None else min(last, through)
    return Reconstructed(execution, state, events, state_digest(state), last, thinned)


def _belongs(event: Event, execution: int) -> bool:
    if type(event.body) in COPIES:
        held = held_by(event)[0]
        return held.execution == execution and type(held.body) in EXECUTION_BODIES
    return event.execution == execution and type(event.body) in EXECUTION_BODIES


def _absent(source: Source, execution: int) -> RequestRefused:
    first = next((group.first_seq for group in source.groups()), 0)
    if first > execution > 0:
        return RequestRefused(
            f"The log begins at event {first} now: execution {execution} was pruned.",
            mend="Replay it where the log was stored upstream: edge central show.",
            code="execution_pruned",
        )
    return RequestRefused(
        f"There is no execution {execution} in log {source.log_id.hex()} of {source.box}.",
        mend="An execution's id is the log's, a dash, and the number of the event that requested it.",
    )


def _require_whole(source: Source, execution: int, through: int | None) -> None:
    """Raises LogDamaged where events of an execution that has not ended may be among those that are not here."""
    after = (each for each in source.missing if each.first > execution)
    gap = next((each for each in after if through is None or each.first <= through), None)
    if gap is not None:
        raise LogDamaged(
            f"Events {gap.first} to {gap.last} are not here ({gap.why}): some may be execution {execution}'s.",
            mend=f"Bring them, or ask for the state before: --at-seq {gap.first - 1}.",
        )
