"""Carries executions forward: ask `decide`, carry out what it says, record what came back, decide again.

Owned by the engine, called on the runtime's loop only. All events of running executions are appended here. Inside the
box nobody waits for a flush; only the intent of a `write` step and the answer stand at the gate (design §4, output
commit).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.core.errors import CacheMiss, EdgeError
from edge.core.event_body import Body
from edge.core.events import AttemptLost, ExecutionCancelled, ExecutionDeadline, StepStarted, TaskDone
from edge.core.scheduler import Admit, Command, FailStep, Finish, Run, RunLoop, decide
from edge.core.state import FAILED, RUNNING, evolve
from edge.core.values import BlockRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.dispatch.dispatcher import Dispatcher
from edge.runtime.dispatch.guard import Guard
from edge.runtime.downstreams.circuits import Circuits
from edge.runtime.downstreams.mqtt import Mqtt
from edge.runtime.running.live import Activation, Live, Place
from edge.runtime.running.outcomes import Recorder
from edge.runtime.running.rebuild import Outputs
from edge.runtime.waiting.deadlines import Deadlines
from edge.runtime.waiting.hosted import Hosted
from edge.runtime.waiting.parking import Parking
from edge.runtime.waiting.timers import Timers
from edge.runtime.waiting.tokens import Tokens
from edge.runtime.waiting.waits import Waits
from edge.store.blocks import Blocks
from edge.worker.claims import Claim, Outcome, TaskRecord
from playbooks.evaluate import truth

#: Where the end of an execution stands among what is under way; no step is called so.
_END = ""


class Executor:
    """The scheduler's hands."""

    def __init__(
        self, gate: CommitGate, blocks: Blocks, tokens: Tokens, *, on_finished: Callable[[Live], None]
    ) -> None:
        self._gate, self._blocks = gate, blocks
        self._on_finished = on_finished
        self.outputs = outputs = Outputs(gate, blocks)
        self._recorder = Recorder(gate, blocks, outputs)
        #: Called when an execution's end is recorded, durable or not.
        self.on_end: Callable[[Live], None] = lambda live: None
        self.open: dict[int, Live] = {}
        #: Executions whose end is recorded and not durable yet.
        self.closing: set[int] = set()
        self.timers = Timers(gate.clock)
        self.hosted = Hosted(self, gate)
        self.waits = Waits(self.hosted, self.timers, gate)
        self.hosted.kinds["wait"] = self.waits
        self.dispatcher = Dispatcher(self, blocks, outputs, gate, self.hosted, tokens, self.timers)
        self.hosted.onward = self.dispatcher
        self.circuits = Circuits(gate)
        self.guard = Guard(self.circuits, self.dispatcher)
        self.mqtt = Mqtt(self.hosted, self.timers, self.circuits, gate)
        self.hosted.kinds["mqtt"] = self.mqtt
        self.deadlines = Deadlines(self, self.timers, gate)
        self.parking = Parking(self, self.hosted, self.timers, self.deadlines, gate)
        self.hosted.at_rest = self.parking.consider

    # ---- what to do next -------------------------------------------------------------------------

    def advance(self, live: Live) -> None:
        """Carry one execution on until all that can be is under way, or it has ended."""
        if live.ending:
            self.dispatcher.drop_what_rests(live)
        while live.state.status == RUNNING:
            state = live.state
            commands = self._decide(live)
            asked = False
            for command in commands:
                if type(command) is Admit:
                    self._ask_admission(live, command)
                    asked = True
                else:
                    self._begin(live, command)
                if live.state is not state:
                    break  # something was recorded meanwhile: what else was decided may not hold any longer
            else:
                if not asked:
                    return

    def _decide(self, live: Live) -> tuple[Command, ...]:
        if live.doomed is None:
            return decide(live.blueprint, live.state, live.under_way, live.admitted, live.denied)
        return () if live.under_way else (Finish(FAILED, problem=live.doomed),)

    def _begin(self, live: Live, goal: Command) -> None:
        if isinstance(goal, Run | RunLoop):
            index = goal.steps[0] if type(goal) is Run else goal.step  # type: ignore[union-attr]
            name = live.blueprint.steps[index].name
            if live.admitted:
                live.admitted.discard(name)
        else:
            assert not isinstance(goal, Admit), goal
            name = goal.step if isinstance(goal, FailStep) else _END
        act = live.under_way[name] = Activation(goal, name)
        if isinstance(goal, Run | RunLoop):
            step = live.blueprint.steps[index]
            if step.deadline_ms is not None and not self.deadlines.watch_step(live, act, step):
                self.dispatcher.overdue(live, act)
                return
        self.dispatcher.pursue(live, act)

    def _ask_admission(self, live: Live, command: Admit) -> None:
        """Evaluate a step's admission rules; where that fails, the step does."""
        step = live.blueprint.steps[command.step]
        try:
            scope = live.gate_scope(command.args)
            rules = step.admit or ()
            allow = next((rule.allow for rule in rules if rule.when is None or truth(rule.when, scope)), True)
        except EdgeError as error:
            known = live.state.steps.get(step.name)
            visit = 0 if known is None else known.visit + (known.status in ("done", "failed"))
            self._begin(live, FailStep(step.name, visit, 1, error.problem()))
            return
        (live.admitted if allow else live.denied).add(step.name)

    def fail(self, live: Live, problem: dict[str, Any]) -> None:
        """End an execution that cannot go on, once nothing of it is under way."""
        live.doomed = live.doomed or problem
        self.advance(live)

    def cancel(self, live: Live, by: str, reason: str | None) -> int:
        """Record that an execution is to end, and let it; the sequence number of that event."""
        seq = self.append(live, ExecutionCancelled(by, reason))
        self.advance(live)
        return seq

    def exceed(self, live: Live, deadline_ms: int, by: str) -> None:
        """Record that an execution's deadline passed, and let it end."""
        self.append(live, ExecutionDeadline(deadline_ms, by))
        self.advance(live)

    def overdue(self, live: Live, act: Activation) -> None:
        """A step's deadline passed: nothing more of it begins."""
        self.dispatcher.overdue(live, act)

    def append(self, live: Live, body: Body, step: str | None = None, **envelope: Any) -> int:
        """Append an event of an execution; its sequence number."""
        event = self._gate.append(body, execution=live.state.seq, step=step, **envelope)
        live.state = evolve(live.state, event)
        live.last_seq = event.seq
        return event.seq

    # ---- what the dispatcher comes back with ---------------------------------------------------------

    def record_intent(self, live: Live, act: Activation, run: Run, number: int) -> None:
        """The effect waits until its intent is durable."""
        step = live.blueprint.steps[run.steps[0]].name
        act.intended[None] = number
        cause = live.began_with(act)
        act.intent_seq = self.append(
            live, StepStarted(number), step, visit=run.visit, attempt=run.attempt, cause=cause
        )
        self._gate.after(act.intent_seq, lambda _: self.dispatcher.pursue(live, act))

    def done_with(self, live: Live, act: Activation) -> None:
        """Nothing of this activation is under way any longer."""
        live.under_way.pop(act.name, None)

    def settled(self, live: Live, act: Activation, claim: Claim, outcomes: list[Outcome]) -> None:
        """Record the outcomes of a claim's steps, in order."""
        visit, attempt = claim.visit, claim.attempt
        cause = act.saw_seq if live.last_seq != act.saw_seq else None
        for index, outcome in zip(claim.steps, outcomes, strict=False):
            if not self.record_tasks(live, index, outcome, act, visit, attempt):
                break
            if act.seen:
                cause = live.began_with(act)
            body, held_back = self._recorder.outcome(live, index, outcome, claim_bound=act.claim_bound)
            name = live.blueprint.steps[index].name
            self.append(live, body, name, held_back=held_back, visit=visit, attempt=attempt, cause=cause)
            if type(body) is AttemptLost:
                break
            visit, attempt, cause = 0, 1, None
        if live.denied:
            live.denied.clear()

    def paused(self, live: Live, act: Activation, claim: Claim, outcome: Outcome) -> bool:
        """Record what a pipeline did before it stopped; False where that is lost, and so is the attempt."""
        return self.record_tasks(live, claim.steps[0], outcome, act, claim.visit, claim.attempt)

    def record_tasks(
        self,
        live: Live,
        index: int,
        outcome: Outcome,
        act: Activation,
        visit: int,
        attempt: int,
        iteration: tuple[int, ...] = (),
    ) -> bool:
        """Append the tasks that a pipeline recorded, of one item where it runs in a loop.

        False where the block of one vanished before it was in the log: an attempt without an outcome, as is recorded.
        """
        step = live.blueprint.steps[index]
        for record in outcome.tasks:
            try:
                body = self._recorder.task(live, record, claim_bound=act.claim_bound)
            except CacheMiss as error:
                self.outputs.forget_absent(live)
                lost = AttemptLost(error.message, "output_lost")
                over = (iteration[0], 1) if iteration else ()
                self.append(live, lost, step.name, visit=visit, attempt=attempt, iteration=over)
                return False
            self.append(
                live,
                body,
                step.name,
                held_back=step.effect != "write",
                visit=visit,
                attempt=attempt,
                iteration=iteration,
                cause=live.began_with(act, iteration[0] if iteration else None),
            )
        return True

    def record_task(self, live: Live, act: Activation, place: Place, record: TaskRecord) -> None:
        """Append the outcome of a hosted task."""
        step = live.blueprint.steps[live.blueprint.step_index[place.step]]
        # A block from outside the playbook's own steps may be opened by its own processes only.
        try:
            body = self._recorder.task(live, record, claim_bound=True)
        except CacheMiss as error:
            self.outputs.forget_absent(live)
            gone = {**error.problem(), "code": "output_lost"}
            body = TaskDone(record.number, record.task, problem=gone, duration_us=record.duration_us)
        iteration = () if place.item is None else (place.item,)
        self.append(
            live,
            body,
            place.step,
            held_back=step.effect != "write",
            visit=place.visit,
            attempt=place.attempt,
            iteration=iteration,
            cause=live.began_with(act, place.item),
        )

    def lost(self, live: Live, claim: Claim, code: str, reason: str) -> None:
        """Record that a claim's first step was lost."""
        step = live.blueprint.steps[claim.steps[0]].name
        self.append(live, AttemptLost(reason, code), step, visit=claim.visit, attempt=claim.attempt)

    def fail_step(self, live: Live, command: FailStep) -> None:
        """Record that a step failed for good without running."""
        index = live.blueprint.step_index[command.step]
        body = self._recorder.failure(live, index, command.problem, 0)
        self.append(live, body, command.step, visit=command.visit, attempt=command.attempt)
        live.denied.clear()

    def keep_item(self, live: Live, step: str, ref: BlockRef, *, claim_bound: bool) -> None:
        """Keep the block that a loop's item gave. Raises CacheMiss."""
        self._recorder.keep_item(live, step, ref, claim_bound=claim_bound)

    def loop_done(self, live: Live, index: int, visit: int, value: bytes) -> None:
        """Record that every item of a step's loop has its outcome."""
        body = self._recorder.loop_done(live, index, value)
        self.append(live, body, live.blueprint.steps[index].name, held_back=True, visit=visit)
        live.denied.clear()

    def finish(self, live: Live, goal: Finish) -> None:
        """Append the end. The answer leaves once it is durable. Raises CacheMiss where an output vanished."""
        seq = self.append(live, self._recorder.finished(live, goal))
        del self.open[live.state.seq]
        self.closing.add(live.state.seq)
        self.deadlines.forget(live)
        self._gate.after(seq, lambda _: self._ended(live))
        self.on_end(live)

    def keep(self, live: Live, name: str, outcome: Outcome, *, claim_bound: bool) -> None:
        """Keep an output that was made again."""
        self._recorder.keep(live, name, outcome, claim_bound=claim_bound)

    def _ended(self, live: Live) -> None:
        """The end is durable: the answer first, then the blocks that nobody will read again."""
        self.closing.discard(live.state.seq)
        self._on_finished(live)
        self._blocks.drop(live.state.seq)
        self.dispatcher.unpark()
