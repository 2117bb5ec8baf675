"""Subscriptions as the gateways see them: the table of what to ask the broker for, messages in, confirmations out.

Owned by the daemon, spoken to by `edge.runtime.api.socket`. From a gateway: `["source", number]` (its session at the
broker is new: what it sends from here on comes in order), `["attending", number, why not | nil]` (whether it is at
the broker for it) and `["message", token, number, topic, payload, content type, headers, packet, retained, again]`.
To a gateway: `["subscriptions", [[number, path, open, [[filter, qos]], [filters to give up], [headers]]]]`,
`["taken", token, number]` once the message is durable, and `["room", number]`: send again what was not taken.

A message that is not taken gets no answer, and none after it is taken either until it comes again: that keeps the
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from edge.runtime.subscriptions.flow import Subscriptions
from edge.runtime.subscriptions.intake import DEACTIVATED, DRAINING
from edge.runtime.subscriptions.messages import Arrived


class Gateway(Protocol):
    """A gateway's connection (`edge.runtime.api.socket.Peer`)."""

    def send(self, message: list[Any]) -> None:
        """Send one message."""


class SubscriptionDoor:
    """All gateways' messages, and one table for them."""

    def __init__(self, subscriptions: Subscriptions, gateways: Callable[[], Iterable[Gateway]]) -> None:
        self._subscriptions, self._gateways = subscriptions, gateways
        #: The first message that was not taken, by gateway and subscription.
        self._refused: dict[tuple[Gateway, int], int] = {}
        #: By gateway and subscription: why it is not at the broker for it, None where it is.
        self._absent: dict[tuple[Gateway, int], str | None] = {}
        subscriptions.on_change = self._tell
        subscriptions.on_room = self._room
        subscriptions.dead_letters.send = self._to_one

    def welcome(self, gateway: Gateway) -> None:
        """A gateway connected: tell it what there is."""
        gateway.send(self._table())
        self._subscriptions.dead_letters.go_on()

    def left(self, gateway: Gateway) -> None:
        """A gateway is gone; what it did not hear of, it sends again."""
        self._refused = {key: token for key, token in self._refused.items() if key[0] is not gateway}
        self._absent = {key: why for key, why in self._absent.items() if key[0] is not gateway}

    def absent(self, number: int) -> str | None:
        """Why nothing can come in for a subscription at the moment; None where a gateway is at the broker for it."""
        said = [why for (_, each), why in self._absent.items() if each == number]
        if None in said:
            return None
        if said:
            return said[0]
        return (
            "The gateway has yet to ask the broker." if any(self._gateways()) else "No gateway is connected."
        )

    def heard(self, gateway: Gateway, message: list[Any]) -> None:
        """One message of a gateway's, of a shape that its kind has (`edge.runtime.api.shapes`)."""
        if message[0] == "dead_sent":
            self._subscriptions.dead_letters.sent(message[1])
            return
        if message[0] == "source":
            self._refused.pop((gateway, message[1]), None)
            return
        if message[0] == "attending":
            _, number, why = message
            self._absent[gateway, number] = why
            return
        _, token, number, topic, payload, content_type, headers, packet, retain, again = message
        refused = self._refused.get((gateway, number))
        if refused is not None and refused != token:
            return
        arrived = Arrived(topic, payload, content_type, headers or {}, packet, retain, again)
        if self._subscriptions.receive(number, arrived, lambda: gateway.send(["taken", token, number])):
            self._refused.pop((gateway, number), None)
        elif packet:  # one at QoS 0 does not come again, so nothing waits for it
            self._refused[gateway, number] = token

    def _to_one(self, frame: list[Any]) -> bool:
        gateway = next(iter(self._gateways()), None)
        if gateway is not None:
            gateway.send(frame)
        return gateway is not None

    def _room(self, number: int) -> None:
        for gateway in self._gateways():
            gateway.send(["room", number])

    def _tell(self) -> None:
        for gateway in self._gateways():
            gateway.send(self._table())

    def _table(self) -> list[Any]:
        rows = []
        for intake in self._subscriptions.all():
            subscription = intake.subscription
            if subscription.source != "mqtt":
                continue
            topics = [[pattern, qos] for pattern, qos in subscription.topics]
            taking = intake.state not in (DRAINING, DEACTIVATED)
            gone, headers = list(intake.gone), list(subscription.headers)
            rows.append([intake.number, subscription.path, taking, topics, gone, headers])
        return ["subscriptions", rows]
