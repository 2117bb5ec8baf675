"""When the log is sealed: a fake process and a clock that a test moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.codec import encode
from edge.core.limits import SEAL_AFTER_S, SEALED_EVENTS
from edge.core.settings import Settings
from edge.runtime.sealing.sealer import Sealer, run_module


class Bench:
    """A sealer, the clock and the log's end that it sees, and what it started."""

    def __init__(self) -> None:
        self.durable_seq, self.now_s = 0, 100.0
        self.started: list[list[str]] = []
        self.answer: object = []
        self.sealer = Sealer(
            Settings(Path("data"), "box", centre=True), lambda: self.durable_seq, lambda: self.now_s, self.run
        )

    async def run(self, arguments: list[str]) -> bytes:
        self.started.append(arguments[2:])
        if isinstance(self.answer, Exception):
            raise self.answer
        return encode(self.answer)


async def test_nothing_new_is_never_sealed() -> None:
    """However late it is, an idle box starts no process."""
    bench = Bench()
    bench.now_s += 10 * SEAL_AFTER_S
    await bench.sealer.look()
    assert bench.started == []


async def test_a_segments_worth_is_sealed_at_once() -> None:
    """Full segments only: the rest waits for its time, and is not asked for again meanwhile."""
    bench = Bench()
    bench.durable_seq = SEALED_EVENTS - 1
    await bench.sealer.look()
    assert bench.started == []
    bench.durable_seq += 300
    await bench.sealer.look()
    await bench.sealer.look()
    assert bench.started == [[str(SEALED_EVENTS + 299)]]


async def test_after_a_quarter_of_an_hour_all_is_sealed() -> None:
    """Few events are sealed when their time has come, and the time begins anew."""
    bench = Bench()
    bench.durable_seq = 7
    await bench.sealer.look()
    bench.now_s += SEAL_AFTER_S
    await bench.sealer.look()
    assert bench.started == [["7", "all"]]
    bench.durable_seq = 9
    await bench.sealer.look()
    assert len(bench.started) == 1


async def test_the_first_event_after_a_quiet_night_waits_for_others() -> None:
    """The quarter of an hour counts from the first event that is not sealed."""
    bench = Bench()
    await bench.sealer.look()
    bench.now_s += 40 * SEAL_AFTER_S
    await bench.sealer.look()
    bench.durable_seq = 1
    await bench.sealer.look()
    assert bench.started == []


async def test_what_is_urgent_does_not_wait() -> None:
    """One urgent event is sealed with all before it, once it is durable."""
    bench = Bench()
    bench.sealer.urgent()
    await bench.sealer.look()
    assert bench.started == []
    bench.durable_seq = 3
    await bench.sealer.look()
    assert bench.started == [["3", "all"]]


@pytest.mark.parametrize("answer", [OSError("no memory"), ["the drive is full"], TimeoutError()])
async def test_what_goes_wrong_is_said_and_tried_again(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that fails, or says why it ended: in the log and the status, and tried with the next segment."""
    bench = Bench()
    bench.durable_seq, bench.answer = SEALED_EVENTS, answer
    await bench.sealer.look()
    assert "could not be sealed" in caplog.text
    assert bench.sealer.told()["problem"]
    bench.durable_seq, bench.answer = 2 * SEALED_EVENTS, [[0, 1, 2 * SEALED_EVENTS, 900]]
    await bench.sealer.look()
    assert bench.sealer.told() == {"through": 2 * SEALED_EVENTS, "problem": ""}


async def test_a_module_that_fails_is_quoted() -> None:
    """The last line of what the process said stands in the error."""
    with pytest.raises(
        ValueError, match=r"it ended with 1: .*No module named 'edge.nothing'|No module named"
    ):
        await run_module(["edge.nothing"])
