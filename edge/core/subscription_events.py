"""The events of subscriptions: codes 30 to 39 of the closed set in `edge.core.events`.

The runtime appends these (`edge.runtime.subscriptions`), replay and the command line read them. All carry as their
execution the number of their subscription. Nothing here may look at a clock, a file or a socket.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from edge.core.event_body import Body
from edge.core.records import record


@record
class MessageReceived(Body):
    """A message of a subscription was accepted, or its timer ticked.

    `payload` holds up to 64 KiB; a larger one is a blob named by `payload_digest`. `received_ns` is wall time.
    `headers` are the user properties that may pass, `packet` is the broker's packet id (0 at QoS 0). What its
    directives and the subscription's order say stands here, so that nobody has to work it out again: the `lane` it
    waits in, the `playbook` that takes it, the `key` that tells it from others. `tick` of a timer is
    `[number, due on the wall clock in ns, due since boot in ns, first bytes of the boot's id, trust in the wall
    clock, which clock said so where not CLOCK_BOOTTIME]`, without the last two in logs of the first releases.
    """

    CODE: ClassVar[int] = 30
    TYPE: ClassVar[str] = "subscription.message.received"
    topic: str
    received_ns: int
    payload: bytes | None = None
    payload_digest: bytes | None = None
    content_type: str | None = None
    headers: dict[str, str] | None = None
    packet: int = 0
    retain: bool = False
    lane: str | None = None
    playbook: str | None = None
    key: str | None = None
    tick: list[Any] | None = None


@record
class SubscriptionPaused(Body):
    """Messages are accepted and wait; nothing of the subscription begins. `by` says who wanted it."""

    CODE: ClassVar[int] = 31
    TYPE: ClassVar[str] = "subscription.paused"
    by: str


@record
class SubscriptionResumed(Body):
    """The subscription works on, after a pause or after it was drained."""

    CODE: ClassVar[int] = 32
    TYPE: ClassVar[str] = "subscription.resumed"
    by: str


@record
class SubscriptionDraining(Body):
    """No further message is accepted; what was accepted is carried out."""

    CODE: ClassVar[int] = 33
    TYPE: ClassVar[str] = "subscription.draining"
    by: str


@record
class SubscriptionDeactivated(Body):
    """All that was accepted is settled; the subscription rests until somebody resumes it."""

    CODE: ClassVar[int] = 34
    TYPE: ClassVar[str] = "subscription.deactivated"


@record
class MessageDeduplicated(Body):
    """A message came whose `key` another had inside the window: it is that one again, event `of`."""

    CODE: ClassVar[int] = 35
    TYPE: ClassVar[str] = "subscription.message.deduplicated"
    key: str
    of: int


@record
class MessageDeadLettered(Body):
    """Nothing could be done with these messages: those of `lane` from `first` to `last`, `count` of them.

    `attempts` executions failed, the last of them as `problem` says; the messages stay in the log.
    """

    CODE: ClassVar[int] = 36
    TYPE: ClassVar[str] = "subscription.message.dead_lettered"
    first: int
    last: int
    count: int
    attempts: int
    problem: dict[str, Any]
    lane: str | None = None


@record
class SubscriptionPosition(Body):
    """How far a subscription came: every message up to `through` is settled. A restart reads on from there.

    `counts` are totals since it was registered. `sent` says up to which event the broker has the
    dead letters, 0 where it has them all.
    `tick` is where its timer stands, as in MessageReceived.
    """

    CODE: ClassVar[int] = 37
    TYPE: ClassVar[str] = "subscription.position"
    through: int
    state: str = "active"
    counts: dict[str, int] | None = None
    sent: int = 0
    tick: list[Any] | None = None


@record
class TicksMissed(Body):
    """A timer came due `count` times when nobody was there, and its policy makes nothing up for them."""

    CODE: ClassVar[int] = 38
    TYPE: ClassVar[str] = "subscription.ticks.missed"
    count: int


SUBSCRIPTION_BODIES: Final[tuple[type[Body], ...]] = (
    MessageReceived,
    SubscriptionPaused,
    SubscriptionResumed,
    SubscriptionDraining,
    SubscriptionDeactivated,
    MessageDeduplicated,
    MessageDeadLettered,
    SubscriptionPosition,
    TicksMissed,
)
