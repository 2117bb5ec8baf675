"""From what came back to what the log says: a step's outcome with the decision after it, and the end.

Owned by the executor. Decides where a value lives (design §4); evaluates `set` and arcs, so that `fold` never has to.
"""

from __future__ import annotations

import hashlib
from typing import Any

from edge.core.errors import CacheMiss, EdgeError
from edge.core.event_body import Body
from edge.core.events import AttemptLost, ExecutionFinished, StepDone, StepFailed, TaskDone
from edge.core.limits import INLINE_BYTES_MAX, INLINE_PURE_BYTES_MAX
from edge.core.routing import Routed
from edge.core.scheduler import Finish
from edge.core.settling import NOWHERE, completed, led, led_failed, said_ways
from edge.core.values import BlockRef, TableRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Live
from edge.runtime.running.rebuild import Outputs
from edge.store.blocks import Blocks
from edge.worker.claims import FAILED, Outcome, TaskRecord
from playbooks.shape import Step


class Recorder:
    """Makes the bodies of outcome events."""

    def __init__(self, gate: CommitGate, blocks: Blocks, outputs: Outputs) -> None:
        self._gate, self._blocks, self._outputs = gate, blocks, outputs

    def outcome(self, live: Live, index: int, outcome: Outcome, *, claim_bound: bool) -> tuple[Body, bool]:
        """`(event body, whether its flush may wait)` for one step's outcome, and the decision after it."""
        step = live.blueprint.steps[index]
        if outcome.kind == FAILED:
            problem = outcome.problem or {}
            return self.failure(live, index, problem, outcome.duration_us, outcome.ctx), False
        self.keep(live, step.name, outcome, claim_bound=claim_bound)
        try:
            routed, routing_problem = self._routed(live, index, outcome.ctx)
            body = self._done(live, step, outcome, routed, routing_problem)
        except CacheMiss as error:
            # A block vanished before the outcome was recorded: an attempt without one.
            self._outputs.forget_absent(live)
            live.results.pop(step.name, None)
            return AttemptLost(error.message, "output_lost"), False
        # The outcome of a write is wanted durable at once: until then nobody knows whether it had its effect.
        return body, step.effect != "write"

    def task(self, live: Live, record: TaskRecord, *, claim_bound: bool) -> TaskDone:
        """The body for one recorded task of a pipeline."""
        table_bytes = None
        if record.table is not None:
            # Noted first: reading it counts as use, and what is evicted now could not be read.
            self._note(live, record.table)
            if claim_bound and type(record.table) is TableRef:
                live.author_made.add(record.task)
            table_bytes = self._truth(live, record.table)
        return TaskDone(
            record.number,
            record.task,
            record.value,
            record.table,
            table_bytes,
            record.problem,
            record.duration_us,
        )

    def _routed(
        self, live: Live, index: int, written: dict[str, Any] | None
    ) -> tuple[Routed, dict[str, Any] | None]:
        """Where a step that is done leads, or why that cannot be said; `written` is what its policies set."""
        step = live.blueprint.steps[index]
        try:
            return led(live.blueprint, step, live.state, written, lambda: live.routing_scope(index))
        except CacheMiss as error:
            if step.effect != "write":
                raise
            # It had its effect, so it is done; what its arcs ask for is gone.
            return NOWHERE, {**error.problem(), "code": "cache_lost"}

    def keep_item(self, live: Live, step: str, ref: BlockRef, *, claim_bound: bool) -> None:
        """Keep the block that a loop's item gave, in the blob store too. Raises CacheMiss."""
        self._note(live, ref)
        if claim_bound and type(ref) is TableRef:
            live.author_made.add(step)
        self._gate.store_blob(ref.digest, self._outputs.block_bytes(live, ref))

    def loop_done(self, live: Live, index: int, value: bytes) -> StepDone:
        """The body for a loop whose items all have their outcome: those hold the values, this one their digest."""
        step = live.blueprint.steps[index]
        self._outputs.keep_loop(live, step.name, value)
        routed, problem = self._routed(live, index, None)
        arc, ways = said_ways(live.blueprint, step, live.state, routed)
        digest = hashlib.sha256(value).digest()
        return StepDone(digest=digest, arc=arc, ctx=routed.patches, problem=problem, ways=ways)

    def failure(
        self,
        live: Live,
        index: int,
        problem: dict[str, Any],
        duration_us: int,
        written: dict[str, Any] | None = None,
    ) -> StepFailed:
        """The body for a step that failed for good, with the arcs that ask for failures."""
        step = live.blueprint.steps[index]
        problem = completed(live.state, problem)
        try:
            ways, patches = led_failed(
                live.blueprint, step, live.state, written, lambda: live.routing_scope(index, problem)
            )
        except EdgeError as error:
            said = f"{problem.get('message', '')} And its arcs could not be asked: {error.message}"
            return StepFailed({**problem, "message": said.strip()}, duration_us)
        return StepFailed(problem, duration_us, ways, patches)

    def keep(self, live: Live, name: str, outcome: Outcome, *, claim_bound: bool) -> None:
        """Keep a step's output for the steps that read it."""
        if outcome.table is not None:
            if claim_bound and type(outcome.table) is TableRef:
                live.author_made.add(name)
            self._note(live, outcome.table)
            live.keep(name, outcome.table)
        else:
            assert outcome.value is not None
            live.keep(name, outcome.value)

    def _note(self, live: Live, ref: BlockRef) -> None:
        if live.request_table is None or ref.key != live.request_table.key:
            self._blocks.note(live.blueprint.digest, live.state.seq, ref.key, ref.size_bytes)

    def _truth(self, live: Live, ref: BlockRef) -> bytes | None:
        """The bytes of a table that is truth, for its event; None where they went into a blob. Raises CacheMiss."""
        data = self._outputs.block_bytes(live, ref)
        if len(data) <= INLINE_BYTES_MAX:
            return data
        self._gate.store_blob(ref.digest, data)
        return None

    def _done(
        self, live: Live, step: Step, outcome: Outcome, routed: Routed, problem: dict[str, Any] | None
    ) -> StepDone:
        """The outcome as the log keeps it (design §4, Where a value lives)."""
        pure = not step.kept
        table_bytes = None
        if outcome.table is not None and not pure:
            table_bytes = self._truth(live, outcome.table)
        value = outcome.value
        digest = None
        if value is not None and pure and len(value) > INLINE_PURE_BYTES_MAX:
            digest = hashlib.sha256(value).digest()
            value = None
        arc, ways = said_ways(live.blueprint, step, live.state, routed)
        return StepDone(
            value,
            outcome.table,
            digest,
            table_bytes,
            arc,
            routed.patches,
            outcome.duration_us,
            problem,
            ways,
        )

    def finished(self, live: Live, goal: Finish) -> ExecutionFinished:
        """The body of the end. Raises CacheMiss where the answer's table vanished."""
        name = goal.result_step
        if name is None:
            return ExecutionFinished(goal.status, problem=goal.problem)
        outcome = live.state.steps[name].outcome
        assert outcome is not None
        kept = live.blueprint.steps[live.blueprint.step_index[name]].kept
        if outcome.value is not None or (outcome.table is not None and kept):
            return ExecutionFinished(goal.status, name)
        # The answer leaves the box, so it is truth, even where the step behind it could be run again.
        output = live.results[name]
        if not isinstance(output, bytes):
            kind = "table" if type(output) is TableRef else "value"
            data = self._outputs.block_bytes(live, output)
        else:
            data, kind = output, "value"
        if len(data) <= INLINE_BYTES_MAX:
            return ExecutionFinished(goal.status, name, data, result_kind=kind)
        digest = hashlib.sha256(data).digest()
        self._gate.store_blob(digest, data)
        return ExecutionFinished(goal.status, name, None, digest, kind)
