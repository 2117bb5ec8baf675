"""Events that were written again before their place in the log was pruned: put in, and taken out.

Used by whoever reads histories: the fold, the index, the command line, the centre. A reader of whole events need not
know of them: `logical` gives one execution's history as it was. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edge.core.errors import LogDamaged
from edge.core.event_codec import decode_event, encode_body, encode_envelope
from edge.core.events import Event, ExecutionFinished, ExecutionRequested
from edge.core.retention_events import Carried, ExecutionCarried

#: Types whose events stand for others.
COPIES = (Carried, ExecutionCarried)


def held_by(event: Event) -> tuple[Event, ...]:
    """What an event says: itself, or the events it stands for. Raises LogDamaged."""
    body = event.body
    try:
        if type(body) is Carried:
            return (decode_event(body.seq, body.envelope, body.body),)
        if type(body) is ExecutionCarried:
            return tuple(decode_event(*part) for part in body.parts)
    except (ValueError, TypeError) as error:
        raise LogDamaged(f"Event {event.seq} carries one that cannot be read: {error}") from error
    return (event,)


def logical(history: list[Event]) -> list[Event]:
    """The history of one execution as it was before anything of it was pruned, oldest first. Raises LogDamaged.

    What is kept of an execution that ended stands for all of it. A copy beside its original counts once.
    """
    copies = [event for event in history if type(event.body) in COPIES]
    if not copies:
        return history
    ended = [event for event in copies if type(event.body) is ExecutionCarried]
    if ended:
        return list(held_by(ended[-1]))
    known = {each.seq: each for event in reversed(history) for each in held_by(event)}
    return [known[seq] for seq in sorted(known)]


def unfolded(events: Iterable[Event]) -> Iterable[Event]:
    """All events with copies taken apart, in the order of the log: what is carried comes later than it happened."""
    for event in events:
        yield from held_by(event)


def kept_of(events: Iterable[Event], context: bytes, mark: bytes, age_s: int) -> ExecutionCarried:
    """What is to be kept of an execution that ended: `events` hold its request, its end, and what answers it."""
    parts = []
    for event in events:
        body = event.body
        if isinstance(body, ExecutionRequested):
            body = replace(body, payload=None, payload_digest=None)
        parts.append([event.seq, encode_envelope(event), encode_body(body)])
    return ExecutionCarried(parts, context, mark, age_s)


def thinned(event: Event) -> Event:
    """An end without its answer: that an execution was, and how it ended."""
    body = event.body
    assert isinstance(body, ExecutionFinished), event
    return replace(event, body=ExecutionFinished(body.status, problem=body.problem))
