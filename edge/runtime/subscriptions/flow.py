"""All subscriptions of a box: messages in, batches out, each message in exactly one executed batch.

Owned by the daemon, beside the engine; spoken to by the socket (`edge.runtime.api.socket`) and the command line's
operations. A message is accepted by one event and confirmed when that is durable; the event of a batch's request
names the range it takes. Where a restart finds messages after the last range, they wait as before: nothing is lost,
nothing runs twice.

Backpressure: with more than `limits.max_backlog` messages waiting, or with no room on the drive, nothing more is
confirmed until there is room (`on_room`); what was confirmed is never dropped. A paused subscription goes on
accepting up to that bound, because what a broker holds for us it may drop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.core.errors import EdgeError, LogDamaged, RequestRefused
from edge.core.event_body import Body
from edge.core.events import CatalogRegistered, Event
from edge.core.lanes import Batch
from edge.core.limits import (
    EXECUTIONS_OPEN_MAX,
    POSITION_MESSAGES,
    SUBSCRIPTIONS_MAX,
)
from edge.core.state import CANCELLED, COMPLETED, RUNNING, Execution
from edge.core.subscription_events import (
    MessageDeadLettered,
    MessageReceived,
    SubscriptionDeactivated,
    SubscriptionDraining,
    SubscriptionPaused,
    SubscriptionPosition,
    SubscriptionResumed,
    TicksMissed,
)
from edge.core.timing import Moment, passed_since
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.engine import Engine
from edge.runtime.requests.admit import FreeSpace
from edge.runtime.running.live import Live
from edge.runtime.subscriptions.batches import Batches
from edge.runtime.subscriptions.dead_letters import DeadLetters
from edge.runtime.subscriptions.intake import ACTIVE, DEACTIVATED, DRAINING, PAUSED, Intake, parts_of
from edge.runtime.subscriptions.messages import Arrived
from edge.runtime.subscriptions.reception import Reception
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog
from playbooks.blueprint import Blueprint
from playbooks.subscription import KIND, Subscription


class Subscriptions:
    """See the module."""

    def __init__(
        self, engine: Engine, gate: CommitGate, eventlog: EventLog, blocks: Blocks, free_space: FreeSpace
    ) -> None:
        self._engine, self._gate, self._eventlog = engine, gate, eventlog
        self._reception = Reception(gate, free_space)
        self.batches = Batches(engine, gate, blocks)
        self.dead_letters = DeadLetters(self.batches)
        self._by_number: dict[int, Intake] = {}
        self._by_path: dict[str, Intake] = {}
        #: By number, the event that this runtime registered a subscription's newest digest with.
        self._registered: dict[int, int] = {}
        self._running: dict[int, tuple[Intake, Batch]] = {}
        #: Called when the gateways have to know of something else.
        self.on_change: Callable[[], None] = lambda: None
        #: Called with a subscription's number when it takes messages again.
        self.on_room: Callable[[int], None] = lambda number: None
        engine.batch_again = self._again
        engine.on_batch_end = self._ended

    # ---- catalog and restart ---------------------------------------------------------------------------

    def load(self) -> None:
        """Make every subscription that the log holds as it was; nothing begins. Raises LogDamaged."""
        for seq in self._eventlog.catalog():
            event = self._eventlog.event(seq)
            body = event.body
            if isinstance(body, CatalogRegistered) and body.kind == KIND:
                assert event.execution is not None, event
                self._take_up(event.execution, Subscription.decode(body.blueprint))
        for intake in self._by_number.values():
            self._restore(intake)

    def _take_up(self, number: int, subscription: Subscription) -> Intake:
        known = self._by_number.get(number)
        if known is None:
            known = self._by_number[number] = self._by_path[subscription.path] = Intake(number, subscription)
        else:
            known.take_version(subscription)
        return known

    def _restore(self, known: Intake) -> None:
        number = known.number
        noted = self._eventlog.position(number)
        position = self._eventlog.event(noted).body if noted else SubscriptionPosition(0)
        assert isinstance(position, SubscriptionPosition)
        through, sent = position.through, position.sent or noted
        intake = Intake(number, known.subscription, through)
        intake.gone = known.gone
        self._by_number[number] = self._by_path[known.subscription.path] = intake
        first = (
            min(through + 1, sent + 1, self._eventlog.newest_of(number, intake.remembered)) if noted else 0
        )
        now = self._gate.now()
        for event in self._eventlog.events_of(number, first):
            counted = dict(intake.counts)
            intake.feed(
                event, now.at.mono_ns, self._known_ns(intake, event, now), settled=event.seq <= through
            )
            if event.seq < noted:
                intake.counts = counted  # what was before is in the noted totals
            if isinstance(event.body, MessageDeadLettered) and event.seq > sent:
                self.dead_letters.add(intake, event)

    def _known_ns(self, intake: Intake, event: Event, now: Moment) -> int:
        """Since when an id is known, on this boot's clock; where no clock can say, since the boot began."""
        body = event.body
        if (
            not isinstance(body, MessageReceived)
            or body.key is None
            or not intake.subscription.dedup_window_s
        ):
            return now.at.mono_ns
        context = self._gate.context_of(event.seq)
        return now.at.mono_ns - passed_since(Moment(context.boot_id, context.at), now).ns

    def start(self) -> None:
        """After the engine resumed: settle batches that ended meanwhile, and go on."""
        for intake in self._by_number.values():
            intake.lanes.hurried = intake.state == DRAINING
            for batch in intake.lanes.out:
                execution = intake.executions[batch.first]
                state = self._engine.state_of(execution)
                self._running[execution] = intake, batch
                if state.status != RUNNING:
                    self._ended(state)
            self._drive(intake)

    def _again(self, blueprint: Blueprint, state: Execution) -> Live:
        """The engine takes up an execution of ours."""
        assert state.request.batch is not None
        intake = self._by_number.get(state.request.batch[0])
        if intake is None:
            raise LogDamaged(
                f"Execution {state.seq} takes messages of a subscription that the log does not hold."
            )
        return self.batches.again(blueprint, state, intake)

    def register(self, data: bytes, registered: Callable[[str, bool], None]) -> None:
        """Put a subscription into the catalog and begin with it; `registered(path, is_new)` once that is durable.

        Raises RequestRefused where the bytes are none, or its playbooks are not there.
        """
        try:
            subscription = Subscription.decode(data)
        except (ValueError, EdgeError) as error:
            mend = "Register files with `edge playbook register`."
            raise RequestRefused(f"This is not a subscription: {error}", mend=mend) from error
        known = self._by_path.get(subscription.path)
        if known is None and len(self._by_path) >= SUBSCRIPTIONS_MAX:
            mend = "Let one subscription take more topics."
            raise RequestRefused(f"A box has at most {SUBSCRIPTIONS_MAX} subscriptions.", mend=mend)
        named = [
            each.allowed or () for each in subscription.directives if each.controls == "dispatch.playbook"
        ]
        for path in (subscription.playbook, *(path for allowed in named for path in allowed)):
            self._engine.catalog.playbook(path)
        is_new = known is None or known.subscription.digest != subscription.digest
        number = known.number if known is not None else self._gate.next_seq
        if not is_new:
            seq = self._registered.get(number, 0)
            if seq > self._gate.durable_seq:
                self._gate.after(seq, lambda _: registered(subscription.path, False))
            else:
                registered(subscription.path, False)
            return
        event = self._gate.append(
            CatalogRegistered(subscription.path, subscription.digest, data, KIND), execution=number
        )
        self._registered[number] = event.seq
        intake = self._take_up(number, subscription)
        self.on_change()
        self._drive(intake)
        self._gate.after(event.seq, lambda _: registered(subscription.path, True))

    def all(self) -> list[Intake]:
        """Every subscription, by path."""
        return [self._by_path[path] for path in sorted(self._by_path)]

    def find(self, path: str) -> Intake:
        """A subscription by its path. Raises RequestRefused."""
        if path not in self._by_path:
            raise RequestRefused(
                f"There is no subscription {path!r} on this box.",
                mend="`edge subscription list` shows what there is.",
                code="subscription_unknown",
            )
        return self._by_path[path]

    # ---- messages --------------------------------------------------------------------------------------

    def receive(self, number: int, message: Arrived, accepted: Callable[[], None]) -> bool:
        """Accept a message: `accepted()` once it is durable. False where it is not taken now; it comes again."""
        intake = self._by_number.get(number)
        if intake is None or intake.state in (DRAINING, DEACTIVATED):
            return False
        found = self._reception.came_before(intake, message)
        if found is not None:
            if found > self._gate.durable_seq:
                self._gate.after(found, lambda _: accepted())
            else:
                accepted()
            return True
        if not self._reception.has_room(intake):
            return False
        event = self._reception.take(intake, message)
        self._gate.after(event.seq, lambda _: accepted())
        intake.took(event, self._gate.clock.read().mono_ns)
        self._drive(intake)
        return True

    def look_for_room(self) -> None:
        """Tell the gateway of subscriptions that take messages again; called when work ends, and by `look`."""
        for number in list(self._reception.full):
            self._reception.full.discard(number)
            if self._reception.has_room(self._by_number[number]):
                self.on_room(number)

    def look(self) -> None:
        """Called every second: see whether the drive or the engine has room, or the wall clock was set."""
        self.look_for_room()
        for intake in self._by_number.values():
            if intake.lanes.backlog or intake.subscription.source == "timer":
                self._drive(intake)

    # ---- batches ---------------------------------------------------------------------------------------

    def _drive(self, intake: Intake) -> None:
        """Begin what may begin now, and come back when more may."""
        if intake.state not in (ACTIVE, DRAINING):
            return
        self._tick(intake)
        executor = self._engine.executor
        now_ns = self._gate.clock.read().mono_ns
        while len(executor.open) < EXECUTIONS_OPEN_MAX and (batch := intake.lanes.take(now_ns)) is not None:
            try:
                execution = self.batches.begin(intake, batch)
            except LogDamaged as error:  # its messages cannot be read any more, and others wait behind it
                intake.lanes.landed()
                self._give_up(intake, batch, error.problem())
                continue
            intake.executions[batch.first] = execution
            intake.counts["executions"] += 1
            self._running[execution] = intake, batch
        wake_ns = intake.lanes.wake_ns(now_ns)
        if wake_ns is not None and len(executor.open) < EXECUTIONS_OPEN_MAX:
            intake.alarm(executor.timers, "batch", max(wake_ns, now_ns + 1), self._woken)
        if intake.state == DRAINING and intake.lanes.backlog == 0:
            self._change(intake, SubscriptionDeactivated(), DEACTIVATED)

    def _woken(self, key: tuple[str, int]) -> None:
        self._drive(self._by_number[key[1]].rang(key[0]))

    def _ended(self, state: Execution) -> None:
        """An execution of ours ended, durably."""
        if (found := self._running.pop(state.seq, None)) is None:
            return
        intake, batch = found
        lanes = intake.lanes
        lanes.landed()
        now_ns = self._gate.clock.read().mono_ns
        if state.status not in (COMPLETED, CANCELLED) and lanes.failed(batch.first, now_ns):
            self._drive(intake)
            return
        if state.status != COMPLETED:
            problem = state.problem or {"code": state.status, "message": "The execution did not complete."}
            self._give_up(intake, batch, problem)
        else:
            lanes.settled(batch.first)
        intake.executions.pop(batch.first, None)
        intake.unnoted += batch.count
        if intake.unnoted >= POSITION_MESSAGES:
            self._note(intake)
        if intake.number in self._reception.full:
            self.look_for_room()
        self._drive(intake)

    def _give_up(self, intake: Intake, batch: Batch, problem: dict[str, Any]) -> None:
        """A batch becomes dead letters."""
        dead = MessageDeadLettered(batch.first, batch.last, batch.count, batch.attempt, problem, batch.lane)
        intake.counts["dead"] += batch.count
        event = self._append(intake, dead)
        self._gate.after(event.seq, lambda _: self.dead_letters.add(intake, event))
        intake.lanes.settled(batch.first)

    # ---- timers ----------------------------------------------------------------------------------------

    def _tick(self, intake: Intake) -> None:
        """Append the ticks that are due, and see that the next one is not missed."""
        if intake.subscription.source != "timer" or intake.state != ACTIVE:
            return
        now = self._gate.now()
        new = intake.tick is None
        found = intake.ticks_due(now)
        if new:
            self._note(intake)
        for tick in found.fire:
            event = self._append(intake, MessageReceived("", now.at.wall_ns, tick=parts_of(tick)))
            intake.took(event, now.at.mono_ns)
        intake.tick = found.last
        if found.missed:
            self._append(intake, TicksMissed(found.missed))
            if not found.fire:
                self._note(intake)  # else the next start would count them again
        intake.alarm(self._engine.executor.timers, "tick", found.next_mono_ns, self._woken)

    # ---- pause, resume, drain ----------------------------------------------------------------------------

    def pause(self, intake: Intake, by: str, done: Callable[[str], None]) -> None:
        """Nothing more begins; messages are accepted and wait."""
        self._command(intake, SubscriptionPaused(by), PAUSED, (ACTIVE, DRAINING), done)

    def resume(self, intake: Intake, by: str, done: Callable[[str], None]) -> None:
        """Go on, after a pause or after it was drained."""
        self._command(intake, SubscriptionResumed(by), ACTIVE, (PAUSED, DRAINING, DEACTIVATED), done)

    def drain(self, intake: Intake, by: str, done: Callable[[str], None]) -> None:
        """Accept nothing more, carry out what was accepted, then rest."""
        self._command(intake, SubscriptionDraining(by), DRAINING, (ACTIVE, PAUSED), done)

    def _command(
        self, intake: Intake, body: Body, state: str, allowed: tuple[str, ...], done: Callable[[str], None]
    ) -> None:
        if intake.state not in allowed:
            done(intake.state)
            return
        seq = self._change(intake, body, state)
        intake.lanes.hurried = state == DRAINING
        intake.lanes.again()
        self._drive(intake)
        self._gate.after(seq, lambda _: done(intake.state))

    def _change(self, intake: Intake, body: Body, state: str) -> int:
        seq = int(self._append(intake, body).seq)
        intake.state = state
        self._note(intake)
        self.on_change()
        return seq

    # ---- the log -----------------------------------------------------------------------------------------

    def _append(self, intake: Intake, body: Body, *, held_back: bool = False) -> Any:
        return self._gate.append(body, execution=intake.number, held_back=held_back)

    def _note(self, intake: Intake) -> None:
        self._append(intake, intake.position(), held_back=True)

    def needed(self) -> tuple[dict[int, int], list[tuple[int, int, int]], set[int]]:
        """What a restart would read: from which event on of each, messages besides, executions of unsettled batches.

        Notes first where each stands, so that it is little.
        """
        firsts: dict[int, int] = {}
        batches: set[int] = set()
        for number, intake in self._by_number.items():
            self._note(intake)
            sent = intake.unsent[0] if intake.unsent else self._gate.next_seq
            newest = self._eventlog.newest_of(number, intake.remembered)
            firsts[number] = min(intake.lanes.position() + 1, sent, newest)
            batches.update(intake.executions.values())
        return firsts, self.dead_letters.needed(), batches

    def note_positions(self) -> None:
        """Note where every subscription stands. Called when the box stops."""
        for intake in self._by_number.values():
            if intake.unnoted:
                self._note(intake)
