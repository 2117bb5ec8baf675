"""What runtime and worker say to each other: a claim, and one outcome for each step it carried.

Pure values and their frames; both sides import this, so that they cannot drift. Outputs travel as CBOR bytes
and are decoded only by whoever needs to look.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.records import record
from edge.core.values import TableRef

#: An outcome's kinds, as they stand in a frame.
VALUE: Final = "value"
TABLE: Final = "table"
FAILED: Final = "failed"
MISS: Final = "miss"


@record
class Claim:
    """One straight run of steps of one execution, for one worker.

    `results` maps step names to CBOR bytes or table references, `workload` is CBOR bytes of a map or None
    where no step of the run reads it; `blueprint` is its bytes the first time a worker sees the digest.
    `table` refers to the table that came with the request, and `table_bytes` is its Arrow stream where that is
    small; a larger one is a block of the cache. `args` is what the tokens that led to the first step carry.
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
    results: dict[str, bytes | TableRef]
    table: TableRef | None = None
    table_bytes: bytes | None = None
    args: dict[str, Any] | None = None

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
        ]

    @classmethod
    def from_message(cls, message: list[Any]) -> Claim:
        """The claim from a frame's message."""
        message[5] = tuple(message[5])
        return cls(*message)


@record
class Outcome:
    """How one step of a claim ended.

    `kind` VALUE: `value` is CBOR bytes. TABLE: `table` names the block written. FAILED: `problem` is
    `{code, message[, mend]}`. MISS: a block named in `problem` was not in the cache; nothing ran.
    `adopted` is the request's table with rows and columns filled in, once a worker has validated it.
    """

    kind: str
    value: bytes | None = None
    table: TableRef | None = None
    problem: dict[str, Any] | None = None
    duration_us: int = 0
    adopted: TableRef | None = None

    def parts(self) -> list[Any]:
        """The outcome as part of a reply."""
        return [self.kind, self.value, self.table, self.problem, self.duration_us, self.adopted]


def reply(number: int, outcomes: list[Outcome], *, spent: bool = False) -> list[Any]:
    """A worker's whole answer to one claim; a process that is `spent` wants no other."""
    return [number, [outcome.parts() for outcome in outcomes], spent]


def read_reply(message: list[Any]) -> tuple[int, list[Outcome], bool]:
    """`(claim number, outcomes, whether the process is spent)`. Raises ValueError where a worker talks nonsense."""
    try:
        number, parts, spent = message
        outcomes = [Outcome(*part) for part in parts]
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
        sound = type(outcome.table) is TableRef and outcome.table.rows is not None
    else:
        sound = kind in (FAILED, MISS) and type(outcome.problem) is dict
    if not sound or type(outcome.duration_us) is not int:
        raise ValueError(f"a worker's outcome of kind {kind!r} has the wrong parts")
