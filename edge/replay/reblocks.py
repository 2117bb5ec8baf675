"""Blocks made again, one by one, beside their record: steps, loops, items of loops.

Owned by `edge.replay.rerun`. It gives each recorded body back as it comes out now. What the box or the world decided
(a lost worker, a passed deadline, an unknown effect) is not made again; what reached outside is taken from the
record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.errors import EdgeError, EvaluationFailed
from edge.core.events import Event, LoopItems, LoopStarted, StepDone, StepFailed
from edge.core.limits import INLINE_PURE_BYTES_MAX, TASK_RUNS_MAX
from edge.core.loop_state import LoopState
from edge.core.loops import Rows, as_items, as_rows, blocks_in, joined
from edge.core.scheduler import token_args
from edge.core.settling import completed, said_ways
from edge.core.state import Execution
from edge.core.values import BlockRef, TableRef, ValueRef
from edge.replay.difference import ABSENT, EXTRA, PURE, SAME, VARIES, Difference, Output, classified
from edge.replay.ground import Ground, Missing, records_of
from edge.replay.sandbox import WorkerLost
from edge.worker.claims import FAILED, MISS, PAUSE, Items, Outcome, Progress, TaskRecord
from playbooks.evaluate import evaluate, truth
from playbooks.shape import CHILD, Step

#: Problems that say what became of the box, its workers or the clock, not what a block gave.
_OF_THE_BOX: Final = frozenset(
    {
        "worker_lost", "timeout", "outcome_unknown", "output_lost", "cache_lost", "cache_full", "cache_unusable",
        "sandbox_unavailable", "access_refused", "secret_missing", "step_deadline_exceeded", "deadline_exceeded",
        "memory_exceeded", "inputs_too_large", "resume_limit", "not_reproducible",
    }
)  # fmt: skip
_GOES_MAX: Final = TASK_RUNS_MAX

Body = StepDone | StepFailed | LoopStarted | LoopItems
Found = tuple[Any, Difference | None]
"""A body as it comes out now, and how it differs from the record."""


class Reblocks:
    """Makes blocks again. `run` counts those that were, `taken` the outcomes that were taken from the record."""

    def __init__(self, ground: Ground, tolerance: float) -> None:
        self._ground, self._tolerance = ground, tolerance
        self.run = self.taken = 0
        #: Outcomes of a straight line of pure steps that one claim carried, for those that come next.
        self._ahead: dict[str, Outcome] = {}

    # ---- steps -----------------------------------------------------------------------------------------

    def step(self, before: Execution, seen: Execution, event: Event, line: tuple[int, ...] = ()) -> Found:
        """A settled step's output; `line` are the steps after it that the box ran straight on. Raises Missing, ….

        Those go along in one claim, as they did on the box.
        """
        ground, body = self._ground, event.body
        assert isinstance(body, StepDone | StepFailed)
        assert event.step is not None
        index = ground.blueprint.step_index[event.step]
        step = ground.blueprint.steps[index]
        known = before.steps.get(event.step)
        loop = known.loop if known is not None and known.visit == event.visit else None
        if step.loop is not None:
            return self._loop_ended(step, loop, event)
        was = output_of(body)
        if _is_the_boxs(was.problem) or _reaches_out(step):
            self.taken += 1
            self._keep(event, was)
            return body, None
        records = records_of(known.tasks) if known is not None and known.visit == event.visit else ()
        args = token_args(ground.blueprint, seen, event.step)

        def once() -> Output:
            refused = self._not_let_in(step, seen, args) if was.problem is not None else None
            ahead = self._ahead.pop(step.name, None)
            if refused is None and ahead is None:
                ahead = self._to_end(step, index, event, seen, args, records, was, line=line)
            now = refused or _output(ahead or Outcome(FAILED))
            return now if now.problem is None else Output(problem=completed(before, now.problem))

        now, difference = self._beside(event, step, once, was, None)
        if difference is not None:
            self._ahead.clear()  # what came after it stood on another output than was recorded
        self._keep(event, now if was.value is None and was.block is None else was)
        return _with_output(body, was, now), difference

    def _not_let_in(self, step: Step, seen: Execution, args: dict[str, Any] | None) -> Output | None:
        """How a step failed before it ran: its admission rules could not be evaluated."""
        try:
            scope = self._ground.gate_scope(seen, args)
            for rule in step.admit or ():
                if rule.when is None or truth(rule.when, scope):
                    break
        except EdgeError as error:
            return Output(problem=error.problem())
        return None

    def _beside(
        self, event: Event, step: Step, once: Callable[[], Output], was: Output, item: int | None
    ) -> tuple[Output, Difference | None]:
        """Run a block, and once more in a fresh process where it comes out otherwise."""
        self.run += 1
        try:
            now = once()
        except _Strayed as strayed:
            return was, Difference(
                event.seq, strayed.kind, step.name, event.visit, item, strayed.what, was.plain(), None
            )
        kind = classified(was, now, self._tolerance)
        if kind == SAME:
            return now, None
        self._ground.sandbox.drop(self._ground.binding([step]))
        self._ahead.clear()
        again = once()
        if classified(now, again) != SAME:
            kind, was_plain, now_plain = VARIES, now.plain(), again.plain()
        else:
            was_plain, now_plain = was.plain(), now.plain()
        return now, _difference(event, kind, "output", was_plain, now_plain, item)

    def _to_end(
        self,
        step: Step,
        index: int,
        event: Event,
        seen: Execution,
        args: dict[str, Any] | None,
        records: tuple[TaskRecord, ...],
        was: Output,
        items: Items | None = None,
        ctx: dict[str, Any] | None = None,
        line: tuple[int, ...] = (),
    ) -> Outcome:
        """One block to its end, its effects answered from the record; the last of them may be the block's own."""
        lent = False
        for _ in range(_GOES_MAX):
            progress = Progress(records, _GOES_MAX) if step.pipeline else None
            try:
                made = self._ground.run((index, *line), event.visit, seen, args, progress, items, ctx)
                end = made[0]
                names = [self._ground.blueprint.steps[each].name for each in line]
                self._ahead = {
                    name: each for name, each in zip(names, made[1:], strict=False) if each.kind != MISS
                }
            except WorkerLost as error:
                problem = {"code": "worker_lost", "message": f"Run again, {error.args[0]}."}
                return Outcome(FAILED, problem=problem)
            if end.kind == MISS:
                said = (end.problem or {}).get("message", "a block is gone")
                raise Missing(f"Step {step.name} cannot be run again: {said}")
            if end.kind != PAUSE:
                used = end.kind != FAILED or (end.problem or {}).get("code") != "pipeline_diverged"
                if not used:
                    raise _Strayed(ABSENT, str((end.problem or {}).get("message")))
                return end
            if end.hosted is None or lent or (was.value is None and was.block is None):
                task = end.hosted[1] if end.hosted is not None else ""
                raise _Strayed(EXTRA, f"task {task} asks for an effect that is not recorded")
            # The last outcome of a pipeline has no event of its own where it is the step's.
            records = (*records, TaskRecord(end.next_number, end.hosted[1], was.value, was.block))
            lent = True
        raise Missing(f"Step {step.name} does not come to its end.")

    def _keep(self, event: Event, output: Output) -> None:
        """Keep a step's output for those that read it."""
        assert event.step is not None
        body = event.body
        key = event.step, event.visit
        if output.value is not None:
            self._ground.outputs[key] = output.value
        elif output.block is not None:
            if (
                isinstance(body, StepDone)
                and body.table is not None
                and (body.table_bytes or _kept(self._ground, event))
            ):
                self._ground.restore(body)
            self._ground.outputs[key] = output.block

    def led_on(
        self, before: Execution, event: Event, body: StepDone | StepFailed
    ) -> tuple[StepDone | StepFailed, tuple[Any, Any] | None]:
        """Where an outcome leads now, and how that differs from the record."""
        assert event.step is not None
        was = event.body
        index = self._ground.blueprint.step_index[event.step]
        step = self._ground.blueprint.steps[index]
        written = _by_rules(step, was.ctx)  # type: ignore[attr-defined]
        now: StepDone | StepFailed
        compared: tuple[str, ...] = ("ways", "ctx")
        if isinstance(body, StepFailed):
            ways, patches = self._ground.failed(index, event.visit, before, body.problem, written)
            now = replace(body, ways=ways, ctx=patches)
        elif (event.step, event.visit) not in self._ground.outputs:
            return body, None
        else:
            routed, failure = self._ground.routed(index, event.visit, before, written)
            arc, ways = said_ways(self._ground.blueprint, step, before, routed)
            now = replace(body, arc=arc, ways=ways, ctx=routed.patches, problem=failure)
            compared = ("arc", "ways", "ctx", "problem")
        if type(was) is not type(now):
            return now, None
        told = [{name: getattr(each, name) for name in compared} for each in (was, now)]
        return now, None if told[0] == told[1] else (told[0], told[1])

    # ---- loops -----------------------------------------------------------------------------------------

    def loop_began(self, before: Execution, event: Event) -> Found:
        """What a loop runs over."""
        body = event.body
        assert isinstance(body, LoopStarted)
        assert event.step is not None
        ground = self._ground
        index = ground.blueprint.step_index[event.step]
        step = ground.blueprint.steps[index]
        assert step.loop is not None
        args = token_args(ground.blueprint, before, event.step)
        try:
            value = evaluate(step.loop.items, ground.step_scope(index, before, args))
            over = (
                as_rows(value, step.loop.frames, step.name)
                if step.loop.cursor
                else as_items(value, step.name)
            )
        except EvaluationFailed as error:
            note = {"problem": error.problem()}
            return body, Difference(
                event.seq, "pure-changed", step.name, event.visit, None, "items", body.total, note
            )
        except EdgeError as error:
            raise Missing(f"The items of step {step.name} are not here: {error.message}") from error
        total = over.total if isinstance(over, Rows) else len(over)
        data = encode(over.parts()) if isinstance(over, Rows) else encode(over)
        if body.items is None and body.digest is not None:
            same = hashlib.sha256(data).digest() == body.digest
            made = replace(body, total=total, digest=hashlib.sha256(data).digest())
        else:
            same = data == body.items
            made = replace(body, total=total, items=data)
        if same:
            return made, None
        return made, _difference(event, PURE, "items", {"total": body.total}, {"total": total})

    def items(self, before: Execution, event: Event, seen_of: Callable[[int], Execution]) -> Found:
        """Items of a loop."""
        body = event.body
        assert isinstance(body, LoopItems)
        assert event.step is not None
        ground = self._ground
        index = ground.blueprint.step_index[event.step]
        step = ground.blueprint.steps[index]
        loop = before.steps[event.step].loop
        assert loop is not None
        results = decode(body.results)
        if _reaches_out(step):
            self._bring(blocks_in(results).values())
            self.taken += body.count
            return body, None
        made, difference = list(results), None
        failed = dict(body.failed or {})
        ctx: dict[str, Any] | None = None
        for place in range(body.count):
            item = body.first + place
            was = _item_output(results[place], failed.get(item))
            if _is_the_boxs(was.problem):
                self.taken += 1
                continue
            seen = seen_of(item)
            ctx = {**seen.ctx, **(ctx or {})} if ctx else seen.ctx
            now, found = self._beside(
                event, step, self._item(step, index, event, loop, item, seen, ctx, was), was, item
            )
            difference = difference or found
            made[place] = decode(now.value) if now.value is not None else now.block
            if now.problem is not None:
                made[place] = None
                failed[item] = now.problem if found is not None else failed.get(item, now.problem)
            elif item in failed:
                del failed[item]
        return replace(body, results=encode(made), failed=failed or None), difference

    def _bring(self, refs: Iterable[BlockRef]) -> None:
        """Recorded blocks of items. Raises LogDamaged, SegmentRejected where one is not here."""
        ground = self._ground
        for ref in refs:
            if not ground.sandbox.blocks.holds(ground.blueprint.digest, ref.key):
                data = ground.source.blob(ref.digest)
                ground.sandbox.blocks.restore(ground.blueprint.digest, ground.seq, ref, data)

    def _item(
        self, step: Step, index: int, event: Event, loop: LoopState, item: int,
        seen: Execution, ctx: dict[str, Any], was: Output,
    ) -> Callable[[], Output]:  # fmt: skip
        ground = self._ground
        args = token_args(ground.blueprint, seen, step.name)
        items = self._items_of(loop, item)
        records = records_of(loop.tasks.get(item, ()))
        return lambda: _output(self._to_end(step, index, event, seen, args, records, was, items, ctx))

    def _items_of(self, loop: LoopState, item: int) -> Items:
        started = loop.started
        data = started.items
        if data is None:
            data = self._ground.source.blob(started.digest or b"")
        over = decode(data)
        if type(over) is dict:
            rows = Rows(**over)
            return Items(item, started.total, b"", rows.table, 1, rows.each, rows.whole)
        return Items(item, started.total, encode(over[item : item + 1]))

    def _loop_ended(self, step: Step, loop: LoopState | None, event: Event) -> Found:
        body = event.body
        if isinstance(body, StepFailed) or loop is None:
            return body, None  # one of its items says why
        assert isinstance(body, StepDone)
        value = encode(joined(loop, step.joins))
        self._ground.outputs[step.name, event.visit] = value
        digest = hashlib.sha256(value).digest()
        if digest == body.digest:
            return body, None
        was, now = Output(digest=body.digest), Output(digest=digest)
        return replace(body, digest=digest), _difference(event, PURE, "results", was.plain(), now.plain())


class _Strayed(Exception):
    """A pipeline asked for other effects than are recorded."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(kind, what)
        self.kind, self.what = kind, what


def _difference(
    event: Event, kind: str, what: str, was: Any, now: Any, item: int | None = None
) -> Difference:
    return Difference(event.seq, kind, event.step or "", event.visit, item, what, was, now)


def output_of(body: StepDone | StepFailed) -> Output:
    """A recorded outcome."""
    if isinstance(body, StepFailed):
        return Output(problem=body.problem)
    return Output(body.value, body.digest, body.table)


def _output(outcome: Outcome) -> Output:
    if outcome.kind == FAILED:
        return Output(problem=outcome.problem or {})
    return Output(outcome.value, None, outcome.table)


def _item_output(result: Any, problem: dict[str, Any] | None) -> Output:
    if problem is not None:
        return Output(problem=problem)
    if type(result) is TableRef or type(result) is ValueRef:
        return Output(block=result)
    return Output(encode(result))


def _with_output(body: StepDone | StepFailed, was: Output, now: Output) -> StepDone | StepFailed:
    """The body as it comes out now; what was measured stays."""
    if classified(was, now) == SAME:
        return body
    if now.problem is not None:
        return replace(body, problem=now.problem) if isinstance(body, StepFailed) else StepFailed(now.problem)
    done = body if isinstance(body, StepDone) else StepDone(duration_us=body.duration_us)
    value: bytes | None = now.value
    digest: bytes | None = None
    if value is not None and len(value) > INLINE_PURE_BYTES_MAX:
        digest = hashlib.sha256(value).digest()
        value = None
    return replace(done, value=value, digest=digest, table=now.block, table_bytes=None)


def _is_the_boxs(problem: dict[str, Any] | None) -> bool:
    return problem is not None and problem.get("code") in _OF_THE_BOX


def _reaches_out(step: Step) -> bool:
    """Whether there is nothing pure in a step to be made again: its one tool reached outside."""
    return len(step.tasks) == 1 and step.tasks[0].kind == CHILD and step.tasks[0].rules is None


def _kept(ground: Ground, event: Event) -> bool:
    return ground.blueprint.steps[ground.blueprint.step_index[event.step or ""]].kept


def _by_rules(step: Step, ctx: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of what was written to ctx, what the rules of the step's tools wrote before its own `set`."""
    if not ctx:
        return None
    names = {name for task in step.tasks for rule in task.rules or () for name, _ in rule.ctx}
    return {name: value for name, value in ctx.items() if name in names} or None
