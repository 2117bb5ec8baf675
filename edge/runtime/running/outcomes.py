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
from edge.core.routing import Routed, Way, check_args, check_ctx, needs_ways, no_arc_matched, route, ways_on
from edge.core.scheduler import Finish
from edge.core.values import BlockRef, TableRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Live
from edge.runtime.running.rebuild import Outputs
from edge.store.blocks import Blocks
from edge.worker.claims import FAILED, Outcome, TaskRecord
from playbooks.lookups import told_of_failed
from playbooks.shape import Step

_ON_BY_FIRST = Routed((Way(0),))
_NOWHERE = Routed()


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
        if written is None:
            if not step.arcs and not step.set:
                return _NOWHERE, None
            if step.goes_on_plainly:
                return _ON_BY_FIRST, None
        try:
            scope, ctx = live.routing_scope(index), live.state.ctx
            if written:
                ctx = {**ctx, **written}
                routed = route(step, {**scope, "ctx": ctx}, ctx)
                routed = Routed(routed.ways, {**written, **(routed.patches or {})})
            else:
                routed = route(step, scope, ctx)
            check_ctx(live.state.ctx, routed.patches)
            check_args(routed)
        except CacheMiss as error:
            if step.effect != "write":
                raise
            # It had its effect, so it is done; what its arcs ask for is gone.
            return _NOWHERE, {**error.problem(), "code": "cache_lost"}
        except EdgeError as error:
            return _NOWHERE, _completed(live, error.problem())
        if step.arcs and not routed.ways and live.blueprint.arc_needed:
            return routed, no_arc_matched(step)
        return routed, None

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
        arc, ways = self._ways(live, step, routed)
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
        problem = _completed(live, problem)
        ways: list[Any] | None = [] if step.best_effort else None
        ctx = {**live.state.ctx, **(written or {})}
        patches = written
        if any(arc.on_failure for arc in step.arcs):
            try:
                scope = {**live.routing_scope(index, problem), "ctx": ctx}
                routed = route(step, scope, ctx, failed=True)
                check_ctx(live.state.ctx, routed.patches)
                check_args(routed)
            except EdgeError as error:
                said = f"{problem.get('message', '')} And its arcs could not be asked: {error.message}"
                return StepFailed({**problem, "message": said.strip()}, duration_us)
            if routed.ways:
                ways = ways_on(live.blueprint, step, routed)
                patches = {**(written or {}), **(routed.patches or {})}
        return StepFailed(problem, duration_us, ways, patches or None)

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
        arc, ways = self._ways(live, step, routed)
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

    @staticmethod
    def _ways(live: Live, step: Step, routed: Routed) -> tuple[int | None, list[Any] | None]:
        """How the event says where the step leads: an arc's number where that is enough."""
        if needs_ways(live.state.tokens, routed):
            return None, ways_on(live.blueprint, step, routed)
        return (routed.ways[0].arc if routed.ways else None), None

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


def _completed(live: Live, problem: dict[str, Any]) -> dict[str, Any]:
    """What an expression failed of, with what its scope could not tell: which of the missing steps have failed."""
    if problem.get("code") != "expression_undefined":
        return problem
    known = live.state.steps.items()
    failed = {name: str((step.problem or {}).get("code")) for name, step in known if step.status == "failed"}
    return told_of_failed(problem, failed)
