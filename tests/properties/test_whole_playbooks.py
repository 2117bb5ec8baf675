"""Random whole playbooks on the real engine: in any order, cut anywhere, they end as the reference says."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from edge.core.codec import decode
from edge.core.events import LoopItems
from edge.core.limits import RESUMES_MAX
from edge.core.loops import collected
from edge.core.state import RUNNING, Execution, fold
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from tests.properties import whole_reference
from tests.properties.whole_playbooks import compiled, models

TURNS_MAX = 3_000


async def play(folder: Path, model: whole_reference.Model, chance: random.Random, cuts: int) -> Execution:
    """Let the execution run to its end, its claims in any order, with so many restarts on the way."""
    blueprint = compiled(model)
    clock = ManualClock()
    box = Box(folder / "0", clock=clock)
    await box.register(blueprint)
    box.submit("t")
    await box.gate.flushed()
    seq = box.receipts[0].seq
    for turn in range(TURNS_MAX):
        if box.engine.state_of(seq).status != RUNNING:
            break
        if cuts and chance.random() < 0.2:
            cuts -= 1
            picture = box.photograph(folder / str(turn + 1))
            await box.close()
            box = Box(picture, clock=clock)
            await box.gate.flushed()
        elif box.pool.waiting and chance.random() < 0.9:
            box.pool.waiting.rotate(chance.randrange(len(box.pool.waiting)))
            box.pool.run()
        elif box.pauses and chance.random() < 0.9:
            box.pauses.pop(chance.randrange(len(box.pauses)))[1]()
        else:
            box.move_clock(1.0)
        if chance.random() < 0.5:
            await box.gate.flushed()
    await box.gate.flushed()
    events = box.engine.events_of(seq)
    state = box.engine.state_of(seq)
    await box.close()
    assert fold(events) == state
    _each_item_once(state, events)
    return state


def _each_item_once(state: Execution, events: list[Any]) -> None:
    for name in state.steps:
        parts = [e.body for e in events if e.step == name and isinstance(e.body, LoopItems)]
        indices = [index for part in parts for index in range(part.first, part.first + part.count)]
        assert len(indices) == len(set(indices)), f"an item of {name} has two outcomes"


@settings(
    max_examples=120,
    deadline=None,
    # Explaining a failure runs it hundreds of times more.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(models(), st.integers(0, 2**32), st.integers(0, RESUMES_MAX))
def test_every_playbook_ends_as_the_reference_says(
    model: whole_reference.Model, seed: int, cuts: int
) -> None:
    """Status, answer, ctx and which steps ran depend neither on the order of outcomes nor on restarts."""
    said = whole_reference.run(model)
    note(f"the reference says {said}")
    with tempfile.TemporaryDirectory() as folder:
        state = asyncio.run(play(Path(folder), model, random.Random(seed), cuts))
    assert state.status == said.status, state.problem
    if said.fatal:
        assert state.problem is not None
        assert state.problem["step"] in said.fatal
        return
    assert set(state.steps) == said.ran
    assert state.ctx == said.ctx
    assert answer_of(state) == said.answer


def answer_of(state: Execution) -> Any:
    """The recorded answer; what a wait gave is only said to have waited."""
    finished = state.finished
    assert finished is not None
    if finished.result_step is None:
        return None
    step = state.steps[finished.result_step]
    if step.loop is not None:
        value: Any = collected(step.loop)
    else:
        assert step.outcome is not None
        assert step.outcome.value is not None
        value = decode(step.outcome.value)
    return _plainly(value)


def _plainly(value: Any) -> Any:
    if isinstance(value, list):
        return [_plainly(each) for each in value]
    return whole_reference.WAITED if isinstance(value, dict) else value
