"""What a subscription may do: paused, drained, full, of a new version."""

from __future__ import annotations

from pathlib import Path

from edge.core.subscription_events import (
    SubscriptionDeactivated,
)
from edge.testing.box import Box
from tests.unit.subscription_rig import TABLE, of_kind, opened, outputs, ranges, subscription


async def test_paused_it_accepts_and_begins_nothing_across_a_restart(tmp_path: Path) -> None:
    """What came meanwhile runs after it is resumed, in order."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription())
    states: list[str] = []
    box.subscriptions.pause(box.subscriptions.find("in/s"), "test", states.append)
    box.message(number, "a/x", b'{"n": 1}')
    await box.settle()
    await box.close()
    after = Box(tmp_path / "one")
    intake = after.subscriptions.find("in/s")
    after.message(number, "a/x", b'{"n": 2}')
    await after.pass_time(100)
    assert (intake.state, outputs(after), len(after.taken)) == ("paused", [], 1)
    after.subscriptions.resume(intake, "test", states.append)
    await after.settle()
    assert [output["n"] for output in outputs(after)] == [1, 2]
    assert states == ["paused", "active"]
    await after.close()


async def test_drained_it_takes_nothing_more_and_finishes_the_rest(tmp_path: Path) -> None:
    """The open batch does not wait for more; then the subscription rests until somebody resumes it."""
    box = await opened(tmp_path)
    number = await box.subscribe(subscription(**TABLE))
    box.message(number, "a/x", b'{"n": 1}')
    intake = box.subscriptions.find("in/s")
    box.subscriptions.drain(intake, "test", lambda state: None)
    assert not box.message(number, "a/x", b'{"n": 2}')
    await box.settle()
    assert intake.state == "deactivated"
    assert len(of_kind(box, SubscriptionDeactivated)) == 1
    assert [row["n"] for row in outputs(box)[0]] == [1]
    box.subscriptions.resume(intake, "test", lambda state: None)
    assert box.message(number, "a/x", b'{"n": 3}')
    await box.close()


async def test_full_it_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    """Above its backlog messages are left with the broker, and whoever has them is told when to send them again."""
    box = await opened(tmp_path)
    room: list[int] = []
    box.subscriptions.on_room = room.append
    number = await box.subscribe(subscription(limits={"max_backlog": 2}))
    assert [box.message(number, "a/x", b'{"n": %d}' % n) for n in range(3)] == [True, True, False]
    assert room == []
    await box.settle()
    assert room == [number]
    assert box.message(number, "a/x", b'{"n": 2}')
    await box.settle()
    assert [output["n"] for output in outputs(box)] == [0, 1, 2]
    await box.close()


async def test_a_new_version_keeps_its_number_and_what_waits(tmp_path: Path) -> None:
    """Registered again under its path it goes on; topics it no longer names are to be given up."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 10}))
    box.message(number, "a/x", b'{"n": 1}')
    assert await box.subscribe(subscription(**TABLE, topics=["b/#"], runtime={"batch": 1})) == number
    await box.settle()
    assert [each[2] for each in ranges(box)] == [1]
    await box.close()
    after = Box(tmp_path / "one")
    assert after.subscriptions.find("in/s").gone == ("a/#",)
    await after.close()
