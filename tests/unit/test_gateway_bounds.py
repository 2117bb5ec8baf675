"""What anybody may make the gateway do over and over: lines of its log, requests held for a runtime that is away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.core.limits import COMPLAINTS_MAX, HELD_UNASKED_MAX
from edge.core.settings import load_settings
from gateway.complaints import Complaints
from gateway.daemon import Gateway
from gateway.mqtt import Message


@pytest.fixture
def over() -> list[Callable[[], None]]:
    """What a test lets happen at the end of a minute."""
    return []


def complaints(over: list[Callable[[], None]]) -> Complaints:
    return Complaints(logging.getLogger("t"), lambda _, call: over.append(call))


def test_a_flood_of_one_kind_is_told_by_number(
    over: list[Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    """The first ones are said, the rest are one line when the minute is over, and then all begins anew."""
    made = complaints(over)
    for number in range(500):
        made.say("refused callbacks", logging.WARNING, "refused %d", number)
    made.say("messages too large", logging.ERROR, "too large")
    assert len(caplog.records) == COMPLAINTS_MAX + 1
    for call in over:
        call()
    assert f"refused callbacks: {500 - COMPLAINTS_MAX} more in 60 s" in caplog.text
    assert len(caplog.records) == COMPLAINTS_MAX + 2, "what is seldom is not told by number"
    made.say("refused callbacks", logging.WARNING, "refused again")
    assert "refused again" in caplog.text


async def gateway(tmp_path: Path) -> Gateway:
    """A gateway that knows one playbook, without a runtime."""
    made = Gateway(load_settings(tmp_path, box="b", broker="mqtt://127.0.0.1:1"))
    made._table = {"t": {}}
    return made


def request(qos: int) -> Message:
    return Message("edge/v1/b/request/ada/t", b"{}", qos, False, None, None, None, (), None, False)


async def test_requests_without_a_keeper_are_refused_where_too_many_wait(tmp_path: Path) -> None:
    """With the runtime away, those at QoS 0 are kept up to a bound: nobody would hold their senders back."""
    made = await gateway(tmp_path)
    for _ in range(HELD_UNASKED_MAX + 50):
        made._received(request(0))
    assert len(made._submitted) == HELD_UNASKED_MAX


async def test_what_the_broker_sends_again_is_not_kept_twice(tmp_path: Path) -> None:
    """With runtime and broker away by turns, requests at QoS 1 are held once, however often they come again."""
    made = await gateway(tmp_path)
    made._received(request(0))
    for _ in range(5):
        for _ in range(20):
            made._received(request(1))
        assert len(made._submitted) == 21
        made._broker_lost("gone")
    assert len(made._submitted) == 1
