"""Dead letters on their way to the topic their subscription names: owed until the broker has them, over restarts too.

Owned by `edge.runtime.subscriptions.flow`; the gateway publishes (`gateway.dead_letters`). One goes at a time, the
oldest first: they are seldom, and one batch may be large. That a letter is dead stands in the log whatever becomes of
the copy.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from edge.core.errors import LogDamaged
from edge.core.events import Event
from edge.core.lanes import Batch
from edge.core.subscription_events import MessageDeadLettered, MessageReceived
from edge.runtime.subscriptions.batches import Batches
from edge.runtime.subscriptions.intake import Intake

logger = logging.getLogger(__name__)

_REASON_CHARACTERS_MAX: Final = 500


class DeadLetters:
    """All that are owed."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._owed: OrderedDict[int, tuple[Intake, Event]] = OrderedDict()
        #: Hands a frame to a gateway; False where there is none.
        self.send: Callable[[list[Any]], bool] = lambda frame: False

    def add(self, intake: Intake, event: Event) -> None:
        """A batch became dead letters, durably; they are owed where its subscription names a topic."""
        if intake.subscription.dead_letter_topic is None:
            return
        self._owed[event.seq] = intake, event
        intake.unsent.append(event.seq)
        if len(self._owed) == 1:
            self.go_on()

    def needed(self) -> list[tuple[int, int, int]]:
        """The messages that are owed: `(subscription, first, last)`."""
        bodies = [(intake.number, event.body) for intake, event in self._owed.values()]
        return [
            (number, body.first, body.last)
            for number, body in bodies
            if isinstance(body, MessageDeadLettered)
        ]

    def sent(self, seq: int) -> None:
        """The broker has them all."""
        found = self._owed.pop(seq, None)
        if found is None:
            return
        intake = found[0]
        intake.unsent.remove(seq)
        intake.unnoted += 1
        self.go_on()

    def go_on(self) -> None:
        """Hand the oldest to a gateway. Called when one connected as well."""
        while self._owed:
            seq, (intake, event) = next(iter(self._owed.items()))
            topic = intake.subscription.dead_letter_topic
            try:
                letters = self._letters(intake, event)
            except LogDamaged as error:
                logger.error(
                    "dead letters of %s are not sent, only recorded: %s", intake.subscription.path, error
                )
                letters = []
            if topic is None or not letters:
                del self._owed[seq]
                intake.unsent.remove(seq)
                continue
            self.send(["dead", seq, topic, letters])
            return

    def _letters(self, intake: Intake, event: Event) -> list[list[Any]]:
        """Each message as `[payload, content type, user properties]`."""
        body = event.body
        assert isinstance(body, MessageDeadLettered)
        batch = Batch(body.lane, body.first, body.last, body.count)
        made = []
        for each in self._batches.messages(intake.number, batch):
            message = each.body
            assert isinstance(message, MessageReceived)
            properties = {
                **(message.headers or {}),
                "subscription": intake.subscription.path,
                "topic": message.topic,
                "seq": str(each.seq),
                "attempts": str(body.attempts),
                "code": str(body.problem.get("code", "")),
                "reason": str(body.problem.get("message", ""))[:_REASON_CHARACTERS_MAX],
            }
            made.append([self._batches.payload_of(each), message.content_type, list(properties.items())])
        return made
