"""The closed set of events: what the log can say.

The runtime appends these, `edge.core.state` folds them, replay and the command line read them. Nothing here
may look at a clock, a file or a socket. Names follow NoETL's documented taxonomy where it has one (design
§5). How they are written down stands in `edge.core.event_codec`.

A type or field number is never used again for something else. A field may be added at the end with a
default; anything more is a new type and an upcaster.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from edge.core.circuit_events import CIRCUIT_BODIES
from edge.core.event_body import Body
from edge.core.records import record
from edge.core.retention_events import RETENTION_BODIES, StorageRefusing
from edge.core.subscription_events import SUBSCRIPTION_BODIES, MessageDeadLettered
from edge.core.values import BlockRef

#: Version of the envelope and of all bodies below, written in every segment header.
FORMAT_VERSION: Final = 1


@record
class BootStarted(Body):
    """A runtime opened the log. `clean` is False where the one before did not say goodbye.

    `hash_seed` is the seed of Python's hashes in this boot: the order in which blocks saw sets of texts.
    """

    CODE: ClassVar[int] = 1
    TYPE: ClassVar[str] = "boot.started"
    version: str
    box: str
    clean: bool = True
    hash_seed: int | None = None


@record
class CatalogRegistered(Body):
    """A playbook's blueprint, whole: the log can be replayed alone. `digest` is SHA-256 of `blueprint`.

    `kind` is "playbook" or "subscription". All events of a subscription carry as their execution the number of its
    first registration, which names it for as long as its path does.
    """

    CODE: ClassVar[int] = 2
    TYPE: ClassVar[str] = "catalog.registered"
    path: str
    digest: bytes
    blueprint: bytes
    kind: str = "playbook"


@record
class ExecutionRequested(Body):
    """A request was accepted; the execution is named after this event's sequence number.

    `payload` holds up to 64 KiB; a larger one is a blob named by `payload_digest` (SHA-256). `form` is how it
    came and therefore how it is answered: "v5", "v311", "local", "subscription": not at all, or "child" for one that
    a task of another execution began: `parent` is that execution, the other fields of that name say which invocation
    it stands for, `depth` how many executions are above it. `deadline_ms` is relative to the event. The step
    `result_step` answers, where named; `iter` is the iteration that began a child which looks at it, as
    CBOR. `batch` names the messages that a subscription's execution takes instead of a payload:
    `[subscription, first, last, count, lane, attempt]`, those of that lane among its messages `first` to `last`.
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
    batch: list[Any] | None = None
    parent: int | None = None
    parent_step: str | None = None
    parent_visit: int = 0
    parent_item: int | None = None
    parent_task: str | None = None
    parent_number: int = 0
    depth: int = 0
    result_step: str | None = None
    iter: bytes | None = None


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

    Exactly one of these says where the output is: `value` (CBOR bytes, inline), `table` (a reference to a block
    of the cache, a table or a large value), `digest` alone (SHA-256 of CBOR bytes that are made again by running the
    step). A pure step's block is made again the same way; blocks of `read` and `write` steps are truth:
    `table_bytes` holds its bytes up to 64 KiB, else the blob store holds it under its digest.
    `arc` is the index of the arc taken (None: no arc matched or there is none), `ctx` the `set` patches.
    `ways` stands in place of `arc` where the execution has, or now gets, more than one token, or a token that
    carries something: each is `[arc, target step(, args(, back))]`, `back` true where the arc closes a circle.
    `problem` says why no way on could be decided (an expression failed): the step is done, the execution fails.
    """

    CODE: ClassVar[int] = 6
    TYPE: ClassVar[str] = "step.done"
    value: bytes | None = None
    table: BlockRef | None = None
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
    """The execution ended: `completed`, `failed` or `cancelled`.

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
    table: BlockRef | None = None
    table_bytes: bytes | None = None
    problem: dict[str, Any] | None = None
    duration_us: int = 0


@record
class LoopStarted(Body):
    """A step's loop begins: over how many items, and which: `items` as CBOR up to 64 KiB, else the blob `digest`."""

    CODE: ClassVar[int] = 15
    TYPE: ClassVar[str] = "loop.started"
    total: int
    items: bytes | None = None
    digest: bytes | None = None


@record
class LoopItems(Body):
    """The one committed outcome of each of some neighbouring items, from index `first` on.

    `results` is a CBOR list of their values, null where an item failed; `failed` says of those by index what went
    wrong. `ctx` is what their policies wrote.
    """

    CODE: ClassVar[int] = 16
    TYPE: ClassVar[str] = "loop.items"
    first: int
    count: int
    results: bytes
    failed: dict[int, Any] | None = None
    ctx: dict[str, Any] | None = None
    duration_us: int = 0


@record
class ExecutionCancelled(Body):
    """Somebody wants the execution to end: nothing more of it begins. `by` says who, `reason` why."""

    CODE: ClassVar[int] = 17
    TYPE: ClassVar[str] = "execution.cancelled"
    by: str
    reason: str | None = None


@record
class StepWaiting(Body):
    """A hosted task waits for what comes from outside the workers: invocation `number` of a pipeline.

    `kind` is the task's and `detail` what that kind must know to go on waiting after a restart. The wait begins when
    this event's group is written, whose clocks are in its context. A later event of the same number replaces it.
    """

    CODE: ClassVar[int] = 18
    TYPE: ClassVar[str] = "step.waiting"
    number: int
    task: str
    kind: str
    detail: dict[str, Any] | None = None


@record
class CallbackReceived(Body):
    """Somebody used the callback token of a step's visit, or of an item in it, for the wait of that `round`.

    `value` is what they sent, as CBOR, None where they sent nothing.
    """

    CODE: ClassVar[int] = 19
    TYPE: ClassVar[str] = "callback.received"
    round: int = 0
    value: bytes | None = None


@record
class ExecutionDeadline(Body):
    """The request's deadline passed: nothing more of the execution begins. `by` says how that was judged."""

    CODE: ClassVar[int] = 21
    TYPE: ClassVar[str] = "execution.deadline"
    deadline_ms: int
    by: str = "boottime"


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
    LoopStarted,
    LoopItems,
    ExecutionCancelled,
    StepWaiting,
    CallbackReceived,
    ExecutionDeadline,
    *CIRCUIT_BODIES,
    *SUBSCRIPTION_BODIES,
    *RETENTION_BODIES,
)

#: Somebody should hear of these before the next quarter of an hour: losses, a full box, messages given up on.
URGENT_TYPES: Final[frozenset[type[Body]]] = frozenset({Gap, StorageRefusing, MessageDeadLettered})


@record
class Event:
    """One event as the fold sees it. `execution` is the sequence number of its request.

    `visit` counts how often the execution came to `step`, from 0; `attempt` from 1. `cause` is the sequence
    number of the event that led to this one, where it is not simply the one before it in the execution: for the first
    event that a visit to a step records, the one after which it began.
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
