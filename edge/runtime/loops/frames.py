"""Loops under way: sends frames of items, takes back what came of each, goes on until none is left.

Owned by the dispatcher. Which items are next is decided by `edge.core.loops`; here are the claims. What a loop runs
over is `edge.runtime.loops.beginning`'s, what its items gave `edge.runtime.loops.results`'s. Must never send an item
whose intent is not durable, nor an item again that is committed.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.codec import encode
from edge.core.errors import CacheMiss, EdgeError, LogDamaged, StorageFailed, ToolFailed
from edge.core.events import AttemptLost, LoopItems, StepStarted
from edge.core.limits import ATTEMPTS_MAX
from edge.core.loop_state import LoopState
from edge.core.loops import Frame, Rows, item_problem, joined, next_frame
from edge.core.scheduler import FailStep, RunLoop
from edge.core.values import TableRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.loops.beginning import begin, loop_state
from edge.runtime.loops.ports import LoopRecord, Out
from edge.runtime.loops.results import record_items
from edge.runtime.running.live import UNKNOWN_US, Activation, Live, LoopRun
from edge.runtime.waiting.hosted import Hosted
from edge.worker.claims import FAILED, MISS, PAUSE, Claim, Items, Outcome

#: Claims of one loop that are out at once where the playbook does not say: enough to keep every worker of a small box
#: busy, few enough to leave room for other executions.
_CLAIMS_OUT: Final = 4
_NULL: Final = encode([None])


class Loops:
    """All loops of one runtime."""

    def __init__(self, out: Out, record: LoopRecord, gate: CommitGate, hosted: Hosted) -> None:
        self._out, self._log, self._gate, self._hosted = out, record, gate, hosted

    def pursue(self, live: Live, act: Activation, goal: RunLoop) -> None:
        """Begin or go on; what the step reads is at hand."""
        if act.loop is None:
            try:
                begun = begin(live, goal, self._log, self._gate)
                if isinstance(begun, TableRef):
                    # A worker opens the table first, in a claim over no items.
                    self._out.submit_items(live, act, goal, Items(0, 0, b"", begun), None, 0)
                    return
            except CacheMiss:
                self._out.missed(live, act)
                return
            except EdgeError as error:
                self._fail(live, act, goal, error.problem())
                return
            act.loop = begun
        self._go_on(live, act, goal)

    def _fail(self, live: Live, act: Activation, goal: RunLoop, problem: dict[str, Any]) -> None:
        name = live.blueprint.steps[goal.step].name
        self._log.fail_step(live, FailStep(name, goal.visit, 1, problem))
        self._out.on(live, act)

    def _go_on(self, live: Live, act: Activation, goal: RunLoop) -> None:
        """Send what may be out; end the loop where nothing is left."""
        run, step = act.loop, live.blueprint.steps[goal.step]
        assert run is not None
        assert step.loop is not None
        while run.waiting and not run.missed and run.problem is None and not live.ending:
            if len(run.out) >= _CLAIMS_OUT or len(run.out) + run.resting >= step.loop.in_flight_max:
                return
            loop = loop_state(live, goal)
            assert loop is not None
            if self._given_up(live, act, goal, loop):
                continue
            write = step.effect == "write"
            rows_max = None if step.loop.frames.whole else step.loop.frames.rows_max
            frame, run.waiting = next_frame(
                run.waiting, loop, run.item_us, alone=write or step.may_pause, count_max=rows_max
            )
            if frame.first in loop.waiting:
                run.resting += 1
                self._hosted.take_up(live, act, loop.waiting[frame.first], frame.first)
            elif write and not step.pipeline:
                self._intend(live, act, goal, frame, 0)
            elif not self._send(live, act, goal, frame):
                return
        if run.problem is not None or live.ending:
            self._drop(act, run)
        if run.out or run.resting:
            return
        if run.missed:
            run.missed = False
            self._out.missed(live, act)
        elif live.ending and run.problem is None:
            self._out.on(live, act)
        else:
            self._end(live, act, goal)

    def _given_up(self, live: Live, act: Activation, goal: RunLoop, loop: LoopState) -> bool:
        """Record the failure of the first waiting item where it may not be tried again."""
        if not loop.lost and not loop.intended:
            return False
        run, step = act.loop, live.blueprint.steps[goal.step]
        assert run is not None
        first = run.waiting[0]
        last = live.state.steps[step.name].problem
        problem = item_problem(loop, first.first, last, retry=step.on_unknown == "retry")
        if problem is None:
            return False
        rest = [Frame(first.first + 1, first.count - 1)] if first.count > 1 else []
        run.waiting = rest + run.waiting[1:]
        body = LoopItems(first.first, 1, _NULL, {first.first: problem})
        self._log.append(live, body, step.name, visit=goal.visit)
        if not step.best_effort:
            run.problem = {**problem, "item": first.first}
        return True

    def _intend(self, live: Live, act: Activation, goal: RunLoop, frame: Frame, number: int) -> None:
        """The item's effect waits until its intent is durable."""
        run, loop = act.loop, loop_state(live, goal)
        assert run is not None
        assert loop is not None
        run.resting += 1
        act.intended[frame.first] = number
        name, attempt = live.blueprint.steps[goal.step].name, loop.attempts(frame.first) + 1
        body, iteration = StepStarted(number), (frame.first,)
        cause = live.began_with(act, frame.first)
        seq = self._log.append(
            live, body, name, visit=goal.visit, attempt=attempt, iteration=iteration, cause=cause
        )
        self._gate.after(seq, lambda _: self.rested(live, act, goal, frame.first))

    def rested(self, live: Live, act: Activation, goal: RunLoop, item: int) -> None:
        """An item goes on, unless the loop has failed meanwhile."""
        run = act.loop
        assert run is not None
        run.resting -= 1
        if run.problem is not None or live.ending:
            self._go_on(live, act, goal)
        else:
            self._send(live, act, goal, Frame(item, 1))

    def _pause_over(self, live: Live, act: Activation, goal: RunLoop, item: int) -> None:
        run = act.loop
        assert run is not None
        if item in run.pauses:
            run.pauses.discard(item)
            self.rested(live, act, goal, item)

    def _drop(self, act: Activation, run: LoopRun) -> None:
        """Nothing more begins: what only waits, for a pause or for the outside, is not waited for."""
        run.resting -= len(run.pauses) + self._hosted.drop(act)
        run.pauses.clear()

    def drop_what_rests(self, live: Live, act: Activation, goal: RunLoop) -> None:
        """The execution is to end."""
        run = act.loop
        if run is not None and (run.pauses or act.hosted):
            self._go_on(live, act, goal)

    def _send(self, live: Live, act: Activation, goal: RunLoop, frame: Frame) -> bool:
        run = act.loop
        assert run is not None
        progress = None
        if frame.count == 1:
            progress = live.item_progress(goal.step, frame.first, run.waited.get(frame.first, 0), act)
        over = run.items
        if isinstance(over, Rows):
            items = Items(frame.first, run.total, b"", over.table, frame.count, over.each, over.whole)
        else:
            values = encode(over[frame.first : frame.first + frame.count])
            items = Items(frame.first, run.total, values)
        number = self._out.submit_items(live, act, goal, items, progress, frame.count)
        if number is None:
            return False
        run.out[number] = frame
        return True

    # ---- what came back ----------------------------------------------------------------------------------

    def settled(
        self, live: Live, act: Activation, goal: RunLoop, claim: Claim, outcomes: list[Outcome]
    ) -> None:
        """Record the outcomes of a frame's items."""
        run = act.loop
        if run is None:
            self._opened(live, act, goal, outcomes[0])
            return
        frame = run.out.pop(claim.number)
        for place, outcome in enumerate(outcomes):
            item = (frame.first + place,)
            if not self._log.record_tasks(live, goal.step, outcome, act, goal.visit, 1, item):
                act.intended.pop(item[0], None)
                outcomes = outcomes[:place]
                break
        made = [outcome for outcome in outcomes if outcome.kind not in (MISS, PAUSE)]
        if outcomes and outcomes[-1].kind == PAUSE:
            self._pause(live, act, goal, Frame(frame.first, 1), outcomes[-1])
            return
        act.forget_seen(frame)
        if made:
            record_items(live, act, goal, frame.first, made, self._log)
            took_us = sum(outcome.duration_us for outcome in made) // len(made) + 1
            run.item_us = took_us if run.item_us == UNKNOWN_US else run.item_us + (took_us - run.item_us) // 4
        left = frame.count - len(made)
        if left and run.problem is None:
            run.missed |= bool(outcomes) and outcomes[-1].kind == MISS
            self._put_back(run, Frame(frame.first + len(made), left))
        self._go_on(live, act, goal)

    def _opened(self, live: Live, act: Activation, goal: RunLoop, outcome: Outcome) -> None:
        """A worker looked at the table: now the loop begins."""
        if outcome.kind == MISS:
            self._out.missed(live, act)
        elif outcome.kind == FAILED:
            self._fail(live, act, goal, outcome.problem or {})
        else:
            self.pursue(live, act, goal)

    def _pause(self, live: Live, act: Activation, goal: RunLoop, item: Frame, outcome: Outcome) -> None:
        """An item's pipeline stopped: it goes on when its intent is durable, its pause over, or its block back."""
        run = act.loop
        assert run is not None
        if outcome.problem is not None:
            run.missed = True
            self._put_back(run, item)
        elif run.problem is not None or live.ending:
            pass  # nothing more begins
        elif outcome.hosted is not None:
            run.resting += 1
            self._hosted.begin(live, act, outcome, item.first)
        elif outcome.wait_ms is None:
            self._intend(live, act, goal, item, outcome.next_number)
        else:
            run.resting += 1
            run.waited[item.first] = outcome.next_number
            run.pauses.add(item.first)
            self._out.after_ms(outcome.wait_ms, lambda: self._pause_over(live, act, goal, item.first))
        self._go_on(live, act, goal)

    def lost(self, live: Live, act: Activation, goal: RunLoop, claim: Claim, code: str, reason: str) -> None:
        """A worker died over a frame: its items are tried again, each alone."""
        run, step = act.loop, live.blueprint.steps[goal.step]
        body = AttemptLost(reason, code)
        if run is None:
            attempt = live.state.steps[step.name].attempts + 1 if step.name in live.state.steps else 1
            self._log.append(live, body, step.name, visit=goal.visit, attempt=attempt)
            if attempt < ATTEMPTS_MAX:
                self.pursue(live, act, goal)
            else:
                self._fail(
                    live, act, goal, {"code": code, "message": f"The table of step {step.name}: {reason}."}
                )
            return
        frame = run.out.pop(claim.number)
        act.intended.pop(frame.first, None)
        act.forget_seen(frame)
        self._log.append(live, body, step.name, visit=goal.visit, iteration=(frame.first, frame.count))
        self._put_back(run, frame)
        self._go_on(live, act, goal)

    @staticmethod
    def _put_back(run: LoopRun, frame: Frame) -> None:
        run.waiting = sorted([*run.waiting, frame], key=lambda each: each.first)

    def _end(self, live: Live, act: Activation, goal: RunLoop) -> None:
        run, step = act.loop, live.blueprint.steps[goal.step]
        loop = loop_state(live, goal)
        assert run is not None
        assert loop is not None
        if run.problem is not None:
            self._log.fail_step(live, FailStep(step.name, goal.visit, 1, run.problem))
        else:
            try:
                value = encode(joined(loop, step.joins))
            except ToolFailed as error:
                self._log.fail_step(live, FailStep(step.name, goal.visit, 1, error.problem()))
            else:
                try:
                    self._log.loop_done(live, goal.step, goal.visit, value)
                except CacheMiss:
                    self._out.missed(live, act)
                    return
                except (LogDamaged, StorageFailed) as error:
                    self._log.fail_step(live, FailStep(step.name, goal.visit, 1, error.problem()))
        self._out.on(live, act)
