"""Circuit breakers over random histories: what the log says is what holds, and one claim probes at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.testing.box import Box
from edge.testing.clock import ManualClock

NAMES = ("a:80", "b:443")
TRIP_AFTER, PROBE_AFTER_MS = 2, 1_000

claim = st.tuples(st.just("claim"), st.none())
over = st.tuples(
    st.just("over"), st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), min_size=1, max_size=6)
)
passes = st.tuples(st.just("passes"), st.sampled_from((1, 500, 1_000)))
reset = st.tuples(st.just("reset"), st.sampled_from(NAMES))


async def _play(box: Box, clock: ManualClock, history: list[tuple[str, Any]]) -> None:
    circuits = box.engine.executor.circuits
    number = 0
    probing: dict[str, int] = {}
    claims: dict[int, dict[str, list[int]]] = {}
    for kind, what in history:
        opened = {each["downstream"] for each in circuits.listed() if each["state"] != "closed"}
        if kind == "claim":
            number += 1
            claims[number] = told = circuits.for_claim(number) or {}
            for name in opened:
                if told[name][1] == 0:
                    assert probing.get(name) not in claims, "two claims probe one downstream"
                    probing[name] = number
        elif kind == "over":
            ended = claims.popitem()[0] if claims else 0
            circuits.over(ended, [[name, success, TRIP_AFTER, PROBE_AFTER_MS] for name, success in what])
        elif kind == "passes":
            clock.advance(what * 1_000_000)
        elif kind == "reset" and what in opened:
            circuits.reset(what, lambda: None)
        await box.gate.flushed()
        latest: dict[str, bool] = {}
        for event in box.events():
            if isinstance(event.body, CircuitOpened | CircuitClosed):
                latest[event.body.downstream] = isinstance(event.body, CircuitOpened)
        now_open = {each["downstream"] for each in circuits.listed() if each["state"] != "closed"}
        assert now_open == {name for name, is_open in latest.items() if is_open}
    await box.gate.flushed()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(claim, over, over, passes, reset), min_size=5, max_size=20))
def test_the_log_says_what_holds(history: list[tuple[str, Any]]) -> None:
    """After every step the open circuits are those the log leaves open, and the next runtime knows the same."""
    import asyncio

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            clock = ManualClock()
            box = Box(Path(folder) / "a", clock=clock)
            await _play(box, clock, history)
            known = [each for each in box.engine.executor.circuits.listed() if each["state"] != "closed"]
            again = Box(box.photograph(Path(folder) / "b"), clock=clock)
            found = again.engine.executor.circuits.listed()
            assert [each["downstream"] for each in found] == [each["downstream"] for each in known]
            await box.close()
            await again.close()

    asyncio.run(run())
