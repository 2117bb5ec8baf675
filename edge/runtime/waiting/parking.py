"""Executions that only wait, out of memory: a number and a moment each, folded from the log when something comes.

Owned by the executor. What waits stands in the log, so an execution all of whose hosted tasks can be left alone is
dropped and taken up again, as after a restart, when its time has come or somebody speaks of it. Must never park an
execution of which anything is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from edge.core.clock import TRUST_NAMES
from edge.core.events import CallbackReceived
from edge.core.limits import EXECUTIONS_OPEN_MAX
from edge.core.loop_state import Waiting
from edge.core.scheduler import RunLoop, only_waits
from edge.core.state import RUNNING, Execution
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Activation, Live
from edge.runtime.waiting.deadlines import Deadlines
from edge.runtime.waiting.hosted import Hosted
from edge.runtime.waiting.timers import Timers
from playbooks.blueprint import Blueprint

logger = logging.getLogger(__name__)

#: One that is to wake up sooner than this stays, as long as there is room: folding it again costs a millisecond.
_SOON_NS: Final = 2_000_000_000
#: So much later a wake-up is tried again where as many executions are open as may be.
_CROWDED_NS: Final = 20_000_000
#: After a start so many of those that were never looked at are folded in a second, beside all else.
_UNREAD_PER_S: Final = 1_000
#: The wall clock was set where it moved against CLOCK_BOOTTIME by more than this.
_SET_NS: Final = 1_000_000_000
_NS_PER_S: Final = 1_000_000_000


class Open(Protocol):
    """Who holds the executions that are open (`edge.runtime.executions.executor.Executor`)."""

    open: dict[int, Live]

    def advance(self, live: Live) -> None:
        """Carry one on."""


class Parking:
    """All parked executions of one runtime: by number, the earliest instant of the wall clock each waits for."""

    def __init__(
        self, executor: Open, hosted: Hosted, timers: Timers, deadlines: Deadlines, gate: CommitGate
    ) -> None:
        self._executor, self._hosted, self._timers, self._gate = executor, hosted, timers, gate
        self._deadlines = deadlines
        self._parked: dict[int, int | None] = {}
        #: Of these, what nobody has folded yet since the start: whether they rest is not sure.
        self._unread: set[int] = set()
        self._wake_up = self._wake  # one for all that are armed
        self._wall, self._moved = self._looked(), False
        #: Folds an execution from the log, and one that nobody has looked at since the start; set by the engine.
        self.fold: Callable[[int], Live] | None = None
        self.resume: Callable[[int], None] | None = None
        #: Called when the last open execution was parked.
        self.on_quiet: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._parked)

    def numbers(self) -> Iterable[int]:
        """The executions that are parked."""
        return self._parked

    def __contains__(self, execution: int) -> bool:
        return execution in self._parked

    # ---- out of memory ----------------------------------------------------------------------------------

    def consider(self, execution: int) -> None:
        """Park an open execution where nothing of it is under way but waits that can be left alone."""
        live = self._executor.open.get(execution)
        if live is None or not self._rests(live):
            return
        crowded = len(self._executor.open) > EXECUTIONS_OPEN_MAX // 2
        if self.park(live.blueprint, live.state, at_once=crowded):
            for act in live.under_way.values():
                self._hosted.drop(act)
            live.under_way.clear()
            self._deadlines.forget(live)
            del self._executor.open[execution]
            if not self._executor.open:
                self.on_quiet()

    def sweep(self) -> None:
        """Park what came to rest unnoticed; wake by the wall clock where it was set or is believed anew.

        Called every few seconds.
        """
        for execution in list(self._executor.open):
            self.consider(execution)
        before, self._wall = self._wall, self._looked()
        by_ns = self._wall[0] - before[0]
        moved, moved_before = abs(by_ns) > _SET_NS, self._moved
        self._moved = moved
        if moved and not moved_before:  # one that stands still moves at every look
            trust = TRUST_NAMES[self._wall[1]]
            logger.warning("the wall clock was set by %+d s and is %s now", by_ns // 1_000_000_000, trust)
        if moved or self._wall[1] != before[1]:
            for execution, until_ms in list(self._parked.items()):
                if until_ms is not None:
                    self._arm(execution, self._gate.now().at.mono_ns)

    def park(self, blueprint: Blueprint, state: Execution, *, at_once: bool = True) -> bool:
        """Note an execution by its state alone; False where it has to be in memory."""
        if state.status != RUNNING or state.problem is not None or not only_waits(blueprint, state):
            return False
        due_ns, until_ms = self._deadlines.due_ns(blueprint, state), None
        for waiting, callbacks in _waitings(state):
            found = self._hosted.kinds[waiting.body.kind].due(waiting, callbacks)
            if found is None:
                return False
            due_ns = found[0] if due_ns is None else min(due_ns, found[0])
            if found[1] is not None:
                until_ms = found[1] if until_ms is None else min(until_ms, found[1])
        if due_ns is None or (not at_once and due_ns - self._gate.now().at.mono_ns < _SOON_NS):
            return False
        self._parked[state.seq] = until_ms
        self._arm(state.seq, due_ns)
        return True

    def _rests(self, live: Live) -> bool:
        if live.doomed is not None or not live.under_way or live.last_seq > self._gate.durable_seq:
            return False
        return all(_only_hosted(act) for act in live.under_way.values())

    # ---- and back ---------------------------------------------------------------------------------------

    def find(self, execution: int) -> Live | None:
        """An execution that runs, folded again where it was parked; None where there is none of that number."""
        self.read(execution)
        live = self._executor.open.get(execution)
        if live is not None or execution not in self._parked:
            return live
        del self._parked[execution]
        self._timers.drop(execution)
        assert self.fold is not None
        live = self._executor.open[execution] = self.fold(execution)
        if not self._deadlines.watch(live):
            self._executor.advance(live)
        return live

    def leave_unread(self, executions: Iterable[int]) -> None:
        """Take executions that seem to rest for parked, after a start; each is looked at by and by."""
        due_ns = self._gate.now().at.mono_ns
        for number, execution in enumerate(executions):
            self._unread.add(execution)
            self._parked[execution] = None
            self._arm(execution, due_ns + number * _NS_PER_S // _UNREAD_PER_S)

    def read(self, execution: int) -> None:
        """Look at an execution that nobody has folded since the start: then it is open, or parked for good."""
        if execution in self._unread:
            self._unread.discard(execution)
            del self._parked[execution]
            self._timers.drop(execution)
            assert self.resume is not None
            self.resume(execution)

    def _arm(self, execution: int, due_ns: int) -> None:
        self._timers.arm(due_ns, execution, self._wake_up)

    def _wake(self, execution: int) -> None:
        if len(self._executor.open) >= EXECUTIONS_OPEN_MAX:
            self._arm(execution, self._gate.now().at.mono_ns + _CROWDED_NS)
            return
        if execution in self._unread:
            self.read(execution)
            return
        self.find(execution)
        self.consider(execution)

    def _looked(self) -> tuple[int, int]:
        """How far the wall clock is from CLOCK_BOOTTIME, in ns, and how far it is believed."""
        at = self._gate.now().at
        return at.wall_ns - at.mono_ns, at.wall_trust


def _only_hosted(act: Activation) -> bool:
    if act.claim is not None or act.paused or not act.hosted:
        return False
    if not isinstance(act.goal, RunLoop):
        return True
    run = act.loop
    return run is not None and not run.out and not run.pauses and run.resting == len(act.hosted)


def _waitings(state: Execution) -> Iterator[tuple[Waiting, tuple[CallbackReceived, ...]]]:
    """What waits, each with the callbacks that came for its pipeline."""
    for step in state.steps.values():
        if step.waiting is not None:
            yield step.waiting, step.callbacks
        elif step.loop is not None:
            for item, waiting in step.loop.waiting.items():
                yield waiting, step.loop.callbacks.get(item, ())
