"""`kill -9` of each part, again and again under load: one consistent result each, nothing accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edge.core.events import (
    AttemptLost,
    ExecutionFinished,
    ExecutionRequested,
    StepDone,
    StepFailed,
    StepStarted,
)
from edge.core.limits import ATTEMPTS_MAX
from tests.process.box import Box
from tests.process.callers import Asked, Caller

pytestmark = pytest.mark.mosquitto

#: Fifty under `scripts/test --faults`.
KILLS = int(os.environ.get("EDGE_TEST_KILLS", "15"))
#: Each look at the whole log takes longer as it grows; what one sees, the one after it would have seen, too.
KILLS_PER_LOOK = max(1, KILLS // 50)
SEED = int(os.environ.get("EDGE_TEST_SEED", "20261123"))

PURE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: pure, path: kill/pure}
workflow:
  - step: double
    tool: {kind: transform, value: {n: "{{ n * 2 }}"}}
    next: [{step: add, when: "{{ double.n >= 0 }}"}]
  - step: add
    tool: {kind: transform, value: {n: "{{ double.n + 1 }}"}}
"""
CODE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: {name}, path: kill/{name}}}
workflow:
  - step: work
    spec: {{{spec}, timeout: 20s}}
    input: {{n: "{{{{ n }}}}"}}
    tool:
      kind: python
      code: |
        import time
        time.sleep(0.01)
        result = {{"n": n * 2 + 1}}
"""
READ = CODE.format(name="read", spec="effect: read")
WRITE = CODE.format(name="write", spec="effect: write, on_unknown: retry")
PLAYBOOKS = ["kill/pure", "kill/read", "kill/write"]

Kill = Callable[[], Awaitable[None]]


def killer_of(part: str, box: Box, mosquitto: Any) -> Kill:
    """What kills a part and starts it again."""

    async def broker() -> None:
        await asyncio.to_thread(mosquitto.restart)

    kills = 0

    async def daemon() -> None:
        nonlocal kills
        kills += 1
        box.kill(part)
        if kills % KILLS_PER_LOOK == 0:
            report = await asyncio.to_thread(box.verify)
            assert report.whole, report.problems
        box.start(part)

    async def worker() -> None:
        status = await asyncio.to_thread(box.status)
        pids = status["worker_pids"]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(pids), signal.SIGKILL)

    return {"broker": broker, "worker": worker}.get(part, daemon)


@pytest.mark.minutes
@pytest.mark.parametrize("part", ["gateway", "runtime", "worker", "broker"])
async def test_kill_under_load(part: str, box: Box, mosquitto: Any) -> None:
    """Callers that repeat their request id get one consistent result; the log has each request once and whole."""
    for source in (PURE, READ, WRITE):
        box.register(source)
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    kill = killer_of(part, box, mosquitto)
    callers = [Caller(f"c{i}", mosquitto.port, PLAYBOOKS, SEED + i) for i in range(6)]
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    for _ in range(KILLS):
        await more_answers(callers, chance.randint(1, 12))
        await asyncio.sleep(chance.uniform(0, 0.02))
        await kill()
    for caller in callers:
        caller.stopping = True
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    report = await asyncio.to_thread(box.verify)
    assert report.whole, report.problems
    asked = [one for caller in callers for one in caller.asked]
    assert len(asked) > KILLS, "hardly any load"
    check(asked, box)


async def more_answers(callers: list[Caller], count: int) -> None:
    """Return once so many more answers came: then the box is up again and at work."""
    wanted = sum(len(caller.asked) for caller in callers) + count
    async with asyncio.timeout(30):
        while sum(len(caller.asked) for caller in callers) < wanted:
            await asyncio.sleep(0.002)


def check(asked: list[Asked], box: Box) -> None:
    """What callers heard agrees with itself and with the log."""
    events = box.events()
    requests = [event for event in events if isinstance(event.body, ExecutionRequested)]
    ids = Counter(event.body.request_id for event in requests)  # type: ignore[attr-defined]
    ends = Counter(event.execution for event in events if isinstance(event.body, ExecutionFinished))
    outcomes = Counter(
        (event.execution, event.step, event.visit)
        for event in events
        if isinstance(event.body, StepDone | StepFailed)
    )
    started = Counter(
        (event.execution, event.step) for event in events if isinstance(event.body, StepStarted)
    )
    lost = Counter(event.execution for event in events if isinstance(event.body, AttemptLost))
    assert set(outcomes.values()) == {1}, "a step has two outcomes"
    for one in asked:
        assert not one.refusals, one
        assert ids[one.request_id] == 1, one.request_id
        heard = {str(result) for result in one.results}
        assert len(heard) == 1, one
        result = one.results[0]
        named = {document["execution_id"] for document in one.receipts + one.results}
        assert len(named) == 1, one
        execution = int(result["execution_id"].rpartition("-")[2])
        assert ends[execution] == 1
        if result["status"] == "completed":
            assert result["result"] == {"n": int(one.request_id.rpartition("-")[2]) * 2 + 1}
        else:
            assert result["error"]["code"] == "worker_lost", one
            # An attempt is lost with its worker, or with the runtime after the intent of a write was written down.
            begun = started[execution, result["error"]["step"]]
            assert max(lost[execution], begun) == ATTEMPTS_MAX, one
