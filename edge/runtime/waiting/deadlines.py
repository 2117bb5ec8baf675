"""Deadlines: of a whole execution, as its request says, and of steps, as their policy says.

Owned by the executor. Judged like waits, by the clocks in the log (`edge.core.timing`); where those cannot say what
passed, it counts as passed. What is under way when a deadline passes is not cut short: its own timeout bounds it.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from edge.core.scheduler import Run, RunLoop, ready_since
from edge.core.state import Execution
from edge.core.timing import UNKNOWN, Left, Moment, left_of_length
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Activation, Live
from edge.runtime.waiting.timers import LOOK_S, Timers
from playbooks.blueprint import Blueprint
from playbooks.shape import Step

_NS_PER_MS: Final = 1_000_000
_LOOK_MS: Final = round(LOOK_S * 1_000)

_Key = tuple[str, int, str]


class Held(Protocol):
    """Who holds the executions and ends them (`edge.runtime.executions.executor.Executor`)."""

    open: dict[int, Live]

    def exceed(self, live: Live, deadline_ms: int, by: str) -> None:
        """Record that its deadline passed, and let it end."""

    def overdue(self, live: Live, act: Activation) -> None:
        """Let nothing more of this step begin."""


class Deadlines:
    """All deadlines of one runtime."""

    def __init__(self, held: Held, timers: Timers, gate: CommitGate) -> None:
        self._held, self._timers, self._gate = held, timers, gate

    # ---- of an execution ----------------------------------------------------------------------------------

    def watch(self, live: Live) -> bool:
        """Mind the request's deadline, if it has one; True where it has passed already and the execution ended."""
        deadline_ms = live.state.request.deadline_ms
        if deadline_ms is None:
            return False
        live.watched = True
        left = self._left(deadline_ms, live.state.seq)
        if left.left_ms == 0:
            self._held.exceed(live, deadline_ms, _by(left))
            return True
        self._arm(("deadline", live.state.seq, ""), left, self._look)
        return False

    def _look(self, key: _Key) -> None:
        live = self._held.open.get(key[1])
        if live is not None and not live.ending:
            self.watch(live)

    # ---- of a step ----------------------------------------------------------------------------------------

    def watch_step(self, live: Live, act: Activation, step: Step) -> bool:
        """Mind the deadline of a step that is about to begin; False where it has passed, and `act` says why."""
        assert step.deadline_ms is not None, step.name
        live.watched = True
        left = self._left(step.deadline_ms, ready_since(live.state, step.name))
        if left.left_ms == 0:
            act.overdue = _step_problem(step, _by(left))
            return False
        self._arm(("step deadline", live.state.seq, step.name), left, self._look_at_step)
        return True

    def _look_at_step(self, key: _Key) -> None:
        live = self._held.open.get(key[1])
        act = None if live is None else live.under_way.get(key[2])
        if live is None or act is None or act.overdue is not None or not isinstance(act.goal, Run | RunLoop):
            return
        step = live.blueprint.steps[live.blueprint.step_index[key[2]]]
        if not self.watch_step(live, act, step):
            self._held.overdue(live, act)

    # ---- both ---------------------------------------------------------------------------------------------

    def due_ns(self, blueprint: Blueprint, state: Execution) -> int | None:
        """When an execution that only waits is to be looked at for its deadlines; None where it has none."""
        lefts = []
        if state.request.deadline_ms is not None:
            lefts.append(self._left(state.request.deadline_ms, state.seq))
        for step in blueprint.steps:
            known = state.steps.get(step.name)
            if step.deadline_ms is not None and known is not None and known.status not in ("done", "failed"):
                lefts.append(self._left(step.deadline_ms, ready_since(state, step.name)))
        if not lefts:
            return None
        next_ms = min(_LOOK_MS if left.left_ms is None else left.left_ms for left in lefts)
        return self._gate.now().at.mono_ns + next_ms * _NS_PER_MS

    def forget(self, live: Live) -> None:
        """Nobody minds the deadlines of this execution any longer."""
        if live.watched:
            self._timers.drop(("deadline", live.state.seq, ""))
            for step in live.blueprint.steps:
                if step.deadline_ms is not None:
                    self._timers.drop(("step deadline", live.state.seq, step.name))

    def _left(self, deadline_ms: int, since_seq: int) -> Left:
        now = since = self._gate.now()
        if since_seq <= self._gate.durable_seq:
            context = self._gate.context_of(since_seq)
            since = Moment(context.boot_id, context.at)
        return left_of_length(deadline_ms, since, now)

    def _arm(self, key: _Key, left: Left, call: Any) -> None:
        next_ms = _LOOK_MS if left.left_ms is None else left.left_ms
        self._timers.arm(self._gate.now().at.mono_ns + next_ms * _NS_PER_MS, key, call)


def _by(left: Left) -> str:
    return "after_power_loss" if left.by == UNKNOWN else left.by


def _step_problem(step: Step, by: str) -> dict[str, Any]:
    return {
        "code": "deadline_exceeded",
        "message": f"Step {step.name} was not done within its deadline of {step.deadline_ms} ms.",
        "mend": "Give spec.policy.lifecycle.deadline_s more, or let an arc take the failure.",
        "by": by,
    }
