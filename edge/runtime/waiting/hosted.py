"""Tasks whose outcome comes from outside the workers: begun here, waited for without a slot, settled here.

Owned by the executor. A worker evaluates such a task's config and stops; the task's kind (`HostedKind`, one table)
brings the outcome about and settles it, and the pipeline is claimed again and adopts it like any recorded outcome. So
policies, loops, restarts and cancellation need no code of a kind's own. A kind never appends `task.done` itself and
holds no `Live`: it knows a task by its `Place`.

How a kind is added: its name into `playbooks.shape.CONFIG_TREES` and `HOSTED`, a module into `playbooks.kinds` (its
effects never include `pure`), its object into `kinds` of this table (`edge.runtime.executions.executor`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from edge.core.codec import check_plain, encode
from edge.core.errors import PayloadInvalid
from edge.core.event_body import Body
from edge.core.events import CallbackReceived, StepStarted, StepWaiting
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.loop_state import Waiting
from edge.core.records import record
from edge.core.scheduler import Run, RunLoop
from edge.core.values import BlockRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Activation, Live, Place
from edge.worker.claims import Outcome, TaskRecord


@record
class HostedOutcome:
    """How a hosted task ended: with a plain `value`, a `table` (a block of its playbook's folder), or a `problem`."""

    value: Any = None
    table: BlockRef | None = None
    problem: dict[str, Any] | None = None
    duration_us: int = 0


class HostedKind(Protocol):
    """One kind of hosted task. It may settle at once or later; after `drop` it need not."""

    def begin(self, live: Live, place: Place, config: Mapping[str, Any]) -> None:
        """Bring the outcome about. The intent of a `write` is durable by now.

        `config` is as evaluated; its `round` is how many waits for callbacks the pipeline has left behind.

        What takes time is recorded by `Hosted.waits`, so that a restart takes it up in place of beginning again.
        """

    def take_up(self, live: Live, place: Place, waiting: Waiting) -> None:
        """Go on waiting after a restart, by what was recorded."""

    def drop(self, place: Place) -> None:
        """Nobody waits for this any longer, or not in memory."""

    def due(self, waiting: Waiting, callbacks: tuple[CallbackReceived, ...]) -> tuple[int, int | None] | None:
        """When an execution that only waits is to be looked at again, if it need not be in memory until then.

        `callbacks` are those that came for the pipeline, adopted or not.

        `(moment of CLOCK_BOOTTIME in ns, the instant of the wall clock it stands for in ms or None)`; None where it
        has to stay: then nothing but `settle` tells that its time has come.
        """


class HostedRecord(Protocol):
    """Who writes down what comes of it (`edge.runtime.executions.executor.Executor`)."""

    open: dict[int, Live]

    def append(self, live: Live, body: Body, step: str | None = None, **envelope: Any) -> int:
        """Append an event of an execution; its sequence number."""

    def record_task(self, live: Live, act: Activation, place: Place, record: TaskRecord) -> None:
        """Append a task's outcome."""


class Onward(Protocol):
    """Who carries a pipeline on (`edge.runtime.dispatch.dispatcher.Dispatcher`)."""

    def go_on(self, live: Live, act: Activation, item: int | None) -> None:
        """The task that was waited for has its outcome."""


class Hosted:
    """All hosted tasks of one runtime."""

    def __init__(self, log: HostedRecord, gate: CommitGate) -> None:
        self._log, self._gate = log, gate
        self.kinds: dict[str, HostedKind] = {}
        self.onward: Onward | None = None
        #: Called when an execution may have come to rest.
        self.at_rest: Callable[[int], None] = lambda execution: None

    # ---- from pipelines -------------------------------------------------------------------------------

    def begin(self, live: Live, act: Activation, outcome: Outcome, item: int | None = None) -> None:
        """A pipeline, of a loop's item where one is named, stopped at a hosted task."""
        assert outcome.hosted is not None
        kind, task, config = outcome.hosted
        place = self._place(live, act, outcome.next_number, task, item)
        act.hosted[item] = kind, place
        problem = config.get("problem")
        if problem is not None:
            self.settle(place, HostedOutcome(problem=problem))
            return
        step = live.blueprint.steps[live.blueprint.step_index[place.step]]
        effect = next(each.effect for each in step.tasks if each.name == task)
        if effect != "write" or act.intended.get(item) == place.number:
            self.kinds[kind].begin(live, place, config)
            return
        act.intended[item] = place.number
        seq = self._log.append(
            live,
            StepStarted(place.number),
            place.step,
            visit=place.visit,
            attempt=self._attempt(live, place),
            iteration=() if item is None else (item,),
            cause=live.began_with(act, item),
        )

        def durable(_: bytes) -> None:
            if self._holds(act, place):
                self.kinds[kind].begin(live, place, config)

        self._gate.after(seq, durable)

    def take_up(self, live: Live, act: Activation, waiting: Waiting, item: int | None = None) -> None:
        """A pipeline waits for a hosted task since before a restart."""
        body = waiting.body
        place = self._place(live, act, body.number, body.task, item)
        act.hosted[item] = body.kind, place
        self.kinds[body.kind].take_up(live, place, waiting)

    @staticmethod
    def _place(live: Live, act: Activation, number: int, task: str, item: int | None) -> Place:
        goal = act.goal
        assert isinstance(goal, Run | RunLoop), goal
        attempt = goal.attempt if isinstance(goal, Run) else 1
        return Place(live.state.seq, act.name, goal.visit, number, task, item, attempt)

    @staticmethod
    def _attempt(live: Live, place: Place) -> int:
        """Which attempt at its step, or at the item of its loop, a task's intent begins."""
        if place.item is None:
            return place.attempt
        loop = live.state.steps[place.step].loop
        assert loop is not None, place
        return loop.attempts(place.item) + 1

    @staticmethod
    def _holds(act: Activation, place: Place) -> bool:
        held = act.hosted.get(place.item)
        return held is not None and held[1] == place

    def drop(self, act: Activation) -> int:
        """Nobody waits for the hosted tasks of this activation any longer; how many there were."""
        dropped, act.hosted = act.hosted, {}
        for kind, place in dropped.values():
            self.kinds[kind].drop(place)
        return len(dropped)

    # ---- from kinds -----------------------------------------------------------------------------------

    def waits(self, place: Place, kind: str, detail: dict[str, Any] | None = None) -> int:
        """Record that a task waits, with what its kind needs to take it up; the event's sequence number."""
        live = self._log.open[place.execution]
        iteration = () if place.item is None else (place.item,)
        seq = self._log.append(
            live,
            StepWaiting(place.number, place.task, kind, detail),
            place.step,
            visit=place.visit,
            attempt=place.attempt,
            iteration=iteration,
            cause=live.began_with(live.under_way[place.step], place.item),
        )
        self._gate.after(seq, lambda _: self.at_rest(place.execution))
        return seq

    def settle(self, place: Place, outcome: HostedOutcome) -> bool:
        """Record a task's outcome and let its pipeline go on; False where nobody waits for it any longer."""
        live = self._log.open.get(place.execution)
        act = live.under_way.get(place.step) if live is not None else None
        if live is None or act is None or not self._holds(act, place):
            return False
        del act.hosted[place.item]
        self._log.record_task(live, act, place, _task_record(place, outcome))
        assert self.onward is not None
        self.onward.go_on(live, act, place.item)
        return True


def _task_record(place: Place, outcome: HostedOutcome) -> TaskRecord:
    """The outcome as a pipeline adopts it; one that cannot be kept is a failure."""
    value, table, problem = None, outcome.table, outcome.problem
    if problem is None and table is None:
        try:
            value = encode(check_plain(outcome.value))
        except PayloadInvalid as error:
            problem = {**error.problem(), "code": "result_invalid"}
    if value is not None and len(value) > INLINE_BYTES_MAX:
        problem = {
            "code": "result_too_large",
            "message": f"Task {place.task} got {len(value)} bytes; a value may have {INLINE_BYTES_MAX}.",
            "mend": "Ask for less, or for a table.",
        }
    if problem is not None:
        value = table = None
    return TaskRecord(place.number, place.task, value, table, problem, outcome.duration_us)
