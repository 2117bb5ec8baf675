"""The mqtt kind on the real engine, the gateway played by the test: what is handed over when, and what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import encode
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook

NS_PER_S = 1_000_000_000


class Gateway:
    """Hears what the runtime hands over; away until told otherwise."""

    def __init__(self, box: Box) -> None:
        self.mqtt = box.engine.executor.mqtt
        self.heard: list[list[Any]] = []
        self.there = True
        self.mqtt.box = "here"
        self.mqtt.send = self._hear

    def _hear(self, frame: list[Any]) -> bool:
        if self.there:
            self.heard.append(frame)
        return self.there

    @property
    def published(self) -> list[list[Any]]:
        return [frame for frame in self.heard if frame[0] == "publish"]


def steps(
    step: dict[str, Any] | None = None, topics: list[str] | None = None, **keys: Any
) -> list[dict[str, Any]]:
    spec = {"policy": {"access": {"topics": topics or ["site/#"]}}, **(step or {})}
    tool = {"kind": "mqtt", "topic": "site/{{ n }}", **keys}
    return [{"step": "s", "input": {"n": "door", "t": 5}, "spec": spec, "tool": tool}]


async def begun(box: Box, *given: Any, **keys: Any) -> Gateway:
    gateway = Gateway(box)
    await box.register(playbook(steps(*given, **keys)))
    box.submit("t")
    await box.settle()
    return gateway


async def result(box: Box) -> Any:
    await box.settle()
    document = box.document()
    return document["result"] if document["status"] == "completed" else document["error"]["code"]


async def test_a_message_goes_out_and_is_acknowledged(box: Box) -> None:
    """The frame holds all of it, with the task's identity; the broker's word is the outcome."""
    gateway = await begun(
        box, payload={"open": "{{ n }}"}, retain=True, properties={"k": "{{ t }}", "no": None}
    )
    (frame,) = gateway.published
    execution = box.engine.execution_id(box.receipts[0].seq)
    assert frame[2:] == [
        "site/door", b'{"open":"door"}', 1, True, "application/json",
        [["k", "5"], ["idempotency-key", f"{execution}/s/0/s/0"]], False,
    ]  # fmt: skip
    assert box.answers == []
    gateway.mqtt.published(frame[1], "ok", 0)
    assert await result(box) == {"topic": "site/door", "qos": 1, "code": 0}


async def test_nothing_leaves_before_its_intent_is_durable(box: Box) -> None:
    """The gateway gets the message after the event that says it will be sent has been flushed."""
    gateway = Gateway(box)
    durable: list[int] = []
    box.engine.executor.mqtt.send = lambda frame: (
        bool(durable.append(box.gate.durable_seq)) or gateway._hear(frame)
    )
    await box.register(playbook(steps(payload=1)))
    box.submit("t")
    await box.settle()
    intent = next(event.seq for event in box.events() if event.type == "step.started")
    assert durable[0] >= intent


@pytest.mark.parametrize(
    ("keys", "payload", "kind"),
    [
        ({}, b"", None),
        ({"payload": "text {{ t }}"}, b"text 5", "text/plain"),
        ({"payload": "{{ t }}"}, b"5", "application/json"),
        (
            {"payload": {"a": "{{ t }}"}, "content_type": "application/cbor"},
            encode({"a": 5}),
            "application/cbor",
        ),
        ({"payload": "x", "content_type": "text/csv", "qos": 0}, b"x", "text/csv"),
    ],
)
async def test_payloads(box: Box, keys: dict[str, Any], payload: bytes, kind: str | None) -> None:
    """Texts as they are, values as JSON or CBOR."""
    gateway = await begun(box, **keys)
    assert gateway.published[0][3] == payload
    assert gateway.published[0][6] == kind


@pytest.mark.parametrize(
    ("topic", "topics", "code"),
    [
        ("{{ 'other/x' }}", ["site/#"], "access_denied"),
        ("{{ '$SYS/x' }}", ["$SYS/#"], "access_denied"),
        ("{{ 'edge/v1/here/request/a/b' }}", ["#"], "access_denied"),
        ("{{ 'site/+' }}", ["site/#"], "request_invalid"),
        ("{{ t }}", ["#"], "request_invalid"),
    ],
)
async def test_only_granted_topics(box: Box, topic: str, topics: list[str], code: str) -> None:
    """What is not granted, the broker's own and this box's own topics are never published to."""
    gateway = await begun(box, None, topics, topic=topic)
    assert await result(box) == code
    assert gateway.published == []


async def test_the_broker_may_refuse(box: Box) -> None:
    """A reason code that refuses is an error with the code in it."""
    gateway = await begun(box, payload=1)
    gateway.mqtt.published(gateway.published[0][1], "refused", 0x87)
    assert await result(box) == "mqtt_refused"
    assert "0x87" in box.document()["error"]["message"]


async def test_it_waits_for_a_gateway_until_its_time_is_up(tmp_path: Path) -> None:
    """Without a gateway a message waits, holds no worker, and is sent when one comes; or its time is up."""
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    gateway = Gateway(box)
    gateway.there = False
    await box.register(playbook(steps(payload=1, timeout="5s")))
    box.submit("t")
    await box.settle()
    assert not box.pool.waiting
    gateway.there = True
    gateway.mqtt.gateway_up()
    gateway.mqtt.published(gateway.published[0][1], "ok", 0)
    assert (await result(box))["code"] == 0
    gateway.there = False
    box.submit("t")
    await box.settle()
    clock.advance(6 * NS_PER_S)
    box.engine.executor.timers.look()
    assert await result(box) == "mqtt_timeout"
    assert box.document()["error"]["retryable"] is True
    gateway.there = True
    gateway.mqtt.gateway_up()
    assert len(gateway.published) == 1
    await box.close()


@pytest.mark.parametrize("way", ["gateway", "broker"])
@pytest.mark.parametrize(("unknown", "again"), [("fail", False), ("retry", True)])
async def test_what_nobody_knows(box: Box, way: str, unknown: str, again: bool) -> None:
    """Where the connection is lost before the acknowledgement, `on_unknown` says whether it is sent once more."""
    gateway = await begun(box, {"on_unknown": unknown}, payload=1)
    number = gateway.published[0][1]
    if way == "gateway":
        gateway.mqtt.gateway_down()
    else:
        gateway.mqtt.published(number, "unknown", 0)
    if not again:
        assert await result(box) == "outcome_unknown"
        return
    assert gateway.published[0] == gateway.published[1]
    gateway.mqtt.published(number, "ok", 0)
    assert (await result(box))["code"] == 0


@pytest.mark.parametrize(("unknown", "sent"), [("fail", 0), ("retry", 1)])
async def test_a_restart_between_intent_and_acknowledgement(tmp_path: Path, unknown: str, sent: int) -> None:
    """The next runtime sends it again only where the playbook says so."""
    box = Box(tmp_path / "a")
    await begun(box, {"on_unknown": unknown}, payload=1)
    again = Box(box.photograph(tmp_path / "b"))
    await box.close()
    gateway = Gateway(again)
    await again.settle()
    assert len(gateway.published) == sent
    if sent:
        gateway.mqtt.published(gateway.published[0][1], "ok", 0)
    got = await result(again)
    assert got == "outcome_unknown" if not sent else got["code"] == 0
    await again.close()


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/cbor", encode([1, 2]), [1, 2]),
        ("text/plain; charset=utf-8", "ü".encode(), "ü"),
        (None, b'{"a": 1}', {"a": 1}),
        ("application/json", b"nope", "response_invalid"),
    ],
)
async def test_a_request_takes_the_answer(box: Box, kind: str | None, payload: bytes, value: Any) -> None:
    """The acknowledgement is not the end of a request; the answer's payload is its value."""
    gateway = await begun(box, action="request", payload=1)
    (frame,) = gateway.published
    assert frame[8] is True
    gateway.mqtt.published(frame[1], "ok", 0)
    await box.settle()
    assert box.answers == []
    gateway.mqtt.replied(frame[1], kind, payload)
    assert await result(box) == value
    gateway.mqtt.replied(frame[1], kind, payload)
    gateway.mqtt.published(frame[1], "ok", 0)


async def test_cancelling_forgets_it(box: Box) -> None:
    """A cancelled execution waits for nothing; the gateway is told."""
    gateway = await begun(box, action="request", payload=1)
    box.engine.cancel(box.receipts[0].seq, "test", None, lambda _: None)
    await box.settle()
    assert gateway.heard[-1] == ["forget", gateway.published[0][1]]
    gateway.mqtt.replied(gateway.published[0][1], None, b"1")


async def test_a_breaker_around_the_broker(box: Box) -> None:
    """Messages that nobody takes, so many in a row, leave the broker alone for a while."""
    policy = {"policy": {"access": {"topics": ["site/#"]}, "breaker": {"trip_after": 1}}}
    gateway = await begun(box, policy, payload=1)
    gateway.mqtt.published(gateway.published[0][1], "unknown", 0)
    assert await result(box) == "outcome_unknown"
    box.submit("t")
    assert await result(box) == "circuit_open"
    assert len(gateway.published) == 1
