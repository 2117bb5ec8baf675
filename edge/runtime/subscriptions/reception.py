"""Messages in: whether one came before, whether there is room for it, and the event that accepts it.

Owned by `edge.runtime.subscriptions.flow`, which confirms a message once its event is durable. It must never
take a message that it cannot keep: a full subscription takes nothing until there is room, and its broker keeps the
rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import time

from edge.core.errors import RequestRefused
from edge.core.events import Event
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.repeats import mark_of
from edge.core.subscription_events import MessageDeduplicated, MessageReceived
from edge.runtime.commit.gate import CommitGate
from edge.runtime.requests.admit import FreeSpace, RefusalBudget
from edge.runtime.subscriptions.intake import Intake
from edge.runtime.subscriptions.messages import Arrived, directed, lane_of


class Reception:
    """Where the messages of all subscriptions come in."""

    def __init__(self, gate: CommitGate, free_space: FreeSpace) -> None:
        self._gate, self._free_space = gate, free_space
        self._repeats = RefusalBudget()
        #: Subscriptions that refused a message for want of room since somebody looked.
        self.full: set[int] = set()

    def take(self, intake: Intake, message: Arrived) -> Event:
        """Append the event that accepts a message."""
        return self._gate.append(self._body(intake, message), execution=intake.number)

    def _body(self, intake: Intake, message: Arrived) -> MessageReceived:
        subscription, payload = intake.subscription, message.payload
        large = len(payload) > INLINE_BYTES_MAX
        digest = hashlib.sha256(payload).digest() if large else None
        if digest is not None:
            self._gate.store_blob(digest, payload)
        decided = directed(subscription, message.headers)
        content_type = decided.get("content_type", message.content_type)
        return MessageReceived(
            message.topic,
            self._gate.clock.read().wall_ns,
            None if large else payload,
            digest,
            content_type,
            message.headers or None,
            message.packet,
            message.retain,
            lane_of(subscription.key, message.topic, message.headers, content_type, payload),
            decided.get("dispatch.playbook"),
            decided.get("idempotency_key"),
        )

    def came_before(self, intake: Intake, message: Arrived) -> int | None:
        """The event of the same message, where it came before."""
        if message.again and message.packet:
            payload = message.payload
            if len(payload) > INLINE_BYTES_MAX:
                payload = hashlib.sha256(payload).digest()
            found = intake.deliveries.find(message.packet, mark_of(message.topic, payload))
            if found is not None:
                return found
        if not intake.subscription.dedup_window_s:
            return None
        key = directed(intake.subscription, message.headers).get("idempotency_key")
        found = None if key is None else intake.window.find(key, self._gate.clock.read().mono_ns)
        if found is not None and key is not None:
            intake.counts["deduplicated"] += 1
            if self._repeats.spend("repeated", time.monotonic()):
                noted = MessageDeduplicated(key, found)
                self._gate.append(noted, execution=intake.number, held_back=True)
        return found

    def has_room(self, intake: Intake) -> bool:
        """Whether a message may be taken now; where not, the subscription is among the full ones."""
        if intake.lanes.backlog < intake.subscription.backlog_max:
            with contextlib.suppress(RequestRefused):
                self._free_space.require()
                return True
        self.full.add(intake.number)
        return False
