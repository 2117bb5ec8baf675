"""Subscriptions and their broker: away, refusing, taken over by another box of the same name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mqtt5
import pytest

from gateway.complaints import Complaints
from gateway.mqtt import BrokerAddress
from gateway.reconnects import Clash, Reconnects
from gateway.source import Asked, Source
from tests.process.box import START_S, Box
from tests.process.mosquitto import Mosquitto
from tests.process.mqtt_peers import Scripted, patiently, playing
from tests.process.test_subscription_kills import PLAYBOOK, SUBSCRIPTION, register


def until(box: Box, happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 2 * START_S
    while not happened():
        assert time.monotonic() < deadline_s, box.words()
        time.sleep(0.05)  # polls processes that nobody asked to say


@pytest.fixture
def twin(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Box]:
    """A second box of the same name at the same broker, not started."""
    folder = tmp_path / "twin"
    folder.mkdir()
    made = Box(folder, mosquitto.port)
    yield made
    made.down()


@pytest.mark.mosquitto
def test_two_boxes_of_one_name_do_not_storm_the_broker(box: Box, twin: Box) -> None:
    """A copied SD card: both back off on every connection, each says once what to do, and nothing of it is loud."""
    twin.up()
    for each in (box, twin):
        register(each, PLAYBOOK)
        register(each, SUBSCRIPTION)
    for each in (box, twin):
        until(each, lambda each=each: "keeps ending this connection" in each.words())  # type: ignore[misc]
    for _ in range(10):  # takes seconds, in which a storm would be hundreds of lines
        assert "in/readings" in box.edge("subscription", "list").stdout
    for each in (box, twin):
        lines = each.logs["gateway"].read_text().splitlines()
        assert sum("keeps ending this connection" in line for line in lines) == 1
        assert sum("of the same name 'testbox'" in line for line in lines) == 1
        assert len(lines) < 60, "\n".join(lines)


@pytest.mark.mosquitto
def test_who_looks_is_told_that_the_broker_is_away(box: Box, mosquitto: Mosquitto) -> None:
    """`list` and `show` say that nothing comes in, and `show` why, until it does."""
    register(box, PLAYBOOK)
    register(box, SUBSCRIPTION)

    def absent() -> Any:
        return box.ask("subscription", path="in/readings")["absent"]

    until(box, lambda: absent() is None)
    assert "nothing comes in" not in box.edge("subscription", "show", "in/readings").stdout
    assert "not at the broker" not in box.edge("subscription", "list").stdout
    mosquitto.kill()
    until(box, lambda: absent() is not None)
    shown = box.edge("subscription", "show", "in/readings").stdout
    assert "state         active\nbroker        nothing comes in at the moment: The " in shown
    assert "; not at the broker, `edge subscription show` says why" in box.edge("subscription", "list").stdout
    mosquitto.start()
    until(box, lambda: absent() is None)
    box.kill("gateway")
    until(box, lambda: absent() == "No gateway is connected.")


async def test_a_connection_that_ends_as_it_is_made_is_made_again() -> None:
    """Welcomed and thrown out in one breath, as by a broker whose session is taken over: the next one subscribes."""
    subscribed = asyncio.get_running_loop().create_future()
    told: list[list[Any]] = []
    connections = 0

    async def script(server: Scripted) -> None:
        nonlocal connections
        connections += 1
        await server.read()
        welcome = mqtt5.ConnAckPacket().write()
        if connections == 1:
            server.write(
                welcome
                + mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write()
            )
            await server.read()  # it hangs up
        server.write(welcome)
        asked = await server.read()
        server.write(mqtt5.SubAckPacket(asked.packet_id, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]))
        subscribed.set_result(None)
        while True:
            await server.read()

    async with playing(script) as port:
        address = BrokerAddress("127.0.0.1", port)
        reconnects = Reconnects("of a test", Clash(address, "b"), lambda: 0.0)
        complaints = Complaints(logging.getLogger("t"), asyncio.get_running_loop().call_later)
        source = Source("codec", address, "b", 7, told.append, lambda: 1, reconnects, complaints)
        source.ask(Asked("in/x", True, (("a/#", 1),), (), frozenset()))
        keeping = asyncio.get_running_loop().create_task(source.keep())
        await patiently(subscribed)
        await patiently(source_attends(told))
        keeping.cancel()
        await source.close()
    assert connections == 2
    assert ["attending", 7, None] in told
    whys = [message[2] for message in told if message[0] == "attending" and message[2]]
    assert any("session taken over" in why for why in whys)
    assert reconnects.level == logging.WARNING


async def source_attends(told: list[list[Any]]) -> None:
    while ["attending", 7, None] not in told:
        await asyncio.sleep(0)
