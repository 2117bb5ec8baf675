"""Gets a command done: sees that what it needs is there, sends its claim, and takes what comes back.

Owned by the executor. What a step reads and the cache lost is made again first, by running the pure step that made
it; an execution that loses its blocks over and over waits its turn for the favour of keeping them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from edge.core.errors import CacheMiss, LogDamaged, StorageFailed
from edge.core.scheduler import FailStep, Finish, Run, RunLoop
from edge.core.state import RUNNING
from edge.runtime.commit.gate import CommitGate
from edge.runtime.dispatch.outgoing import Outgoing
from edge.runtime.dispatch.ports import Record
from edge.runtime.dispatch.secrets import scrubbed
from edge.runtime.loops.frames import Loops
from edge.runtime.running.live import Activation, Live, Seen
from edge.runtime.running.rebuild import Outputs
from edge.runtime.waiting.hosted import Hosted
from edge.runtime.waiting.timers import Timers
from edge.runtime.waiting.tokens import Tokens
from edge.store.blocks import Blocks
from edge.worker.claims import MISS, PAUSE, TABLE, Claim, Items, Outcome, Progress

#: How often an execution may find its blocks gone before it asks for the favour of keeping them (`Blocks.favour`),
#: and waits its turn for it: executions that need more together than the budget holds would evict each other's for
#: ever.
MISSES_FREE: Final = 3
#: How often an execution may find its blocks gone at all before it fails: somebody empties the folder.
MISSES_MAX: Final = 8


class Dispatcher:
    """Claims out and outcomes in."""

    def __init__(
        self,
        record: Record,
        blocks: Blocks,
        outputs: Outputs,
        gate: CommitGate,
        hosted: Hosted,
        tokens: Tokens,
        timers: Timers,
    ) -> None:
        self._record, self._blocks, self._outputs = record, blocks, outputs
        self._hosted = hosted
        self.outgoing = Outgoing(blocks, tokens)
        self._loops = Loops(self, record, gate, hosted)
        #: Calls back after so many milliseconds.
        self.after_ms: Callable[[int, Callable[[], None]], object] = timers.pause
        self._parked: deque[tuple[Live, Activation]] = deque()

    def pursue(self, live: Live, act: Activation) -> None:
        """Work on the goal, or first on what it lacks."""
        goal = act.goal
        assert act.claim is None, "a claim is under way"
        if live.ending and type(goal) is Run and act.intent_seq == 0:
            self.on(live, act)
            return
        if type(goal) is Run and self._takes_up(live, act, goal):
            return
        try:
            lacking = self._lacking(live, goal)
        except (LogDamaged, StorageFailed) as error:
            self._give_up(live, act, error.problem())
            return
        if lacking is not None:
            self._rebuild(live, act, lacking)
        elif type(goal) is Run:
            seen = self._seen(live, act, goal.steps, goal.visit)
            if seen is None:
                return
            if self._intent_lacks(live, act, goal):
                self._record.record_intent(live, act, goal, 0)
                return
            self._submit(live, act, goal, seen, goal.args, live.progress(goal, act))
        elif type(goal) is RunLoop:
            self._loops.pursue(live, act, goal)
        elif isinstance(goal, FailStep):
            self._record.fail_step(live, goal)
            self.on(live, act)
        else:
            assert isinstance(goal, Finish), goal
            try:
                self._record.finish(live, goal)
            except CacheMiss:
                self.missed(live, act)

    def _takes_up(self, live: Live, act: Activation, run: Run) -> bool:
        """Whether the step waits for a hosted task since before a restart: then that is all there is to do."""
        known = live.state.steps.get(act.name)
        if known is None or known.visit != run.visit or known.waiting is None:
            return False
        self._hosted.take_up(live, act, known.waiting)
        return True

    def go_on(self, live: Live, act: Activation, item: int | None) -> None:
        """A hosted task has its outcome (`edge.runtime.waiting.hosted.Onward`)."""
        if item is None:
            self.pursue(live, act)
        else:
            assert isinstance(act.goal, RunLoop), act.goal
            self._loops.rested(live, act, act.goal, item)

    def drop_what_rests(self, live: Live) -> None:
        """The execution is to end: what only waits, for a pause or for the outside, is not waited for."""
        for act in list(live.under_way.values()):
            if isinstance(act.goal, RunLoop):
                if act.loop is not None:
                    self._loops.drop_what_rests(live, act, act.goal)
            elif self._hosted.drop(act) or act.paused:
                self._record.done_with(live, act)

    def overdue(self, live: Live, act: Activation) -> None:
        """A step's deadline passed: it fails once nothing of it is out, and what only waits is not waited for."""
        goal, problem = act.goal, act.overdue
        assert problem is not None
        if isinstance(goal, RunLoop) and act.loop is not None:
            act.loop.problem = act.loop.problem or problem
            self._loops.pursue(live, act, goal)
            return
        assert isinstance(goal, Run | RunLoop), goal
        if act.claim is not None or (act.intent_seq and not act.hosted and not act.paused):
            return  # what is under way is recorded; where it does not end the step, this comes again
        self._hosted.drop(act)
        attempt = goal.attempt if isinstance(goal, Run) else 1
        self._record.fail_step(live, FailStep(act.name, goal.visit, attempt, problem))
        self.on(live, act)

    @staticmethod
    def _intent_lacks(live: Live, act: Activation, run: Run) -> bool:
        """Whether the step begins with an effect whose intent this activation has not made durable yet."""
        step = live.blueprint.steps[run.steps[0]]
        if step.tasks[0].effect != "write" or act.intent_seq != 0:
            return False
        known = live.state.steps.get(step.name)
        return known is None or known.visit != run.visit or not known.tasks

    def on(self, live: Live, act: Activation) -> None:
        """The activation is over: decide again."""
        self._record.done_with(live, act)
        self._record.advance(live)

    def _give_up(self, live: Live, act: Activation, problem: dict[str, Any]) -> None:
        self._record.done_with(live, act)
        self._record.fail(live, problem)

    def _lacking(self, live: Live, goal: Run | RunLoop | FailStep | Finish) -> str | None:
        if isinstance(goal, Finish):
            names = [goal.result_step] if goal.result_step is not None else []
            return self._outputs.lacking(live, names, reads_workload=False)
        if isinstance(goal, FailStep):
            steps: tuple[int, ...] = (live.blueprint.step_index[goal.step],)
        else:
            steps = goal.steps if isinstance(goal, Run) else (goal.step,)
            first = live.blueprint.steps[steps[0]]
            if first.pipeline:
                self._outputs.restore_tasks(live, first.name, goal.visit)
        return self._outputs.lacking(live, live.needs(steps), reads_workload=live.reads_workload(steps))

    def _rebuild(self, live: Live, act: Activation, name: str) -> None:
        """Run a settled pure step again on what it saw then."""
        try:
            past = self._outputs.as_it_was(live, name)
        except CacheMiss as error:
            self._give_up(live, act, {**error.problem(), "step": name})
            return
        act.rebuilding = name
        again = Run((live.blueprint.step_index[name],), live.state.steps[name].visit, 1)
        self._submit(live, act, again, Seen(live.last_seq, past.ctx, past.results), past.args)

    def _seen(
        self, live: Live, act: Activation, steps: tuple[int, ...], visit: int, item: int | None = None
    ) -> Seen | None:
        """What these steps go by; None where that is gone and the execution was given up.

        A pipeline goes by what it began with: else its rules could lead another way along what is recorded.
        """
        step = live.blueprint.steps[steps[0]]
        if not step.pipeline:
            return live.seen(steps)
        if item not in act.seen:
            try:
                began = self._outputs.as_it_began(live, step, visit, item)
            except CacheMiss as error:
                self._give_up(live, act, {**error.problem(), "step": step.name})
                return None
            act.seen[item] = began if began is not None else live.seen(steps)
        return act.seen[item]

    # ---- claims ------------------------------------------------------------------------------------

    def _submit(
        self,
        live: Live,
        act: Activation,
        run: Run,
        seen: Seen,
        args: dict[str, Any] | None,
        progress: Progress | None = None,
        items: Items | None = None,
    ) -> int | None:
        """Send a claim; its number, None where that cannot be and the execution was given up."""
        sent = self.outgoing.send(live, act, run, seen, args, progress, items)
        if isinstance(sent, int):
            return sent
        self._give_up(live, act, sent)
        return None

    def submit_items(
        self, live: Live, act: Activation, goal: RunLoop, items: Items, progress: Progress | None, count: int
    ) -> int | None:
        """Send a claim over `count` items of a loop; its number, None where the execution was given up."""
        run = Run((goal.step,), goal.visit, 1)
        seen = self._seen(live, act, run.steps, goal.visit, items.first) if count else live.seen(run.steps)
        if seen is None:
            return None
        if count > 1 and items.first in act.seen:
            act.seen |= dict.fromkeys(range(items.first + 1, items.first + count), seen)
        return self._submit(live, act, run, seen, goal.args, progress, items)

    def settled(self, claim: Claim, outcomes: list[Outcome]) -> None:
        """A worker answered (`edge.runtime.workers.pool.Claims`)."""
        live, act = self.outgoing.back(claim)
        for outcome in (outcomes := scrubbed(claim, outcomes)):
            if outcome.adopted is not None:
                live.request_table = outcome.adopted
        if claim.items is not None:
            assert isinstance(act.goal, RunLoop), act.goal
            self._loops.settled(live, act, act.goal, claim, outcomes)
            return
        act.claim = None
        rebuilding, act.rebuilding = act.rebuilding, None
        last = outcomes[-1].kind
        if rebuilding is not None:
            if last == MISS:
                self.missed(live, act)
            else:
                self._rebuilt(live, act, rebuilding, outcomes[0])
        elif last == PAUSE:
            if self._record.paused(live, act, claim, outcomes[0]):
                self._pause(live, act, outcomes[0])
            else:
                self.on(live, act)
        elif last == MISS and len(outcomes) == 1:
            self.missed(live, act)
        else:
            made = outcomes if last != MISS else outcomes[:-1]
            self._record.settled(live, act, claim, made)
            self._record.done_with(live, act)
            if last == MISS:
                self.missed(live, None)
            else:
                self._record.advance(live)

    def _pause(self, live: Live, act: Activation, outcome: Outcome) -> None:
        """A pipeline stopped: it goes on when its intent is durable, its pause is over, or its block is back."""
        goal = act.goal
        assert isinstance(goal, Run), goal
        if act.overdue is not None:
            self.overdue(live, act)
        elif outcome.problem is not None:
            self.missed(live, act)
        elif live.ending:
            self.on(live, act)
        elif outcome.hosted is not None:
            self._hosted.begin(live, act, outcome)
        elif outcome.wait_ms is None:
            self._record.record_intent(live, act, goal, outcome.next_number)
        else:
            act.waited = outcome.next_number
            act.paused = True
            self.after_ms(outcome.wait_ms, lambda: self._pause_over(live, act))

    def _pause_over(self, live: Live, act: Activation) -> None:
        if live.under_way.get(act.name) is act:
            act.paused = False
            self.pursue(live, act)

    def lost(self, claim: Claim, code: str, reason: str) -> None:
        """A worker died over a claim (`edge.runtime.workers.pool.Claims`)."""
        live, act = self.outgoing.back(claim)
        if claim.items is not None:
            assert isinstance(act.goal, RunLoop), act.goal
            self._loops.lost(live, act, act.goal, claim, code, reason)
            return
        act.claim = None
        if act.rebuilding is not None:
            act.rebuilding = None
            self.missed(live, act)
            return
        self._record.lost(live, claim, code, reason)
        self.on(live, act)

    def missed(self, live: Live, act: Activation | None) -> None:
        """Blocks were gone; go on with `act`, or where it is None with whatever comes next."""
        live.misses += 1
        if live.misses > MISSES_MAX:
            problem = {
                "code": "cache_lost",
                "message": f"What this execution needs vanished from the cache {live.misses} times.",
                "mend": "Give the cache a larger budget, or find out who empties its folder.",
            }
            if act is not None:
                self._record.done_with(live, act)
            self._record.fail(live, problem)
            return
        self._outputs.forget_absent(live)
        if act is None:
            self._record.advance(live)
        elif live.misses > MISSES_FREE and not self._blocks.favour(live.state.seq):
            self._parked.append((live, act))
        else:
            self.pursue(live, act)

    def unpark(self) -> None:
        """An execution ended: where the favour is free, the next in line has it and goes on."""
        while self._parked and self._parked[0][0].state.status != RUNNING:
            self._parked.popleft()
        if self._parked and self._blocks.favour(self._parked[0][0].state.seq):
            self.pursue(*self._parked.popleft())

    def _rebuilt(self, live: Live, act: Activation, name: str, outcome: Outcome) -> None:
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
            self._give_up(live, act, problem)
            return
        self._record.keep(live, name, outcome, claim_bound=act.claim_bound)
        self.pursue(live, act)
