"""What the command line may ask of subscriptions: list, show, pause, resume, drain.

Wired by the daemon into `edge.runtime.api.socket`, beside `edge.runtime.api.operations`. Looking never changes
anything.
"""

from __future__ import annotations

from typing import Any

from edge.runtime.api.operations import argument
from edge.runtime.api.socket import Operation, Reply
from edge.runtime.api.subscription_door import SubscriptionDoor
from edge.runtime.executions.engine import Engine
from edge.runtime.subscriptions.flow import Subscriptions
from edge.runtime.subscriptions.intake import DEACTIVATED, DRAINING, Intake
from playbooks.subscription import is_subscription


class SubscriptionOperations:
    """The operations over all subscriptions."""

    def __init__(self, engine: Engine, subscriptions: Subscriptions, door: SubscriptionDoor) -> None:
        self._engine, self._subscriptions, self._door = engine, subscriptions, door

    def table(self, playbooks_register: Operation) -> dict[str, Operation]:
        """Operation names and what they run; `register` takes both kinds of documents."""

        def register(arguments: dict[str, Any], reply: Reply) -> None:
            """`{blueprint: bytes}` → `{path, new}` once durable."""
            data = argument(arguments, "blueprint", bytes)
            if not is_subscription(data):
                playbooks_register(arguments, reply)
                return
            self._subscriptions.register(data, lambda path, new: reply({"path": path, "new": new}))

        return {
            "register": register,
            "subscriptions": self.listing,
            "subscription": self.show,
            "subscription.pause": self.pause,
            "subscription.resume": self.resume,
            "subscription.drain": self.drain,
        }

    def listing(self, _: dict[str, Any], reply: Reply) -> None:
        """→ `[{path, state, absent, source, playbook, …}]`; `absent` is why nothing can come in, else None."""
        reply([self._described(intake) for intake in self._subscriptions.all()])

    def show(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{path}` → as in the list, with its topics, its bounds and its batches under way."""
        intake = self._subscriptions.find(argument(arguments, "path", str))
        subscription = intake.subscription
        reply(
            {
                **self._described(intake),
                "topics": [list(topic) for topic in subscription.topics],
                "every_ms": subscription.every_ms,
                "ordering": subscription.ordering,
                "attempts": subscription.attempts,
                "table": subscription.table,
                "rows_max": subscription.rows_max,
                "headers": list(subscription.headers),
                "dead_letter_topic": subscription.dead_letter_topic,
                "batches": [
                    {
                        "execution": self._engine.execution_id(intake.executions[batch.first]),
                        "first": batch.first,
                        "last": batch.last,
                        "count": batch.count,
                        "lane": batch.lane,
                        "attempt": batch.attempt,
                    }
                    for batch in intake.lanes.out
                ],
            }
        )

    def pause(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{path, by}` → `{state}` once that is durable."""
        intake = self._subscriptions.find(argument(arguments, "path", str))
        self._subscriptions.pause(
            intake, argument(arguments, "by", str), lambda state: reply({"state": state})
        )

    def resume(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{path, by}` → `{state}` once that is durable."""
        intake = self._subscriptions.find(argument(arguments, "path", str))
        self._subscriptions.resume(
            intake, argument(arguments, "by", str), lambda state: reply({"state": state})
        )

    def drain(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{path, by}` → `{state}` once that is durable."""
        intake = self._subscriptions.find(argument(arguments, "path", str))
        self._subscriptions.drain(
            intake, argument(arguments, "by", str), lambda state: reply({"state": state})
        )

    def _described(self, intake: Intake) -> dict[str, Any]:
        subscription = intake.subscription
        wanted = subscription.source == "mqtt" and intake.state not in (DRAINING, DEACTIVATED)
        return {
            "number": intake.number,
            "path": subscription.path,
            "digest": subscription.digest,
            "state": intake.state,
            "absent": self._door.absent(intake.number) if wanted else None,
            "source": subscription.source,
            "playbook": subscription.playbook,
            "backlog": intake.lanes.backlog,
            "in_flight": intake.lanes.in_flight,
            "position": intake.lanes.position(),
            "counts": dict(intake.counts),
            "tick": None if intake.tick is None else intake.tick.number,
        }
