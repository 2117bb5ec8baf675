"""Subscriptions through a real mosquitto while runtime and gateway are killed: each message in one executed range."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from collections import Counter, defaultdict
from typing import Any

import pytest

from edge.core.codec import decode
from edge.core.events import ExecutionFinished, ExecutionRequested, StepDone
from edge.core.subscription_events import MessageReceived
from gateway.mqtt import BrokerAddress, Message, Session, Settings, open_session
from playbooks.documents import compile_document
from tests.process.box import Box

pytestmark = pytest.mark.mosquitto

MESSAGES = int(os.environ.get("EDGE_TEST_MESSAGES", "5000"))
SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))
TOPICS = 5

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: rows, path: take/rows}
workflow:
  - step: rows
    spec: {effect: read}
    tool:
      kind: python
      input: {table: "{{ workload.table }}"}
      code: |
        result = {"n": table.column("n").to_pylist()}
"""
SUBSCRIPTION = """
apiVersion: noetl.io/v2
kind: Subscription
metadata: {name: readings, path: in/readings}
spec:
  source: mqtt
  topics: [plant/#]
  runtime: {batch: 100, timeout_ms: 200}
  dispatch: {playbook: take/rows, batch_dispatch: true}
"""


def register(box: Box, source: str) -> None:
    """Compile and register either kind of document."""
    box.ask("register", blueprint=compile_document(source.encode(), "test.yaml").data)


class Publisher:
    """Publishes each message until the broker has acknowledged it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.done = 0

    async def run(self, count: int, pause_s: float) -> None:
        session = self._open()
        await session.connect()
        for n in range(count):
            payload = json.dumps({"n": n}).encode()
            code = await session.publish(f"plant/{n % TOPICS}/t", payload)
            assert code < 0x80, code
            self.done = n + 1
            if n % 50 == 0:
                await asyncio.sleep(pause_s)
        await session.close()

    def _open(self) -> Session:
        def unwanted(message: Message) -> None:
            raise AssertionError(message)

        return open_session(
            "codec",
            address=BrokerAddress("127.0.0.1", self.port),
            settings=Settings(client_id="publisher", clean_start=True),
            on_message=unwanted,
            on_lost=lambda reason: None,
        )


async def settled(box: Box, received: int) -> dict[str, Any]:
    """Wait until so many messages are recorded and all of them are settled."""
    async with asyncio.timeout(120):
        while True:
            found = dict((await asyncio.to_thread(box.ask, "subscriptions"))[0])
            if found["counts"]["received"] >= received and found["backlog"] == 0:
                return found
            await asyncio.sleep(0.05)


async def at_the_broker(box: Box) -> None:
    """Wait until the gateway has subscribed."""
    async with asyncio.timeout(30):
        while "is at the broker" not in box.words():
            await asyncio.sleep(0.02)


async def test_kills_lose_nothing_and_double_nothing(box: Box, mosquitto: Any) -> None:
    """5,000 messages at QoS 1 under kill -9 of both processes: each once, in order per topic, counts equal."""
    register(box, PLAYBOOK)
    register(box, SUBSCRIPTION)
    await at_the_broker(box)
    chance = random.Random(SEED)
    publisher = Publisher(mosquitto.port)
    publishing = asyncio.create_task(publisher.run(MESSAGES, 0.08))
    kills = Counter[str]()
    while not publishing.done():
        await asyncio.sleep(chance.uniform(0.05, 0.5))
        part = chance.choice(["gateway", "runtime"])
        box.kill(part)
        kills[part] += 1
        if part == "runtime":
            report = await asyncio.to_thread(box.verify)
            assert report.whole, report.problems
        await asyncio.sleep(chance.uniform(0, 0.2))
        box.start(part)
        await asyncio.to_thread(box.status)
    await publishing
    found = await settled(box, MESSAGES)
    print(f"seed {SEED}, kills {dict(kills)}, executions {found['counts']['executions']}")
    assert sum(kills.values()) >= 5
    check(box, found)


def check(box: Box, found: dict[str, Any]) -> None:
    """What the log says: messages, ranges, and what the executions saw."""
    events = box.events()
    messages = [event for event in events if isinstance(event.body, MessageReceived)]
    numbers = [json.loads(event.body.payload)["n"] for event in messages]  # type: ignore[attr-defined]
    assert Counter(numbers) == Counter(range(MESSAGES))
    by_topic: dict[str, list[int]] = defaultdict(list)
    for event, n in zip(messages, numbers, strict=True):
        by_topic[event.body.topic].append(n)  # type: ignore[attr-defined]
    assert all(seen == sorted(seen) for seen in by_topic.values()), "out of order"
    requests = [event for event in events if isinstance(event.body, ExecutionRequested)]
    ranges = [event.body.batch for event in requests]  # type: ignore[attr-defined]
    assert all(batch is not None and batch[5] == 1 for batch in ranges)
    assert sum(batch[3] for batch in ranges) == MESSAGES
    assert all(before[2] < after[1] for before, after in itertools.pairwise(ranges))
    ends = Counter(event.execution for event in events if isinstance(event.body, ExecutionFinished))
    assert ends == Counter(event.seq for event in requests)
    seen = [
        n
        for event in events
        if isinstance(event.body, StepDone) and event.body.value is not None
        for n in decode(event.body.value)["n"]  # type: ignore[index,call-overload]
    ]
    assert seen == numbers
    assert found["counts"] == {"received": MESSAGES, "deduplicated": 0, "executions": len(ranges), "dead": 0}


async def test_drained_at_the_broker_too(box: Box, mosquitto: Any) -> None:
    """A drained subscription leaves no session that would gather messages; resumed, it asks anew."""
    register(box, PLAYBOOK)
    register(box, SUBSCRIPTION)
    await at_the_broker(box)
    publisher = Publisher(mosquitto.port)
    await publisher.run(10, 0)
    await settled(box, 10)
    box.edge("subscription", "drain", "in/readings")
    async with asyncio.timeout(20):
        while dict(box.ask("subscription", path="in/readings"))["state"] != "deactivated":
            await asyncio.sleep(0.02)
    lines = box.edge("subscription", "list").stdout
    assert "deactivated" in lines
    assert "10 received" in lines
    shown = box.edge("subscription", "show", "in/readings").stdout
    assert "plant/# (QoS 1)" in shown


FAILS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: fails, path: take/fails}
workflow:
  - step: fail
    tool: {kind: transform, value: "{{ n / 0 }}"}
"""


async def test_a_dead_letter_goes_to_its_topic(box: Box, mosquitto: Any) -> None:
    """The message arrives as it came, with the reason beside it; `edge show` names the range of an execution."""
    register(box, FAILS)
    source = SUBSCRIPTION.replace("take/rows, batch_dispatch: true", "take/fails")
    register(box, source + "  dead_letter: {topic: dead/readings}\n")
    await at_the_broker(box)
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    listener = open_session(
        "codec",
        address=BrokerAddress("127.0.0.1", mosquitto.port),
        settings=Settings(client_id="listener", clean_start=True),
        on_message=arrived.put_nowait,
        on_lost=lambda reason: None,
    )
    await listener.connect()
    await listener.subscribe([("dead/#", 1)])
    await Publisher(mosquitto.port).run(1, 0)
    async with asyncio.timeout(30):
        message = await arrived.get()
    properties = dict(message.user_properties)
    assert (message.topic, json.loads(message.payload)) == ("dead/readings", {"n": 0})
    assert (properties["topic"], properties["subscription"]) == ("plant/0/t", "in/readings")
    assert properties["code"] == "expression_failed"
    await listener.close()
    request = next(event for event in box.events() if isinstance(event.body, ExecutionRequested))
    shown = box.edge("show", str(request.seq)).stdout
    assert "subscription:in/readings" in shown
    assert f"event {properties['seq']}, attempt" in shown
