"""What runtime and worker say to each other: a claim, and one outcome for each step it carried.

Pure values and their frames; both sides import this, so that they cannot drift. Outputs travel as CBOR bytes
and are decoded only by whoever needs to look.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.codec import encode
from edge.core.records import record
from edge.core.values import BlockRef, Credential, TableRef, ValueRef

#: An outcome's kinds, as they stand in a frame.
PAUSE: Final = "pause"
VALUE: Final = "value"
TABLE: Final = "table"
FAILED: Final = "failed"
MISS: Final = "miss"


@record
class TaskRecord:
    """The outcome of one `read` or `write` task of a pipeline, for the log and for later goes of the same pipeline.

    `number` counts the pipeline's invocations from 0. Exactly one of `value` (CBOR bytes), `table` (a block: a table
    or a large value) and `problem` is set.
    """

    number: int
    task: str
    value: bytes | None = None
    table: BlockRef | None = None
    problem: dict[str, Any] | None = None
    duration_us: int = 0

    @property
    def size_bytes(self) -> int:
        """What it takes of a frame, about: its value, or its problem (an HTTP failure keeps what came)."""
        return _size_bytes(self.value, self.problem)

    def parts(self) -> list[Any]:
        """The record as part of a frame."""
        return [self.number, self.task, self.value, self.table, self.problem, self.duration_us]


@record
class Progress:
    """How far a pipeline came in earlier goes.

    That is what was recorded, before which invocation a pause was served last, and the intent that is durable.
    """

    recorded: tuple[TaskRecord, ...] = ()
    waited: int = 0
    intended: int | None = None

    def parts(self) -> list[Any]:
        """The progress as part of a claim."""
        return [[record.parts() for record in self.recorded], self.waited, self.intended]

    @classmethod
    def from_parts(cls, parts: list[Any]) -> Progress:
        """The progress from a claim's frame."""
        return cls(tuple(TaskRecord(*record) for record in parts[0]), parts[1], parts[2])


@record
class Items:
    """Neighbouring items of a loop, from index `first` on, of `total`; `values` is a CBOR list of them.

    Of a loop over a `table` there are no values: the items are `count` times `each` rows of it, each a map, or a
    table where `whole`. A count of 0 asks only that the table be opened.
    """

    first: int
    total: int
    values: bytes
    table: TableRef | None = None
    count: int = 0
    each: int = 1
    whole: bool = False

    def parts(self) -> list[Any]:
        """The items as part of a claim."""
        if self.table is None:
            return [self.first, self.total, self.values]
        return [self.first, self.total, self.values, self.table, self.count, self.each, self.whole]


@record
class Callbacks:
    """The callback tokens of a pipeline, one for each round it can come to in one go, and the topic they go below."""

    topic: str
    tokens: list[str]

    def parts(self) -> list[Any]:
        """The tokens as part of a claim."""
        return [self.topic, self.tokens]


@record
class Claim:
    """One straight run of steps of one execution, for one worker.

    `results` maps step names to CBOR bytes or table references, `workload` is CBOR bytes of a map or None
    where no step of the run reads it; `blueprint` is its bytes the first time a worker sees the digest.
    `table` refers to the table that came with the request, and `table_bytes` is its Arrow stream where that is
    small; a larger one is a block of the cache. `args` is what the tokens that led to the first step carry;
    `progress` says how far a pipeline came that had to stop before, None where this is its first go;
    `items` are those of a loop that its one step runs over, with an outcome for each; `callbacks` are the tokens of a
    step that waits for callbacks; `secrets` is what its steps were granted of the keychain, by alias; `circuits` say
    of downstreams `[failures in a row, refused for so many ms]`; `outer` is the iteration that began this
    execution, as CBOR bytes, where a step looks at it or hands it on.
    """

    number: int
    digest: bytes
    blueprint: bytes | None
    execution: int
    execution_id: str
    steps: tuple[int, ...]
    visit: int
    attempt: int
    workload: bytes | None
    ctx: dict[str, Any]
    results: dict[str, bytes | BlockRef]
    table: TableRef | None = None
    table_bytes: bytes | None = None
    args: dict[str, Any] | None = None
    progress: Progress | None = None
    items: Items | None = None
    callbacks: Callbacks | None = None
    secrets: dict[str, Credential] | None = None
    outer: bytes | None = None
    circuits: dict[str, list[int]] | None = None

    def message(self) -> list[Any]:
        """The claim as a frame's message."""
        return [
            self.number,
            self.digest,
            self.blueprint,
            self.execution,
            self.execution_id,
            list(self.steps),
            self.visit,
            self.attempt,
            self.workload,
            self.ctx,
            self.results,
            self.table,
            self.table_bytes,
            self.args,
            None if self.progress is None else self.progress.parts(),
            None if self.items is None else self.items.parts(),
            None if self.callbacks is None else self.callbacks.parts(),
            None if self.secrets is None else {alias: each.parts() for alias, each in self.secrets.items()},
            self.outer,
            self.circuits,
        ]

    @classmethod
    def from_message(cls, message: list[Any]) -> Claim:
        """The claim from a frame's message."""
        message[5] = tuple(message[5])
        if message[14] is not None:
            message[14] = Progress.from_parts(message[14])
        if message[15] is not None:
            message[15] = Items(*message[15])
        if message[16] is not None:
            message[16] = Callbacks(*message[16])
        if message[17] is not None:
            message[17] = {alias: Credential(*parts) for alias, parts in message[17].items()}
        return cls(*message)


@record
class Outcome:
    """How one step of a claim ended.

    `kind` VALUE: `value` is CBOR bytes. TABLE: `table` names the block written, a table or a large value.
    FAILED: `problem` is `{code, message[, mend]}`. MISS: a block named in `problem` was not there; nothing ran.
    PAUSE: a pipeline stopped before its end; `wait_ms` says for how long, None that it waits for the intent of the
    task whose number is `next_number`; `problem` names a block that was not there; `hosted` is `[kind, task, config]`
    of the task whose outcome the runtime brings about. `tasks` are a pipeline's new records, `ctx` what its rules
    wrote.
    `met` are the calls to downstreams with a circuit breaker, as `Circuits.over`
    (`edge.runtime.downstreams.circuits`) takes them.
    `adopted` is the request's table with rows and columns filled in, once a worker has validated it.
    """

    kind: str
    value: bytes | None = None
    table: BlockRef | None = None
    problem: dict[str, Any] | None = None
    duration_us: int = 0
    adopted: TableRef | None = None
    tasks: tuple[TaskRecord, ...] = ()
    ctx: dict[str, Any] | None = None
    wait_ms: int | None = None
    next_number: int = 0
    hosted: list[Any] | None = None
    met: tuple[list[Any], ...] = ()

    @property
    def size_bytes(self) -> int:
        """What it takes of a frame, about, with the records of its pipeline."""
        return _size_bytes(self.value, self.problem) + sum([task.size_bytes for task in self.tasks])

    def parts(self) -> list[Any]:
        """The outcome as part of a reply."""
        plain = [self.kind, self.value, self.table, self.problem, self.duration_us, self.adopted]
        if not self.tasks and self.ctx is None and self.kind != PAUSE and not self.met:
            return plain
        records = [record.parts() for record in self.tasks]
        return [*plain, records, self.ctx, self.wait_ms, self.next_number, self.hosted, list(self.met)]

    @classmethod
    def from_parts(cls, parts: list[Any]) -> Outcome:
        """The outcome from a reply. Raises TypeError where it has the wrong shape."""
        if len(parts) > 6:
            parts[6] = tuple(TaskRecord(*record) for record in parts[6])
            parts[11] = tuple(parts[11])
        return cls(*parts)


def _size_bytes(value: bytes | None, problem: dict[str, Any] | None) -> int:
    return len(value or b"") + (0 if problem is None else len(encode(problem)))


def reply(number: int, outcomes: list[Outcome], *, spent: bool = False) -> list[Any]:
    """A worker's whole answer to one claim; a process that is `spent` wants no other."""
    return [number, [outcome.parts() for outcome in outcomes], spent]


def read_reply(message: list[Any]) -> tuple[int, list[Outcome], bool]:
    """`(claim number, outcomes, whether the process is spent)`. Raises ValueError where a worker talks nonsense."""
    try:
        number, parts, spent = message
        outcomes = [Outcome.from_parts(part) for part in parts]
        for outcome in outcomes:
            _check(outcome)
    except TypeError as error:
        raise ValueError(f"a worker's reply has the wrong shape: {error}") from error
    if type(number) is not int or not outcomes:
        raise ValueError("a worker's reply names no claim or holds no outcome")
    return number, outcomes, bool(spent)


def _check(outcome: Outcome) -> None:
    kind = outcome.kind
    if kind == VALUE:
        sound = type(outcome.value) is bytes
    elif kind == TABLE:
        table = outcome.table
        sound = type(table) is ValueRef or (type(table) is TableRef and table.rows is not None)
    elif kind == PAUSE:
        sound = outcome.wait_ms is None or type(outcome.wait_ms) is int
        sound = sound and (
            outcome.hosted is None or [type(part) for part in outcome.hosted] == [str, str, dict]
        )
    else:
        sound = kind in (FAILED, MISS) and type(outcome.problem) is dict
    met_sound = all([type(part) for part in met] == [str, bool, int, int] for met in outcome.met)
    if not sound or not met_sound or type(outcome.duration_us) is not int:
        raise ValueError(f"a worker's outcome of kind {kind!r} has the wrong parts")
