"""When a connection to the broker is made again: later each time where it never lasts, at once after a good one."""

from __future__ import annotations

import logging

import pytest

from gateway.mqtt import BrokerAddress
from gateway.reconnects import Clash, Reconnects

TAKEN = "The broker ended the connection: session taken over."


def made(clash: Clash | None = None, what: str = "for requests") -> Reconnects:
    """Waits without chance: the longest each time."""
    return Reconnects(what, clash or Clash(BrokerAddress("b", 1883), "pi"), lambda: 1.0)


def test_connections_that_never_last_are_made_less_and_less_often() -> None:
    """Each wait is twice the last, up to a minute; chance takes away up to half."""
    reconnects = made()
    waits = [reconnects.lost(0.05, float(n), TAKEN) for n in range(12)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == waits[-2] == 60.0
    lucky = Reconnects("x", Clash(BrokerAddress("b", 1883), "pi"), lambda: 0.0)
    assert [lucky.lost(0.0, 0.0, TAKEN), lucky.lost(0.0, 0.0, TAKEN)] == [0.1, 0.2]


def test_one_that_lasted_is_made_again_at_once() -> None:
    """After a good connection all begins anew; one that only lasted as long as the other box waited is none."""
    reconnects = made()
    for n in range(12):
        reconnects.lost(0.05, float(n), TAKEN)
    assert reconnects.lost(60.0, 80.0, TAKEN) == 60.0
    assert reconnects.lost(121.0, 220.0) == 0.0
    assert reconnects.lost(0.05, 221.0) == 0.2


def test_a_broker_that_was_away_is_no_clash(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that crashes again and again refuses connections in between: nobody is told of another box."""
    reconnects = made()
    for n in range(20):
        assert reconnects.lost(0.5, float(n)) == 0.2
        assert reconnects.away() == 0.2
    assert caplog.records == []


def test_a_broker_that_stays_away_is_asked_every_few_seconds() -> None:
    """Waits for it grow to five seconds, and begin anew once it was there."""
    reconnects = made()
    waits = [reconnects.away() for _ in range(12)]
    assert waits[0] == 0.2
    assert waits[-1] == 5.0
    reconnects.lost(100.0, 0.0)
    assert reconnects.away() == 0.2


def test_another_box_of_the_name_is_told_once_for_all_connections(caplog: pytest.LogCaptureFixture) -> None:
    """One ERROR however many connections and times see it; the coming and going is quiet from then on."""
    clash = Clash(BrokerAddress("b", 1883), "pi")
    each = [made(clash), made(clash, "of subscription number 7")]
    for n in range(30):
        for reconnects in each:
            reconnects.lost(0.05, float(n))
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert "keeps ending this connection" in told.getMessage()
    assert "another box of the same name 'pi'" in told.getMessage()
    assert {reconnects.level for reconnects in each} == {logging.DEBUG}
    each[0].lost(1_000.0, 2_000.0)
    assert each[0].level == logging.WARNING
    for n in range(4):
        each[0].lost(0.05, 3_000.0 + n)
    assert len(caplog.records) == 2


def test_a_broker_that_crashes_is_back_in_a_moment() -> None:
    """Where nobody took the session over, waits stay below a second, however often it happens."""
    reconnects = made()
    assert max(reconnects.lost(0.05, float(n), "the connection was reset") for n in range(50)) == 1.0
