"""Subscriptions as a gateway sees them: what it is told, and the order it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.runtime.api.subscription_door import SubscriptionDoor
from tests.unit.subscription_rig import opened, outputs, subscription


class Wire:
    """A gateway's connection: what it was told."""

    def __init__(self) -> None:
        self.told: list[list[Any]] = []

    def send(self, message: list[Any]) -> None:
        """Keep a message."""
        self.told.append(message)

    def kinds(self, kind: str) -> list[list[Any]]:
        """What was told of one kind."""
        return [message for message in self.told if message[0] == kind]


async def test_order_holds_over_a_full_backlog(tmp_path: Path) -> None:
    """After one message was not taken, none behind it is, until it came again."""
    box = await opened(tmp_path)
    wire = Wire()
    door = SubscriptionDoor(box.subscriptions, lambda: [wire])
    number = await box.subscribe(subscription(limits={"max_backlog": 2}))
    door.welcome(wire)
    assert wire.told[-1][1] == [[number, "in/s", True, [["a/#", 1]], [], []]]

    def hand_on(token: int, packet: int = 1) -> None:
        payload = b'{"n": %d}' % token
        door.heard(wire, ["message", token, number, "a/x", payload, None, None, packet, False, False])

    for token in range(4):
        hand_on(token, token + 1)
    await box.settle()
    assert wire.kinds("room") == [["room", number]]
    hand_on(4, 5)  # it left before the gateway heard that there is room
    for token in (2, 3, 4):
        hand_on(token, token + 1)
        await box.settle()
    assert [message[1] for message in wire.kinds("taken")] == [0, 1, 2, 3, 4]
    assert [output["n"] for output in outputs(box)] == [0, 1, 2, 3, 4]
    await box.close()


async def test_a_new_session_at_the_broker_begins_anew(tmp_path: Path) -> None:
    """What was not taken comes under another number then; nothing waits for the old one."""
    box = await opened(tmp_path)
    wire = Wire()
    door = SubscriptionDoor(box.subscriptions, lambda: [wire])
    number = await box.subscribe(subscription(limits={"max_backlog": 1}))
    for token in (1, 2):
        door.heard(wire, ["message", token, number, "a/x", b"{}", None, None, token, False, False])
    await box.settle()
    door.heard(wire, ["source", number])
    door.heard(wire, ["message", 7, number, "a/x", b"{}", None, None, 2, False, True])
    await box.settle()
    assert [message[1] for message in wire.kinds("taken")] == [1, 7]
    await box.close()


async def test_it_is_known_why_nothing_can_come_in(tmp_path: Path) -> None:
    """No gateway, one that has yet to ask, one whose broker is away, one that is there: each is told apart."""
    box = await opened(tmp_path)
    wires: list[Wire] = []
    door = SubscriptionDoor(box.subscriptions, lambda: wires)
    number = await box.subscribe(subscription())
    assert door.absent(number) == "No gateway is connected."
    wire = Wire()
    wires.append(wire)
    assert door.absent(number) == "The gateway has yet to ask the broker."
    door.heard(wire, ["attending", number, "The broker is away."])
    assert door.absent(number) == "The broker is away."
    door.heard(wire, ["attending", number, None])
    assert door.absent(number) is None
    wires.clear()
    door.left(wire)
    assert door.absent(number) == "No gateway is connected."
    await box.close()
