"""Carries executions forward: ask `decide`, dispatch, record what came back, decide again.

Owned by the engine, called on the runtime's loop only. All events of running executions are appended here.
Inside the box nobody waits for a flush; only the intent of a `write` step and the answer stand at the gate
(design §4, output commit).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from edge.core.errors import CacheMiss, EdgeError, LogDamaged, StorageFailed
from edge.core.events import (
    AttemptLost,
    Body,
    ExecutionFinished,
    StepDone,
    StepFailed,
    StepStarted,
)
from edge.core.limits import (
    INLINE_BYTES_MAX,
    INLINE_PURE_BYTES_MAX,
)
from edge.core.scheduler import FailStep, Finish, Run, check_ctx, decide, route
from edge.core.state import evolve
from edge.core.values import TableRef
from edge.runtime.claim_plan import CLAIM_BYTES_MAX, ClaimPlan, inputs_problem, plan_of
from edge.runtime.commit import CommitGate
from edge.runtime.live import Live
from edge.runtime.rebuild import Outputs
from edge.runtime.workers import Work
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from edge.worker.claims import FAILED, MISS, TABLE, Claim, Outcome
from playbooks.blueprint import Step

#: How often an execution may find its blocks gone before it asks for the favour of keeping them (`Blocks.favour`),
#: and waits its turn for it: executions that need more together than the budget holds would evict each other's for
#: ever.
MISSES_FREE: Final = 3
#: How often an execution may find its blocks gone at all before it fails: somebody empties the folder.
MISSES_MAX: Final = 8


class Pool(Protocol):
    """Where claims go (`edge.runtime.workers.WorkerPool`)."""

    def submit(self, work: Work) -> None:
        """Queue a claim."""


class Executor:
    """The scheduler's hands."""

    def __init__(
        self, gate: CommitGate, blocks: Blocks, blobs: BlobStore, *, on_finished: Callable[[Live], None]
    ) -> None:
        self._gate, self._blocks = gate, blocks
        self._on_finished = on_finished
        self._outputs = Outputs(gate, blocks, blobs)
        self.pool: Pool | None = None
        self.open: dict[int, Live] = {}
        self._claims: dict[int, Live] = {}
        self._parked: deque[tuple[Live, Callable[[Live], None]]] = deque()
        self._claim_number = 0
        self._plans: dict[tuple[bytes, tuple[int, ...]], ClaimPlan] = {}

    # ---- what to do next -------------------------------------------------------------------------

    def advance(self, live: Live) -> None:
        """Carry one execution on until something is under way or it has ended."""
        while True:
            command = decide(live.blueprint, live.state)
            if command is None:
                return
            if isinstance(command, FailStep):
                self._append(
                    live,
                    StepFailed(command.problem),
                    command.step,
                    visit=command.visit,
                    attempt=command.attempt,
                )
                continue
            live.goal = command
            self._pursue(live)
            return

    def fail(self, live: Live, problem: dict[str, Any]) -> None:
        """End an execution that cannot go on."""
        self._finish(live, Finish("failed", problem=problem))

    def _append(self, live: Live, body: Body, step: str | None = None, **envelope: Any) -> int:
        event = self._gate.append(body, execution=live.state.seq, step=step, **envelope)
        live.state = evolve(live.state, event)
        return event.seq

    def _pursue(self, live: Live) -> None:
        """Work on the goal, or first on what it lacks."""
        goal = live.goal
        assert goal is not None, "nothing was decided"
        assert live.claim is None, "a claim is under way"
        try:
            lacking = self._lacking(live, goal)
        except (LogDamaged, StorageFailed) as error:
            self._finish(live, Finish("failed", problem=error.problem()))
            return
        if lacking is not None:
            self._rebuild(live, lacking)
        elif isinstance(goal, Finish):
            self._finish(live, goal)
        elif live.blueprint.steps[goal.steps[0]].effect == "write" and live.intent_seq == 0:
            self._record_intent(live, goal)
        else:
            results = {name: live.results[name] for name in live.needs(goal.steps)}
            self._submit(live, goal.steps, goal.visit, goal.attempt, live.state.ctx, results)

    def _record_intent(self, live: Live, run: Run) -> None:
        """The effect waits until its intent is durable."""
        step = live.blueprint.steps[run.steps[0]].name
        live.intent_seq = self._append(live, StepStarted(), step, visit=run.visit, attempt=run.attempt)
        self._gate.after(live.intent_seq, lambda _: self._pursue(live))

    def _lacking(self, live: Live, goal: Run | Finish) -> str | None:
        if isinstance(goal, Finish):
            names = [goal.result_step] if goal.result_step is not None else []
            return self._outputs.lacking(live, names, reads_workload=False)
        return self._outputs.lacking(
            live, live.needs(goal.steps), reads_workload=live.reads_workload(goal.steps)
        )

    def _rebuild(self, live: Live, name: str) -> None:
        """Run a settled pure step again on what it saw then."""
        try:
            past = self._outputs.as_it_was(live, name)
        except CacheMiss as error:
            self._finish(live, Finish("failed", problem={**error.problem(), "step": name}))
            return
        live.rebuilding = name
        index = live.blueprint.step_index[name]
        self._submit(live, (index,), live.state.steps[name].visit, 1, past.ctx, past.results)

    # ---- claims ------------------------------------------------------------------------------------

    def _submit(
        self,
        live: Live,
        steps: tuple[int, ...],
        visit: int,
        attempt: int,
        ctx: dict[str, Any],
        results: dict[str, bytes | TableRef],
    ) -> None:
        blueprint = live.blueprint
        plan = self._plans.get((blueprint.digest, steps))
        if plan is None:
            plan = self._plans[blueprint.digest, steps] = plan_of(blueprint, steps)
        workload = live.workload_bytes if plan.reads_workload else None
        size_bytes = sum([len(value) for value in results.values() if type(value) is bytes])
        if workload is not None:
            size_bytes += len(workload)
        if size_bytes > CLAIM_BYTES_MAX:
            self.fail(live, inputs_problem(blueprint.steps[steps[0]].name, size_bytes))
            return
        self._claim_number += 1
        self._blocks.require_folder(blueprint.digest)
        table = live.table_for(workload, results) if live.request_table is not None else None
        claim = Claim(
            self._claim_number,
            blueprint.digest,
            None,
            live.state.seq,
            live.execution_id,
            steps,
            visit,
            attempt,
            workload,
            ctx,
            results,
            table,
            live.request_table_bytes if table is not None else None,
        )
        live.claim = claim
        self._claims[claim.number] = live
        assert self.pool is not None
        folder = self._blocks.folder_name(blueprint.digest)
        live.claim_bound = plan.author_code or not live.author_made.isdisjoint(results)
        self.pool.submit(
            Work(claim, blueprint.data, plan.timeout_s, live.claim_bound, folder, plan.memory_mb)
        )

    def settled(self, claim: Claim, outcomes: list[Outcome]) -> None:
        """A worker answered (`edge.runtime.workers.Claims`)."""
        live = self._release(claim)
        rebuilding, live.rebuilding = live.rebuilding, None
        for place, outcome in enumerate(outcomes):
            if outcome.adopted is not None:
                live.request_table = outcome.adopted
            if outcome.kind == MISS:
                self._missed(live, anew=place > 0)
                return
            if rebuilding is not None:
                self._rebuilt(live, rebuilding, outcome)
                return
            visit, attempt = (claim.visit, claim.attempt) if place == 0 else (0, 1)
            self._record(live, claim.steps[place], visit, attempt, outcome)
        live.intent_seq = 0
        self.advance(live)

    def lost(self, claim: Claim, code: str, reason: str) -> None:
        """A worker died over a claim (`edge.runtime.workers.Claims`)."""
        live = self._release(claim)
        if live.rebuilding is not None:
            live.rebuilding = None
            self._missed(live, anew=False)
            return
        step = live.blueprint.steps[claim.steps[0]].name
        live.intent_seq = 0
        self._append(live, AttemptLost(reason, code), step, visit=claim.visit, attempt=claim.attempt)
        self.advance(live)

    def _release(self, claim: Claim) -> Live:
        live = self._claims.pop(claim.number)
        live.claim = None
        return live

    def _missed(self, live: Live, *, anew: bool) -> None:
        live.misses += 1
        if live.misses > MISSES_MAX:
            problem = {
                "code": "cache_lost",
                "message": f"What this execution needs vanished from the cache {live.misses} times.",
                "mend": "Give the cache a larger budget, or find out who empties its folder.",
            }
            self._finish(live, Finish("failed", problem=problem))
            return
        self._outputs.forget_absent(live)
        go_on = self.advance if anew else self._pursue
        if live.misses > MISSES_FREE and not self._blocks.favour(live.state.seq):
            self._parked.append((live, go_on))
        else:
            go_on(live)

    def _unpark(self) -> None:
        """The favour is free: the next execution in line has it and goes on."""
        if self._parked and self._blocks.favour(self._parked[0][0].state.seq):
            live, go_on = self._parked.popleft()
            go_on(live)

    def _rebuilt(self, live: Live, name: str, outcome: Outcome) -> None:
        """A pure step ran again: its output must be the one recorded."""
        recorded = live.state.steps[name].outcome
        assert recorded is not None
        if outcome.kind == TABLE and recorded.table is not None and outcome.table is not None:
            same = outcome.table.digest == recorded.table.digest
        else:
            same = outcome.value is not None and hashlib.sha256(outcome.value).digest() == recorded.digest
        if not same:
            problem = {
                "code": "not_reproducible",
                "message": f"Step {name} is pure but gave another output when it was run again.",
                "mend": "Declare it spec.effect: read, or remove what makes it vary.",
                "step": name,
            }
            self._finish(live, Finish("failed", problem=problem))
            return
        self._keep(live, name, outcome)
        self._pursue(live)

    def _keep(self, live: Live, name: str, outcome: Outcome) -> None:
        if outcome.table is not None:
            if live.claim_bound:
                live.author_made.add(name)
            if live.request_table is None or outcome.table.key != live.request_table.key:
                self._blocks.note(
                    live.blueprint.digest, live.state.seq, outcome.table.key, outcome.table.size_bytes
                )
            live.keep(name, outcome.table)
        else:
            assert outcome.value is not None
            live.keep(name, outcome.value)

    # ---- recording ---------------------------------------------------------------------------------

    def _record(self, live: Live, index: int, visit: int, attempt: int, outcome: Outcome) -> None:
        """Append one step's outcome and the decision after it."""
        step = live.blueprint.steps[index]
        if outcome.kind == FAILED:
            body: Body = StepFailed(outcome.problem or {}, outcome.duration_us)
            self._append(live, body, step.name, visit=visit, attempt=attempt)
            return
        self._keep(live, step.name, outcome)
        problem: dict[str, Any] | None = None
        arc: int | None = None
        patches: dict[str, Any] | None = None
        if not step.set and step.arcs and step.arcs[0].when is None:
            arc = 0
        elif step.set or step.arcs:
            try:
                arc, patches = route(step, live.routing_scope(index), live.state.ctx)
                check_ctx(live.state.ctx, patches)
            except EdgeError as error:
                arc, patches, problem = None, None, error.problem()
        try:
            done = self._step_done(live, step, outcome, arc, patches, problem)
        except CacheMiss as error:
            # The worker's table vanished before it was recorded: an attempt without an outcome.
            del live.results[step.name]
            lost = AttemptLost(error.message, "output_lost")
            self._append(live, lost, step.name, visit=visit, attempt=attempt)
            return
        # The outcome of a write is wanted durable at once: until then nobody knows whether it had its effect.
        held_back = step.effect != "write"
        self._append(live, done, step.name, held_back=held_back, visit=visit, attempt=attempt)

    def _step_done(
        self,
        live: Live,
        step: Step,
        outcome: Outcome,
        arc: int | None,
        patches: dict[str, Any] | None,
        problem: dict[str, Any] | None,
    ) -> StepDone:
        """The outcome as the log keeps it (design §4, Where a value lives)."""
        pure = step.effect == "pure"
        table_bytes = None
        if outcome.table is not None and not pure:
            table_bytes = self._outputs.table_bytes(live, outcome.table)
            if len(table_bytes) > INLINE_BYTES_MAX:
                self._gate.store_blob(table_bytes)
                table_bytes = None
        value = outcome.value
        digest = None
        if value is not None and pure and len(value) > INLINE_PURE_BYTES_MAX:
            digest = hashlib.sha256(value).digest()
            value = None
        return StepDone(value, outcome.table, digest, table_bytes, arc, patches, outcome.duration_us, problem)

    def _finish(self, live: Live, goal: Finish) -> None:
        """Append the end. The answer leaves once it is durable."""
        try:
            body = self._finished_body(live, goal)
        except CacheMiss:
            self._missed(live, anew=False)
            return
        seq = self._append(live, body)
        del self.open[live.state.seq]
        self._gate.after(seq, lambda _: self._ended(live))

    def _ended(self, live: Live) -> None:
        """The end is durable: the answer first, then the blocks that nobody will read again."""
        self._on_finished(live)
        self._blocks.drop(live.state.seq)
        self._unpark()

    def _finished_body(self, live: Live, goal: Finish) -> ExecutionFinished:
        name = goal.result_step
        if name is None:
            return ExecutionFinished(goal.status, problem=goal.problem)
        outcome = live.state.steps[name].outcome
        assert outcome is not None
        pure = live.blueprint.steps[live.blueprint.step_index[name]].effect == "pure"
        if outcome.value is not None or (outcome.table is not None and not pure):
            return ExecutionFinished(goal.status, name)
        # The answer leaves the box, so it is truth, even where the step behind it could be run again.
        output = live.results[name]
        if type(output) is TableRef:
            data, kind = self._outputs.table_bytes(live, output), "table"
        else:
            assert isinstance(output, bytes)
            data, kind = output, "value"
        if len(data) <= INLINE_BYTES_MAX:
            return ExecutionFinished(goal.status, name, data, result_kind=kind)
        self._gate.store_blob(data)
        return ExecutionFinished(goal.status, name, None, hashlib.sha256(data).digest(), kind)
