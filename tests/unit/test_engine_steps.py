"""Steps whose worker is lost, effects and their intents: what runs again and what never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge.core.events import (
    AttemptLost,
    StepStarted,
)
from edge.core.limits import ATTEMPTS_MAX
from edge.runtime.workers.work import Work
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from edge.worker.claims import Outcome


def one(effect: str = "read", on_unknown: str | None = None) -> list[dict[str, Any]]:
    spec = {"effect": effect, **({"on_unknown": on_unknown} if on_unknown else {})}
    return [{"step": "a", "spec": spec, "tool": {"kind": "python", "code": "result = 1"}}]


def kinds(box: Box) -> list[str]:
    return [event.type for event in box.events() if event.execution == box.receipts[0].seq]


def losing(times: int, then: Callable[[Work], list[Outcome] | Lost], code: str = "worker_lost") -> Any:
    """An answer that loses the first claims."""
    left = [times]

    def answer(work: Work) -> list[Outcome] | Lost:
        left[0] -= 1
        return Lost(code, "it died") if left[0] >= 0 else then(work)

    return answer


@pytest.mark.parametrize(("effect", "on_unknown"), [("pure", None), ("read", None), ("write", "retry")])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_lost_block_is_run_again(box: Box, effect: str, on_unknown: str | None, times: int) -> None:
    """A pure or read step, and a write that may repeat, are run again after their worker was lost."""
    box.pool.answer = losing(times, box.pool.work)
    await box.register(playbook(one(effect, on_unknown)))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == 1
    lost = [event for event in box.events() if isinstance(event.body, AttemptLost)]
    assert [event.attempt for event in lost] == list(range(1, times + 1))
    state = box.engine.state_of(box.receipts[0].seq)
    assert state.steps["a"].attempts == times + 1


@pytest.mark.parametrize(("effect", "on_unknown"), [("pure", None), ("read", None), ("write", "retry")])
@pytest.mark.parametrize("code", ["worker_lost", "timeout"])
async def test_three_lost_attempts_are_the_end(
    box: Box, effect: str, on_unknown: str | None, code: str
) -> None:
    """After three lost attempts the step fails with what lost the last one."""
    box.pool.answer = losing(99, box.pool.work, code)
    await box.register(playbook(one(effect, on_unknown)))
    box.submit("t")
    await box.settle()
    assert len(box.pool.submitted) == ATTEMPTS_MAX
    error = box.document()["error"]
    assert (error["code"], error["step"]) == (code, "a")
    assert "it died" in error["message"]
    assert kinds(box)[-2:] == ["step.failed", "playbook.execution.finished"]


@pytest.mark.parametrize("on_unknown", [None, "fail", "ask"])
async def test_a_lost_write_is_never_guessed(box: Box, on_unknown: str | None) -> None:
    """A write whose worker was lost fails with outcome_unknown after one attempt, unless its policy says retry."""
    box.pool.answer = losing(99, box.pool.work)
    await box.register(playbook(one("write", on_unknown)))
    box.submit("t")
    await box.settle()
    assert len(box.pool.submitted) == 1
    assert box.document()["error"]["code"] == "outcome_unknown"


async def test_after_a_loss_each_step_goes_alone(box: Box) -> None:
    """A straight line goes in one claim; after a loss its first step goes alone, so that blame falls right."""
    steps = [
        {"step": name, "tool": {"kind": "noop"}, **({"next": [after]} if after else {})}
        for name, after in (("a", "b"), ("b", "c"), ("c", None))
    ]
    await box.register(playbook(steps))
    box.pool.answer = losing(1, box.pool.work)
    box.submit("t")
    await box.settle()
    assert [work.claim.steps for work in box.pool.submitted] == [(0, 1, 2), (0,), (1, 2)]
    assert box.document()["status"] == "completed"


async def test_a_write_is_claimed_only_once_its_intent_is_durable(box: Box) -> None:
    """When the claim of a write reaches the pool, its intent is in the journal on the drive, at every attempt."""
    seen: list[list[int]] = []
    real = box.pool.submit

    def submit(work: Work) -> None:
        seen.append([event.attempt for event in box.events() if isinstance(event.body, StepStarted)])
        real(work)

    box.pool.submit = submit  # type: ignore[method-assign]
    box.pool.answer = losing(2, box.pool.work)
    await box.register(playbook(one("write", "retry")))
    box.submit("t")
    assert box.pool.submitted == []
    await box.settle()
    assert seen == [[1], [1, 2], [1, 2, 3]]
    assert box.document()["result"] == 1


async def test_every_attempt_has_the_same_idempotency_key(box: Box) -> None:
    """The claim of each attempt names the same execution, step and visit: the key is made of these alone."""
    box.pool.answer = losing(2, box.pool.work)
    await box.register(playbook(one("write", "retry")))
    box.submit("t")
    await box.settle()
    claims = [work.claim for work in box.pool.submitted]
    assert {(claim.execution_id, claim.steps, claim.visit) for claim in claims} == {
        (box.receipts[0].execution_id, (0,), 0)
    }
    assert [claim.attempt for claim in claims] == [1, 2, 3]


async def test_pure_and_read_steps_need_no_intent(box: Box) -> None:
    """A step that changes nothing goes to a worker before anything is flushed."""
    await box.register(playbook(one("read")))
    box.submit("t")
    assert len(box.pool.submitted) == 1
    await box.settle()
    assert "step.started" not in kinds(box)
