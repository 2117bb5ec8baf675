"""The closed set of events: what the log can say, and how each is written down.

The runtime appends these, `edge.core.state` folds them, replay and the command line read them. Nothing here
may look at a clock, a file or a socket. Names follow NoETL's documented taxonomy where it has one (design
§5). Inside the codec a type is a small integer and a body is a map of field number to value, so that an
event of a small step takes some forty bytes; outside, names are used.

A type or field number is never used again for something else. A field may be added at the end with a
default; anything more is a new type and an upcaster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Final

from edge.core.codec import decode, encode
from edge.core.records import record
from edge.core.values import TableRef

#: Version of the envelope and of all bodies below, written in every segment header.
FORMAT_VERSION: Final = 1


@record
class Body:
    """What happened; each subclass is one event type."""

    CODE: ClassVar[int]
    TYPE: ClassVar[str]


@record
class BootStarted(Body):
    """A runtime opened the log. `clean` is False where the one before did not say goodbye."""

    CODE: ClassVar[int] = 1
    TYPE: ClassVar[str] = "boot.started"
    version: str
    box: str
    clean: bool = True


@record
class CatalogRegistered(Body):
    """A playbook's blueprint, whole: the log can be replayed alone. `digest` is SHA-256 of `blueprint`."""

    CODE: ClassVar[int] = 2
    TYPE: ClassVar[str] = "catalog.registered"
    path: str
    digest: bytes
    blueprint: bytes


@record
class ExecutionRequested(Body):
    """A request was accepted; the execution is named after this event's sequence number.

    `payload` holds up to 64 KiB; a larger one is a blob named by `payload_digest` (SHA-256). `form` is how it
    came and therefore how it is answered: "v5", "v311" or "local". `deadline_ms` is relative to the event.
    """

    CODE: ClassVar[int] = 3
    TYPE: ClassVar[str] = "playbook.execution.requested"
    digest: bytes
    principal: str
    request_id: str | None = None
    form: str = "v5"
    response_topic: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    payload: bytes | None = None
    payload_digest: bytes | None = None
    receipt: bool = True
    deadline_ms: int | None = None
    traceparent: str | None = None


@record
class RequestRefusedNoted(Body):
    """One request was refused, or `count` of them in a flood (then only `code` says why)."""

    CODE: ClassVar[int] = 4
    TYPE: ClassVar[str] = "request.refused"
    code: str
    principal: str | None = None
    playbook: str | None = None
    request_id: str | None = None
    count: int = 1


@record
class StepStarted(Body):
    """The intent of a `write` step, durable before the tool runs; in a pipeline that of its invocation `number`."""

    CODE: ClassVar[int] = 5
    TYPE: ClassVar[str] = "step.started"
    number: int = 0


@record
class StepDone(Body):
    """A step's one recorded outcome and the decision that followed it.

    Exactly one of these says where the output is: `value` (CBOR bytes, inline), `table` (a reference; the
    block is in the cache), `digest` alone (SHA-256 of CBOR bytes that are made again by running the step).
    A pure step's table is made again the same way; tables of `read` and `write` steps are truth:
    `table_bytes` holds the Arrow stream up to 64 KiB, else the blob store holds it under its digest.
    `arc` is the index of the arc taken (None: no arc matched or there is none), `ctx` the `set` patches.
    `ways` stands in place of `arc` where the execution has, or now gets, more than one token, or a token that
    carries something: each is `[arc, target step(, args(, back))]`, `back` true where the arc closes a circle.
    `problem` says why no way on could be decided (an expression failed): the step is done, the execution fails.
    """

    CODE: ClassVar[int] = 6
    TYPE: ClassVar[str] = "step.done"
    value: bytes | None = None
    table: TableRef | None = None
    digest: bytes | None = None
    table_bytes: bytes | None = None
    arc: int | None = None
    ctx: dict[str, Any] | None = None
    duration_us: int = 0
    problem: dict[str, Any] | None = None
    ways: list[Any] | None = None


@record
class StepFailed(Body):
    """A step's one recorded outcome: it failed for good. `problem` is `{code, message[, mend]}`.

    `ways` are the ways on that ask for failures, as in StepDone, empty where the playbook bears the failure;
    None where it ends the execution. `ctx` are the patches of the arcs taken.
    """

    CODE: ClassVar[int] = 7
    TYPE: ClassVar[str] = "step.failed"
    problem: dict[str, Any]
    duration_us: int = 0
    ways: list[Any] | None = None
    ctx: dict[str, Any] | None = None


@record
class AttemptLost(Body):
    """One attempt ended without an outcome: its worker died or ran past its time. `reason` says how."""

    CODE: ClassVar[int] = 8
    TYPE: ClassVar[str] = "step.attempt.lost"
    reason: str
    code: str = "worker_lost"


@record
class ExecutionResumed(Body):
    """A restarted runtime is about to dispatch again; counted, so that nothing loops through restarts."""

    CODE: ClassVar[int] = 9
    TYPE: ClassVar[str] = "execution.resumed"


@record
class ExecutionFinished(Body):
    """The execution ended: `completed` or `failed`.

    The answer is the output of `result_step` where its event holds it, else `result` (bytes as sent, up to
    64 KiB), else the blob `result_digest`; `result_kind` is "value" or "table" for the latter two.
    """

    CODE: ClassVar[int] = 10
    TYPE: ClassVar[str] = "playbook.execution.finished"
    status: str = "completed"
    result_step: str | None = None
    result: bytes | None = None
    result_digest: bytes | None = None
    result_kind: str = "value"
    problem: dict[str, Any] | None = None


@record
class ResponsesDelivered(Body):
    """Every answer of an execution that finished at or below `through` reached the broker, `but` these.

    A watermark, written seldom: an event per answer would cost more than the answer.
    """

    CODE: ClassVar[int] = 11
    TYPE: ClassVar[str] = "responses.delivered"
    through: int
    but: list[int] | None = None


@record
class Gap(Body):
    """Sequence numbers `first` to `last` are damaged or missing, and why."""

    CODE: ClassVar[int] = 12
    TYPE: ClassVar[str] = "gap"
    first: int
    last: int
    cause: str


@record
class BootStopped(Body):
    """The runtime closed the log in order."""

    CODE: ClassVar[int] = 13
    TYPE: ClassVar[str] = "boot.stopped"


@record
class TaskDone(Body):
    """The recorded outcome of one `read` or `write` task of a pipeline; what is pure is made again.

    `number` counts the invocations of the pipeline's run from 0, `task` is its name. The output stands as in
    StepDone: `value`, or `table` with `table_bytes` up to 64 KiB, else a blob; or `problem`, where the attempt
    failed. The last invocation has no event of its own where its output is the step's.
    """

    CODE: ClassVar[int] = 14
    TYPE: ClassVar[str] = "task.done"
    number: int
    task: str
    value: bytes | None = None
    table: TableRef | None = None
    table_bytes: bytes | None = None
    problem: dict[str, Any] | None = None
    duration_us: int = 0


BODIES: Final[tuple[type[Body], ...]] = (
    BootStarted,
    CatalogRegistered,
    ExecutionRequested,
    RequestRefusedNoted,
    StepStarted,
    StepDone,
    StepFailed,
    AttemptLost,
    ExecutionResumed,
    ExecutionFinished,
    ResponsesDelivered,
    Gap,
    BootStopped,
    TaskDone,
)
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


@record
class Event:
    """One event as the fold sees it. `execution` is the sequence number of its request.

    `visit` counts how often the execution came to `step`, from 0; `attempt` from 1. `cause` is the sequence
    number of the event that led to this one, where it is not simply the one before it in the execution.
    """

    seq: int
    body: Body
    execution: int | None = None
    step: str | None = None
    visit: int = 0
    iteration: tuple[int, ...] = ()
    attempt: int = 1
    cause: int | None = None

    @property
    def type(self) -> str:
        """The type's name as the outside knows it."""
        return self.body.TYPE


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
    if not isinstance(values, dict) or any(
        type(number) is not int or not 0 <= number < len(names) for number in values
    ):
        raise ValueError(f"event {seq} ({kind.TYPE}) has a field this release does not know")
    try:
        made = kind(**{names[number]: value for number, value in values.items()})
    except TypeError as error:
        raise ValueError(f"event {seq} ({kind.TYPE}) lacks a field: {error}") from error
    return _with_envelope(seq, made, parts)


_ENVELOPE: Final = (int, str, int, int, list, int)
_ENVELOPE_DEFAULTS: Final[tuple[Any, ...]] = (None, None, 0, 1, (), None)


def _with_envelope(seq: int, body: Body, parts: list[Any]) -> Event:
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
