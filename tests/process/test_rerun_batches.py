"""Executions of a subscription are run again on the messages that they took, as the log has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.codec import encode
from edge.core.events import Event, ExecutionRequested
from edge.core.settings import load_settings
from edge.core.subscription_events import MessageReceived
from edge.replay import batches as batches_module
from edge.replay.batches import Batches
from edge.replay.difference import UNRECORDED
from edge.replay.journal_source import JournalSource
from edge.replay.rerun_log import rerun_log
from edge.replay.source import Source
from edge.testing.box import Box
from tests.unit.subscription_rig import TABLE, opened, requests, subscription, timer

CBOR = {"content_type": "application/cbor"}
ATTRIBUTES = {"playbook": "take/one", "payload_from": "message.attributes"}


@pytest.fixture
async def source(tmp_path: Path) -> Source:
    """A box that took batches, single messages and ticks, of a subscription that changed in between."""
    box = await opened(tmp_path)
    one = await box.subscribe(subscription(path="in/one"))
    many = await box.subscribe(subscription(path="in/many", **TABLE, runtime={"batch": 3}))
    await box.subscribe(timer(path="in/t"))
    for n in range(2):
        await mixed(box, one, many, n)
    assert await box.subscribe(subscription(path="in/one", dispatch=ATTRIBUTES)) == one
    await mixed(box, one, many, 2)
    await box.pass_time(20)
    assert len(requests(box)) >= 3 + 12 + 1  # a batch that failed is tried again
    await box.close()
    return JournalSource(load_settings(tmp_path))


async def mixed(box: Box, one: int, many: int, n: int) -> None:
    """Messages of both by turns: as JSON, as CBOR, too large for an event, and such as cannot be read."""
    for place, payload in enumerate((b'{"n": 1}', b"no json", b'{"pad": "%s"}' % (b"x" * 70_000))):
        box.message(many, "a/m", payload)
        box.message(one, f"a/{place}", encode({"n": n}), headers={"unit": "C"}, **CBOR)
    box.message(one, "a/large", b'{"pad": "%s"}' % (b"x" * 70_000))
    await box.settle()


def test_they_come_out_as_recorded(source: Source) -> None:
    """Tables of batches, envelopes of single messages by the subscription of that time, ticks of a timer."""
    made = rerun_log(source, None, 1)
    assert (made.failed, made.first) == ("", [])
    asked = [each for group in source.groups() for each in group.events()]
    assert made.executions == sum(isinstance(each.body, ExecutionRequested) for each in asked)
    assert made.same == made.executions
    assert made.digests


def test_messages_that_are_not_here_are_named(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which, and how many of them are here; the rest of the log is run again all the same."""
    whole = Batches.messages

    def some(self: Batches, request: ExecutionRequested) -> list[Event]:
        return whole(self, request)[1:]

    monkeypatch.setattr(Batches, "messages", some)
    made = rerun_log(source, None, 1)
    assert set(made.classes) == {UNRECORDED}
    assert made.first[0][1].was.endswith("0 of 1 are here.")


def test_any_order_finds_the_same_messages(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are kept behind: forward, backward, again."""
    monkeypatch.setattr(batches_module, "_BEHIND_MIN", 2)
    events = [event for group in source.groups() for event in group.events()]
    requests = [each.body for each in events if isinstance(each.body, ExecutionRequested) and each.body.batch]
    batches = Batches(source)
    for request in [*requests, *reversed(requests), *requests[::3]]:
        assert isinstance(request, ExecutionRequested)
        assert request.batch is not None
        number, first, last, count, lane, _ = request.batch
        assert batches.messages(request) == [
            each
            for each in events
            if first <= each.seq <= last
            and each.execution == number
            and isinstance(each.body, MessageReceived)
            and each.body.lane == lane
        ]
        assert len(batches.messages(request)) == count
