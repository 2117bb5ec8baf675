"""Events as bytes: an envelope and a body, each one piece of CBOR.

Called by `edge.core.chain`. Inside, a type is a small integer and a body a map of field number to value, so that an
event of a small step takes some forty bytes; a field at its default is not written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.event_body import Body
from edge.core.events import BODIES, Event

_BY_CODE: Final = {body.CODE: body for body in BODIES}
_NAMES: Final = {body: tuple(f.name for f in fields(body)) for body in BODIES}
_DEFAULTS: Final = {body: tuple(f.default for f in fields(body)) for body in BODIES}


def _values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """All fields of a body in one call; with fewer than two, attrgetter gives no tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda body: tuple(getattr(body, name) for name in names)


_VALUES: Final = {body: _values_of(names) for body, names in _NAMES.items()}
assert len(_BY_CODE) == len(BODIES), "a type code is used twice"


def encode_body(body: Body) -> bytes:
    """A body as CBOR: a map of field number to value; fields at their default are left out."""
    kind = type(body)
    pairs = enumerate(zip(_VALUES[kind](body), _DEFAULTS[kind], strict=True))
    return encode(
        {number: value for number, (value, default) in pairs if value is not default and value != default}
    )


def encode_envelope(event: Event) -> bytes:
    """The envelope as CBOR: an array, cut after its last field that is not at its default.

    The sequence number is not in it: it is the group's first plus the event's place (design §5); the chain
    hashes it all the same. `execution` is written as 0 in the request itself, whose number it is.
    """
    execution = 0 if event.execution == event.seq else event.execution
    if event.cause is None and not event.iteration and event.attempt == 1 and event.visit == 0:
        # Nearly every event: written by hand, because it costs a third of a call to the encoder.
        if execution is not None:
            head = _uint(event.body.CODE) + _uint(execution)
            return b"\x82" + head if event.step is None else b"\x83" + head + _text(event.step)
        if event.step is None:
            return b"\x81" + _uint(event.body.CODE)
    parts: list[Any] = [event.body.CODE, execution, event.step, event.visit, event.attempt]
    if event.cause is not None:
        parts += (list(event.iteration), event.cause)
    elif event.iteration:
        parts.append(list(event.iteration))
    elif event.attempt == 1:
        del parts[4 if event.visit else 3 :]
    return encode(parts)


def _uint(number: int) -> bytes:
    """An unsigned integer in CBOR's shortest form (RFC 8949 §3.1)."""
    if number < 24:
        return _SMALL[number]
    if number < 256:
        return b"\x18" + number.to_bytes(1, "big")
    if number < 65_536:
        return b"\x19" + number.to_bytes(2, "big")
    if number < 2**32:
        return b"\x1a" + number.to_bytes(4, "big")
    return b"\x1b" + number.to_bytes(8, "big")


_SMALL: Final = tuple(bytes([number]) for number in range(24))


@lru_cache(maxsize=1024)
def _text(text: str) -> bytes:
    return encode(text)


def decode_event(seq: int, envelope: bytes, body: bytes) -> Event:
    """One event from its two parts. Raises ValueError where they are not of a version this code knows."""
    parts = decode(envelope)
    if not isinstance(parts, list) or not parts or type(parts[0]) is not int or parts[0] not in _BY_CODE:
        raise ValueError(f"event {seq} has no known type; a newer release wrote it")
    kind = _BY_CODE[parts[0]]
    values = decode(body)
    names = _NAMES[kind]
    # The common case in one look: all keys are whole numbers, and no more than there are fields.
    if not isinstance(values, dict) or (
        values and ({*map(type, values)} != _WHOLE or max(values) >= len(names) or min(values) < 0)
    ):
        raise ValueError(f"event {seq} ({kind.TYPE}) has a field this release does not know")
    try:
        made = kind(**{names[number]: value for number, value in values.items()})
    except TypeError as error:
        raise ValueError(f"event {seq} ({kind.TYPE}) lacks a field: {error}") from error
    return _with_envelope(seq, made, parts)


_WHOLE: Final = {int}
_ENVELOPE: Final = (int, str, int, int, list, int)
_ENVELOPE_DEFAULTS: Final[tuple[Any, ...]] = (None, None, 0, 1, (), None)


def _with_envelope(seq: int, body: Body, parts: list[Any]) -> Event:
    if len(parts) == 3 and type(parts[1]) is int and type(parts[2]) is str:
        return Event(seq, body, parts[1] or seq, parts[2])  # nearly every event
    if len(parts) > 1 + len(_ENVELOPE):
        raise ValueError(f"event {seq} has an envelope of {len(parts)} fields; a newer release wrote it")
    for part, kind in zip(parts[1:], _ENVELOPE, strict=False):
        if part is not None and type(part) is not kind:
            raise ValueError(
                f"event {seq} has {type(part).__name__} in its envelope where {kind.__name__} belongs"
            )
    whole = [*parts[1:], *_ENVELOPE_DEFAULTS[len(parts) - 1 :]]
    execution, step, visit, attempt, iteration, cause = whole
    if execution == 0:
        execution = seq
    return Event(seq, body, execution, step, visit, tuple(iteration), attempt, cause)
