"""One subscription at work: what it may do, what waits, what repeats, where its timer stands, its totals.

Owned by `edge.runtime.subscriptions.flow`. Made again from the log after a restart: `feed` takes its events in order,
as they were appended. It never appends and starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_NS_PLAUSIBLE_MIN, WALL_SYNCHRONISED, Reading
from edge.core.events import Event, ExecutionRequested
from edge.core.lanes import Batch, Lanes, Rules
from edge.core.limits import BATCH_BYTES_MAX, DEDUP_KEYS_MAX, DELIVERIES_MAX, MIB, MISSED_TICKS_MAX
from edge.core.repeats import Deliveries, Window, mark_of
from edge.core.subscription_events import (
    MessageDeadLettered,
    MessageDeduplicated,
    MessageReceived,
    SubscriptionDeactivated,
    SubscriptionDraining,
    SubscriptionPaused,
    SubscriptionPosition,
    SubscriptionResumed,
)
from edge.core.ticks import Due, Rhythm, Tick, anchor, due
from edge.core.timing import BOOTTIME, Moment
from edge.runtime.waiting.timers import Timers
from playbooks.subscription import Subscription

ACTIVE: Final = "active"
PAUSED: Final = "paused"
DRAINING: Final = "draining"
DEACTIVATED: Final = "deactivated"
_STATES: Final = {
    SubscriptionPaused: PAUSED,
    SubscriptionResumed: ACTIVE,
    SubscriptionDraining: DRAINING,
    SubscriptionDeactivated: DEACTIVATED,
}
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
#: Payloads kept in memory for batches soon to come; what is more is read from the log again.
_HELD_BYTES_MAX: Final = 1 * MIB
#: So much of a boot's id tells it from others in a tick's event.
_BOOT_MARK_BYTES: Final = 4


class Intake:
    """One subscription; `number` names it in the log."""

    def __init__(self, number: int, subscription: Subscription, settled_through: int = 0) -> None:
        self.number = number
        self.subscription = subscription
        self.state = ACTIVE
        self.lanes = Lanes(_rules(subscription), settled_through)
        self.window = self._new_window()
        self.deliveries = Deliveries(DELIVERIES_MAX)
        self.counts = {"received": 0, "deduplicated": 0, "executions": 0, "dead": 0}
        self.tick: Tick | None = None
        #: The newest execution of each batch that is not settled, by the batch's first message.
        self.executions: dict[int, int] = {}
        #: Filters of earlier versions, which the gateway must give up.
        self.gone: tuple[str, ...] = ()
        #: Dead letters that the broker does not have yet, oldest first.
        self.unsent: list[int] = []
        #: Messages settled since the position was noted.
        self.unnoted = 0
        self._alarms: dict[str, int] = {}
        self._held: dict[int, Event] = {}
        self._held_bytes = 0

    def take_version(self, subscription: Subscription) -> None:
        """The subscription was registered again; what waits, waits on."""
        filters = {pattern for pattern, _ in subscription.topics}
        before = [*self.gone, *(pattern for pattern, _ in self.subscription.topics)]
        self.gone = tuple(dict.fromkeys(pattern for pattern in before if pattern not in filters))
        fresh = subscription.dedup_window_s != self.subscription.dedup_window_s
        self.subscription = subscription
        self.lanes.rules = _rules(subscription)
        self.lanes.again()
        if fresh:
            self.window = self._new_window()

    def _new_window(self) -> Window:
        return Window(self.subscription.dedup_window_s * _NS_PER_S, DEDUP_KEYS_MAX)

    @property
    def remembered(self) -> int:
        """How many of its newest events a restart must read for what repeats.

        Beside a message may stand the request of its execution and, where that failed, a dead letter. Nobody sends a
        tick again.
        """
        if self.subscription.source == "timer":
            return 1
        return 3 * max(DELIVERIES_MAX, DEDUP_KEYS_MAX if self.subscription.dedup_window_s else 0)

    # ---- what happens, live and again -------------------------------------------------------------------

    def feed(self, event: Event, at_ns: int, known_ns: int, *, settled: bool) -> None:
        """One event of the log. `at_ns` is when its message is to count as received, `known_ns` since when its id is
        known, `settled` that it is so.
        """
        body = event.body
        if isinstance(body, MessageReceived):
            self.took(event, at_ns, known_ns, waits=not settled)
            if body.tick is not None:
                self.tick = tick_of(body.tick)
        elif isinstance(body, ExecutionRequested):
            assert body.batch is not None
            batch = batch_of(body)
            if batch.last > self.lanes.settled_through:
                if batch.first in self.executions:
                    self.lanes.landed()
                self.lanes.restored(batch)
                self.executions[batch.first] = event.seq
            self.counts["executions"] += 1
        elif isinstance(body, MessageDeadLettered):
            self.counts["dead"] += body.count
            if self.executions.pop(body.first, None) is not None:
                self.lanes.landed()
                self.lanes.settled(body.first)
        elif isinstance(body, MessageDeduplicated):
            self.counts["deduplicated"] += 1
        elif isinstance(body, SubscriptionPosition):
            self.state = body.state
            self.counts = {**self.counts, **(body.counts or {})}
            if body.tick is not None:
                self.tick = tick_of(body.tick)
        elif type(body) in _STATES:
            self.state = _STATES[type(body)]

    def took(self, event: Event, at_ns: int, known_ns: int | None = None, *, waits: bool = True) -> None:
        """A message was accepted at `at_ns`; its id is known since then, or since `known_ns`."""
        body = event.body
        assert isinstance(body, MessageReceived)
        self.counts["received"] += 1
        if body.packet:
            self.deliveries.note(body.packet, event.seq, mark_of_event(body))
        if body.key is not None and self.subscription.dedup_window_s:
            self.window.note(body.key, event.seq, at_ns if known_ns is None else known_ns)
        if not waits:
            return
        # A payload that went into a blob is a batch of its own: its size is not in the event.
        size_bytes = len(body.payload or b"") if body.payload_digest is None else BATCH_BYTES_MAX
        if self._held_bytes + size_bytes <= _HELD_BYTES_MAX:
            self._held[event.seq] = event
            self._held_bytes += size_bytes
        self.lanes.received(event.seq, size_bytes, at_ns, body.lane, body.playbook)

    def take_held(self, batch: Batch) -> list[Event] | None:
        """The events of a batch that just began, where memory still has them all."""
        held = []
        for seq, event in self._held.items():
            if seq > batch.last:
                break
            if seq >= batch.first and event.body.lane == batch.lane:  # type: ignore[attr-defined]
                held.append(event)
        for event in held:
            del self._held[event.seq]
            self._held_bytes -= len(event.body.payload or b"")  # type: ignore[attr-defined]
        return held if len(held) == batch.count else None

    # ---- alarms ------------------------------------------------------------------------------------------

    def alarm(self, timers: Timers, kind: str, due_ns: int, call: Callable[[tuple[str, int]], None]) -> None:
        """Be called back then, or before: one alarm of a kind is set, and another only where it is earlier.

        Every message would set one otherwise, and the heap of timers keeps each until it is due.
        """
        if self._alarms.get(kind, due_ns + 1) > due_ns:
            self._alarms[kind] = due_ns
            timers.arm(due_ns, (kind, self.number), call)

    def rang(self, kind: str) -> Intake:
        """Its alarm of that kind rang; itself."""
        self._alarms.pop(kind, None)
        return self

    # ---- the timer's rhythm ------------------------------------------------------------------------------

    def ticks_due(self, now: Moment) -> Due:
        """What is due now, and when to ask again; a timer that never ticked has its anchor after this."""
        subscription = self.subscription
        every_ns = subscription.every_ms * _NS_PER_MS
        rhythm = Rhythm(every_ns, subscription.missed, subscription.align, MISSED_TICKS_MAX)
        now = Moment(now.boot_id[:_BOOT_MARK_BYTES], now.at)
        if self.tick is None:
            self.tick = anchor(rhythm, now)
        return due(self.tick, rhythm, now)

    def position(self) -> SubscriptionPosition:
        """The event that notes where it stands."""
        self.unnoted = 0
        tick = None if self.tick is None else parts_of(self.tick)
        sent = self.unsent[0] - 1 if self.unsent else 0
        return SubscriptionPosition(self.lanes.position(), self.state, dict(self.counts), sent, tick)


def mark_of_event(body: MessageReceived) -> bytes:
    """The mark of an accepted message (`edge.core.repeats.mark_of`)."""
    return mark_of(body.topic, body.payload or body.payload_digest or b"")


def _rules(subscription: Subscription) -> Rules:
    return Rules(
        subscription.rows_max,
        subscription.bytes_max,
        subscription.wait_ms * _NS_PER_MS,
        subscription.in_flight_max,
        subscription.ordering != "none",
        subscription.attempts,
        subscription.delay_ms * _NS_PER_MS,
        subscription.backoff,
        subscription.per_s,
    )


def batch_of(request: ExecutionRequested) -> Batch:
    """The batch a request names."""
    assert request.batch is not None
    _, first, last, count, lane, attempt = request.batch
    return Batch(lane, first, last, count, None, attempt)


def parts_of(tick: Tick) -> list[Any]:
    """A tick as its event has it (`edge.core.subscription_events.MessageReceived`)."""
    due, at = tick.due, tick.due.at
    parts = [tick.number, at.wall_ns, at.mono_ns, due.boot_id, at.wall_trust]
    return parts if tick.by == BOOTTIME else [*parts, tick.by]


def tick_of(parts: list[Any]) -> Tick:
    """A tick from its event. Earlier releases said nothing of trust: what was plausible was believed."""
    number, wall_ns, mono_ns, boot = parts[:4]
    believed = WALL_SYNCHRONISED if wall_ns >= WALL_NS_PLAUSIBLE_MIN else WALL_IMPLAUSIBLE
    trust = parts[4] if len(parts) > 4 else believed
    return Tick(number, Moment(boot, Reading(mono_ns, wall_ns, trust)))
