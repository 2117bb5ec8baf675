"""One execution run to its end in memory by the box's own scheduler, its effects answered by a script.

Called by `edge.replay.whatif`, where the playbook may be another one than the log's. `decide` says what is next,
blocks run in the sandbox, outcomes are folded: nothing is written, nothing waits, no clock passes. What runs side by
side settles in the order of the record where that has it, else in the order it began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from edge.core.codec import decode, encode
from edge.core.errors import EdgeError, EvaluationFailed, ToolFailed
from edge.core.event_body import Body
from edge.core.events import Event, ExecutionFinished, LoopItems, LoopStarted, StepDone, StepFailed
from edge.core.limits import INLINE_PURE_BYTES_MAX, LOOP_CLAIM_ITEMS_MAX, TASK_RUNS_MAX
from edge.core.loops import Rows, as_items, as_rows, first_failure, joined
from edge.core.records import record
from edge.core.routing import ctx_clash
from edge.core.scheduler import Admit, Command, FailStep, Finish, Run, RunLoop, decide
from edge.core.settling import completed, said_ways
from edge.core.state import RUNNING, Execution, evolve
from edge.core.values import BlockRef, TableRef
from edge.replay.difference import Output
from edge.replay.ground import Ground, Missing
from edge.replay.sandbox import WorkerLost
from edge.worker.claims import FAILED, MISS, PAUSE, Items, Outcome, Progress, TaskRecord
from playbooks.evaluate import evaluate, truth
from playbooks.shape import Step

_GOES_MAX: Final = TASK_RUNS_MAX


@record
class Place:
    """One invocation of a task: of which visit to which step, of which item of its loop."""

    step: str
    visit: int
    item: int | None
    number: int
    task: str


@record
class Request:
    """What a task asks of the outside: its kind, its templates evaluated, a digest of both and of tables."""

    kind: str
    said: Any
    digest: bytes


class Script(Protocol):
    """Who answers for the outside."""

    def answer(self, place: Place, request: Request, ground: Ground) -> TaskRecord:
        """The outcome of a task. Raises Stopped where there is none."""


class Stopped(Exception):
    """The run cannot go on: `kind` is a class of difference, `was` and `now` both sides of it."""

    def __init__(self, kind: str, place: Place, was: Any, now: Any) -> None:
        super().__init__(kind, place)
        self.kind, self.place, self.was, self.now = kind, place, was, now


@dataclass(slots=True)
class Course:
    """One run. `blocks` are outputs by step, visit and item, in the order in which they settled."""

    ground: Ground
    script: Script
    order: Mapping[tuple[str, int], int] = field(default_factory=dict)
    blocks: dict[tuple[str, int, int | None], Output] = field(default_factory=dict)
    state: Execution | None = None
    _under_way: dict[str, tuple[Run | RunLoop, Execution]] = field(default_factory=dict)
    _admitted: set[str] = field(default_factory=set)
    _denied: set[str] = field(default_factory=set)
    _seq: int = 0

    def run(self) -> Execution:
        """To the end. Raises Stopped, Missing, EvaluationFailed, LogDamaged, SegmentRejected."""
        self.ground.begin()
        self._seq = self.ground.seq
        self.state = evolve(None, Event(self._seq, self.ground.request, self._seq))
        while self.state.status == RUNNING:
            self._advance(self.state)
        return self.state

    def _advance(self, state: Execution) -> None:
        commands = decide(self.ground.blueprint, state, self._under_way, self._admitted, self._denied)
        asked = False
        for command in commands:
            if isinstance(command, Admit):
                self._ask(command, state)
                asked = True
            else:
                self._begin(command, state)
            if self.state is not state:
                return
        if asked:
            return
        if not self._under_way:
            raise Missing("Nothing more can begin, and it has not ended.")
        name = min(self._under_way, key=self._place_in_order)
        goal, seen = self._under_way[name]
        if isinstance(goal, Run):
            self._work(goal, seen)
        else:
            self._loop(goal, seen)
        del self._under_way[name]
        self._denied.clear()

    def _place_in_order(self, name: str) -> int:
        goal = self._under_way[name][0]
        return self.order.get((name, goal.visit), 1 << 62)

    def _begin(self, command: Command, state: Execution) -> None:
        if isinstance(command, Run | RunLoop):
            index = command.steps[0] if isinstance(command, Run) else command.step
            name = self.ground.blueprint.steps[index].name
            self._admitted.discard(name)
            self._under_way[name] = command, state
        elif isinstance(command, FailStep):
            self._fail(self.ground.blueprint.step_index[command.step], command.visit, command.problem, None)
        else:
            assert isinstance(command, Finish), command
            self._append(ExecutionFinished(command.status, command.result_step, problem=command.problem))

    def _ask(self, command: Admit, state: Execution) -> None:
        step = self.ground.blueprint.steps[command.step]
        try:
            scope = self.ground.gate_scope(state, command.args)
            rules = step.admit or ()
            allow = next((rule.allow for rule in rules if rule.when is None or truth(rule.when, scope)), True)
        except EvaluationFailed as error:
            known = state.steps.get(step.name)
            visit = 0 if known is None else known.visit + (known.status in ("done", "failed"))
            self._fail(command.step, visit, error.problem(), None)
            return
        (self._admitted if allow else self._denied).add(step.name)

    def _append(self, body: Body, step: str | None = None, visit: int = 0) -> None:
        self._seq += 1
        event = Event(self._seq, body, self.ground.seq, step, visit)
        self.state = evolve(self.state, event)

    # ---- steps -----------------------------------------------------------------------------------------

    def _work(self, goal: Run, seen: Execution) -> None:
        outcomes = self._to_end(goal.steps, goal.visit, seen, goal.args, None, seen.ctx)
        visit = goal.visit
        for index, outcome in zip(goal.steps, outcomes, strict=False):
            self._settle(index, visit, outcome)
            visit = 0

    def _to_end(
        self, steps: tuple[int, ...], visit: int, seen: Execution, args: dict[str, Any] | None,
        items: Items | None, ctx: dict[str, Any],
    ) -> list[Outcome]:  # fmt: skip
        """The outcomes of a claim, whatever it has to wait for on the way."""
        step = self.ground.blueprint.steps[steps[0]]
        records: tuple[TaskRecord, ...] = ()
        for _ in range(_GOES_MAX):
            progress = Progress(records, _GOES_MAX) if step.pipeline else None
            try:
                made = self.ground.run(steps, visit, seen, args, progress, items, ctx)
            except WorkerLost as error:
                return [
                    Outcome(FAILED, problem={"code": "worker_lost", "message": f"Run here, {error.args[0]}."})
                ]
            last = made[-1]
            if last.kind == MISS:
                raise Missing(f"Step {step.name} cannot be run: {(last.problem or {}).get('message')}")
            if last.kind != PAUSE:
                return made
            records = (*records, *last.tasks)
            if last.hosted is None:
                raise Missing(f"Step {step.name} lacks a block of its own.")
            item = None if items is None else items.first
            records = (*records, self._answered(step, visit, item, last, seen))
        raise Missing(f"Step {step.name} does not come to its end.")

    def _answered(
        self, step: Step, visit: int, item: int | None, pause: Outcome, seen: Execution
    ) -> TaskRecord:
        assert pause.hosted is not None
        _, task, config = pause.hosted
        place = Place(step.name, visit, item, pause.next_number, task)
        if "problem" in config:
            return TaskRecord(pause.next_number, task, problem=config["problem"])
        said = config["path"]
        tables = [self.ground.table.digest] if self.ground.table is not None and step.reads_workload else []
        results = self.ground.results(step, seen)
        tables += [each.digest for each in results.values() if not isinstance(each, bytes)]
        whole = {"config": said.get("config"), "input": config.get("input")}
        digest = hashlib.sha256(encode([said["stand_in_for"], said["rest"], whole, tables])).digest()
        return self.script.answer(place, Request(said["stand_in_for"], whole, digest), self.ground)

    def _settle(self, index: int, visit: int, outcome: Outcome) -> None:
        ground, state = self.ground, self.state
        assert state is not None
        step = ground.blueprint.steps[index]
        if outcome.kind == FAILED:
            self._fail(index, visit, outcome.problem or {}, outcome.ctx)
            return
        output: bytes | BlockRef | None = outcome.value if outcome.value is not None else outcome.table
        assert output is not None
        ground.outputs[step.name, visit] = output
        self.blocks[step.name, visit, None] = Output(outcome.value, None, outcome.table)
        value, digest = outcome.value, b""
        if value is not None and not step.kept and len(value) > INLINE_PURE_BYTES_MAX:
            digest = hashlib.sha256(value).digest()
            value = None
        self._done(index, visit, StepDone(value, outcome.table, digest or None), outcome.ctx)

    def _done(self, index: int, visit: int, body: StepDone, written: dict[str, Any] | None) -> None:
        ground, state = self.ground, self.state
        assert state is not None
        routed, problem = ground.routed(index, visit, state, written)
        arc, ways = said_ways(ground.blueprint, ground.blueprint.steps[index], state, routed)
        made = StepDone(
            body.value, body.table, body.digest, arc=arc, ctx=routed.patches, problem=problem, ways=ways
        )
        self._append(made, ground.blueprint.steps[index].name, visit)

    def _fail(self, index: int, visit: int, problem: dict[str, Any], written: dict[str, Any] | None) -> None:
        ground, state = self.ground, self.state
        assert state is not None
        name = ground.blueprint.steps[index].name
        problem = completed(state, problem)
        self.blocks[name, visit, None] = Output(problem=problem)
        ways, patches = ground.failed(index, visit, state, problem, written)
        self._append(StepFailed(problem, 0, ways, patches), name, visit)

    # ---- loops -----------------------------------------------------------------------------------------

    def _loop(self, goal: RunLoop, seen: Execution) -> None:
        step = self.ground.blueprint.steps[goal.step]
        try:
            over = self._items(goal, step, seen)
        except EdgeError as error:
            if isinstance(error, Missing):
                raise
            self._fail(goal.step, goal.visit, error.problem(), None)
            return
        total = over.total if isinstance(over, Rows) else len(over)
        data = encode(over.parts()) if isinstance(over, Rows) else encode(over)
        self._append(LoopStarted(total, data), step.name, goal.visit)
        written: dict[str, Any] = {}
        first = 0
        while first < total:
            count = 1 if step.pipeline else min(LOOP_CLAIM_ITEMS_MAX, total - first)
            first += self._frame(goal, step, seen, over, first, count, total, written)
            assert self.state is not None
            loop = self.state.steps[step.name].loop
            assert loop is not None
            failure = None if step.best_effort else first_failure(loop)
            if failure is not None:
                self._fail(goal.step, goal.visit, failure, None)
                return
        self._loop_done(goal, step)

    def _items(self, goal: RunLoop, step: Step, seen: Execution) -> list[Any] | Rows:
        assert step.loop is not None
        value = evaluate(step.loop.items, self.ground.step_scope(goal.step, seen, goal.args))
        if step.loop.cursor and type(value) is TableRef and value.outside:
            opened = self.ground.run(
                (goal.step,), goal.visit, seen, goal.args, None, Items(0, 0, b"", value)
            )[0]
            if opened.kind == FAILED:
                raise ToolFailed(str((opened.problem or {}).get("message")))
            value = evaluate(step.loop.items, self.ground.step_scope(goal.step, seen, goal.args))
        return as_rows(value, step.loop.frames, step.name) if step.loop.cursor else as_items(value, step.name)

    def _frame(
        self, goal: RunLoop, step: Step, seen: Execution, over: list[Any] | Rows, first: int, count: int,
        total: int, written: dict[str, Any],
    ) -> int:  # fmt: skip
        """Some neighbouring items; how many came to their end."""
        assert step.loop is not None
        assert self.state is not None
        if isinstance(over, Rows):
            items = Items(first, total, b"", over.table, count, over.each, over.whole)
        else:
            items = Items(first, total, encode(over[first : first + count]))
        ctx = seen.ctx if step.loop.parallel else {**seen.ctx, **written}
        made = self._to_end((goal.step,), goal.visit, seen, goal.args, items, ctx)
        values: list[Any] = []
        failed: dict[int, Any] = {}
        patches: dict[str, Any] = {}
        for place, outcome in enumerate(made):
            item, problem = first + place, outcome.problem if outcome.kind == FAILED else None
            if outcome.ctx and problem is None:
                problem = ctx_clash(step, self.state.ctx, written, outcome.ctx)
                if problem is None:
                    written |= outcome.ctx
                    patches |= outcome.ctx
            if problem is not None:
                failed[item] = problem
            value = decode(outcome.value) if outcome.value is not None else outcome.table
            values.append(None if problem is not None else value)
            self.blocks[step.name, goal.visit, item] = Output(outcome.value, None, outcome.table, problem)
        body = LoopItems(first, len(made), encode(values), failed or None, patches or None)
        self._append(body, step.name, goal.visit)
        return len(made)

    def _loop_done(self, goal: RunLoop, step: Step) -> None:
        assert self.state is not None
        loop = self.state.steps[step.name].loop
        assert loop is not None
        try:
            value = encode(joined(loop, step.joins))
        except ToolFailed as error:
            self._fail(goal.step, goal.visit, error.problem(), None)
            return
        self.ground.outputs[step.name, goal.visit] = value
        digest = hashlib.sha256(value).digest()
        self.blocks[step.name, goal.visit, None] = Output(value)
        self._done(goal.step, goal.visit, StepDone(digest=digest), None)
