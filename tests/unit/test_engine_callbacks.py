"""Callbacks on the real engine: early, in time, late, twice, forged, over restarts, in loops, under policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from edge.core.errors import RequestRefused
from edge.core.events import CallbackReceived, RequestRefusedNoted
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.plain import playbook


def wait(**config: Any) -> dict[str, Any]:
    return {"name": "answer", "kind": "wait", "callback": True, **config}


def value(name: str, given: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "transform", "value": given, **more}


def ask(name: str = "ask", **more: Any) -> dict[str, Any]:
    """A task that hands the token out: it is recorded, so it is given out once."""
    code = "result = token"
    return {"name": name, "kind": "python", "code": code, "input": {"token": "{{ callback.token }}"}, **more}


def one(*tasks: dict[str, Any], **step: Any) -> list[dict[str, Any]]:
    return [{"step": "s", "tool": list(tasks), **step}]


async def begun(box: Box, steps: list[dict[str, Any]], **root: Any) -> int:
    await box.register(playbook(steps, **root))
    box.submit("t")
    await box.settle()
    return box.receipts[-1].seq


def tokens(box: Box, seq: int) -> list[str]:
    """What the tasks named `ask` handed out."""
    bodies = [event.body for event in box.engine.events_of(seq)]
    return [cbor2.loads(body.value) for body in bodies if getattr(body, "task", None) == "ask"]  # type: ignore[attr-defined]


async def call(box: Box, token: str, given: Any = None, content_type: str | None = None) -> list[str]:
    """Use a token; the execution that took it."""
    said: list[str] = []
    payload = b"" if given is None else given if isinstance(given, bytes) else json.dumps(given).encode()
    box.engine.callbacks.receive(token, content_type, payload, said.append)
    assert said == [], "said before it is durable"
    await box.settle()
    return said


async def refused(box: Box, token: str, given: Any = None, content_type: str | None = None) -> str:
    with pytest.raises(RequestRefused) as caught:
        await call(box, token, given, content_type)
    return caught.value.problem_code


async def test_what_comes_is_the_result_of_the_wait(box: Box) -> None:
    """The token is handed out, the slot is free, the callback's value goes on through the pipeline."""
    seq = await begun(box, one(ask(), wait(), value("end", "{{ [_prev.ok, answer.n] }}")))
    assert (box.answers, len(box.pool.submitted)) == ([], 1)
    [token] = tokens(box, seq)
    assert await call(box, token, {"ok": True, "n": 3}) == [box.engine.execution_id(seq)]
    assert box.document()["result"] == [True, 3]
    assert len(box.engine.executor.timers) == 0
    assert box.engine.state_of(seq) == fold(box.engine.events_of(seq))


async def test_token_and_topic_are_there_for_every_task(box: Box) -> None:
    """`callback.token` and `callback.topic`, also after the wait, where they are those of the next."""
    names = "{{ [callback.token, callback.topic] }}"
    await begun(box, one(value("a", names), wait(timeout=5), value("b", "{{ 1 }}")))
    await box.pass_time(5)
    assert box.document()["error"]["code"] == "callback_timeout"
    await begun(box, one(value("a", names), value("b", "{{ [a, callback.token] }}"), wait()), path="t")
    state = box.engine.state_of(box.receipts[-1].seq)
    assert state.steps["s"].waiting is not None


async def test_a_second_one_is_refused(box: Box) -> None:
    """Used is used: while it runs on, and after it has ended."""
    seq = await begun(box, one(ask(), wait(), {"name": "more", "kind": "wait", "seconds": 60}))
    [token] = tokens(box, seq)
    await call(box, token, 1)
    assert await refused(box, token, 1) == "callback_used"
    await box.pass_time(60)
    assert box.document()["status"] == "completed"
    assert await refused(box, token, 2) == "callback_used"
    bodies = [event.body for event in box.engine.events_of(seq)]
    assert sum(isinstance(body, CallbackReceived) for body in bodies) == 1


async def test_what_is_refused_is_in_the_log(box: Box) -> None:
    """Used, forged, broken: each is recorded as a refusal, in a flood by number, and its token nowhere."""
    seq = await begun(box, one(ask(), wait()))
    [token] = tokens(box, seq)
    assert await refused(box, token, b"garbage{") == "payload_invalid"
    await call(box, token, 1)
    assert await refused(box, token, 1) == "callback_used"
    assert await refused(box, "x", {}) == "callback_unknown"
    await box.settle()
    noted = [event.body for event in box.events() if isinstance(event.body, RequestRefusedNoted)]
    codes = ("payload_invalid", "callback_used", "callback_unknown")
    assert noted == [RequestRefusedNoted(code, "callback", "", None) for code in codes]
    for _ in range(500):
        with pytest.raises(RequestRefused):
            box.engine.callbacks.receive("x", None, b"{}", lambda said: None)
    box.engine.refusals.note_counted()
    await box.settle()
    noted = [event.body for event in box.events() if isinstance(event.body, RequestRefusedNoted)]
    assert len(noted) < 200
    assert sum(body.count for body in noted) == 503


async def test_one_that_comes_early_is_kept_for_its_wait(box: Box) -> None:
    """Between handing the token out and waiting lies another task: the callback is there when the wait begins."""
    seq = await begun(
        box, one(ask(), {"name": "rest", "kind": "wait", "seconds": 9}, wait(), value("e", "{{ answer }}"))
    )
    [token] = tokens(box, seq)
    await call(box, token, "early")
    assert box.answers == []
    assert await refused(box, token) == "callback_used"
    await box.pass_time(9)
    assert box.document()["result"] == "early"


async def test_an_early_one_is_kept_over_a_restart(tmp_path: Path) -> None:
    """It is in the log, so it is there for the wait whatever happens in between; and the token is the same."""
    box = Box(tmp_path / "box")
    rest = {"name": "rest", "kind": "wait", "seconds": 9}
    seq = await begun(box, one(ask(), rest, wait(), value("e", "{{ [answer, callback.token == ask] }}")))
    [token] = tokens(box, seq)
    await call(box, token, "early")
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    again = Box(picture, clock=box.clock)
    await again.settle()
    assert await refused(again, token) == "callback_used"
    await again.pass_time(9)
    assert again.document()["result"] == ["early", False]
    await again.close()


async def test_it_is_taken_after_a_restart(tmp_path: Path) -> None:
    """What waits goes on waiting without a claim; the token of before is good."""
    box = Box(tmp_path / "box")
    seq = await begun(box, one(ask(), wait(), value("e", "{{ answer }}")))
    [token] = tokens(box, seq)
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    again = Box(picture, clock=box.clock)
    await again.settle()
    assert again.pool.submitted == []
    await call(again, token, 5)
    assert again.document()["result"] == 5
    await again.close()


async def test_received_and_cut_before_it_was_adopted(tmp_path: Path) -> None:
    """The callback is durable, the power fails before the wait took it: the restart adopts it."""
    box = Box(tmp_path / "box")
    seq = await begun(box, one(ask(), wait(), value("e", "{{ answer }}")))
    [token] = tokens(box, seq)
    box.engine.executor.waits.called = lambda *_: None  # type: ignore[method-assign]
    await call(box, token, 6)
    assert box.answers == []
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    again = Box(picture, clock=box.clock)
    await again.settle()
    assert again.document()["result"] == 6
    await again.close()


async def test_one_that_comes_late_is_refused(box: Box) -> None:
    """After the bound the wait fails with `callback_timeout`, and the token has expired."""
    rules = [{"when": "{{ output.error.code == 'callback_timeout' }}", "then": {"do": "continue"}}]
    rest = {"name": "rest", "kind": "wait", "seconds": 60}
    seq = await begun(box, one(ask(), wait(timeout="2m", spec={"policy": {"rules": rules}}), rest))
    [token] = tokens(box, seq)
    await box.pass_time(120)
    assert await refused(box, token, 1) == "callback_expired"
    await box.pass_time(60)
    assert box.document()["status"] == "completed"
    assert await refused(box, token, 1) == "callback_ended"


async def test_a_policy_asks_again_with_a_new_token(box: Box) -> None:
    """`jump` back to the task that asks hands out another token; the old one has expired."""
    jump = {"when": "{{ output.status == 'error' }}", "then": {"do": "jump", "to": "ask"}}
    seq = await begun(
        box, one(ask(), wait(timeout=5, spec={"policy": {"rules": [jump]}}), value("e", "{{ answer }}"))
    )
    await box.pass_time(5)
    first, second = tokens(box, seq)
    assert first != second
    assert await refused(box, first, 1) == "callback_expired"
    await call(box, second, 2)
    assert box.document()["result"] == 2


async def test_a_retry_waits_on_for_the_same_token(box: Box) -> None:
    """`retry` of the wait alone is more patience: the token stays good."""
    retry = {"when": "{{ output.status == 'error' }}", "then": {"do": "retry", "attempts": 2}}
    seq = await begun(
        box, one(ask(), wait(timeout=5, spec={"policy": {"rules": [retry]}}), value("e", "{{ answer }}"))
    )
    await box.pass_time(5)
    [token] = tokens(box, seq)
    await call(box, token, 2)
    assert box.document()["result"] == 2


async def test_two_waits_of_one_pipeline_have_a_token_each(box: Box) -> None:
    """The second token is none that the first could stand for."""
    second = {**wait(), "name": "confirm"}
    steps = one(ask(), wait(), {**ask(), "name": "ask2"}, second, value("e", "{{ [answer, confirm] }}"))
    seq = await begun(box, steps)
    [token] = tokens(box, seq)
    await call(box, token, "a")
    bodies = [event.body for event in box.engine.events_of(seq)]
    other = next(cbor2.loads(body.value) for body in bodies if getattr(body, "task", None) == "ask2")  # type: ignore[attr-defined]
    assert await refused(box, token, "b") == "callback_used"
    await call(box, other, "b")
    assert box.document()["result"] == ["a", "b"]


@pytest.mark.parametrize("token", ["", "x", "a" * 45, "ä", "../..", "a" * 500])
async def test_a_forged_token_tells_nothing(box: Box, token: str) -> None:
    """Whatever it is, it is unknown, and only that is recorded."""
    await begun(box, one(ask(), wait()))
    before = box.gate.next_seq
    assert await refused(box, token, 1) == "callback_unknown"
    await box.settle()
    assert box.gate.next_seq == before + 1
    assert box.events()[-1].body == RequestRefusedNoted("callback_unknown", "callback", "", None)


async def test_the_token_of_another_log_is_unknown(box: Box, tmp_path: Path) -> None:
    """Two boxes, each with an execution of the same number: neither takes the other's token."""
    other = Box(tmp_path / "other")
    numbers = [await begun(each, one(ask(), wait())) for each in (box, other)]
    assert numbers[0] == numbers[1]
    [token] = tokens(other, numbers[1])
    assert await refused(box, token, 1) == "callback_unknown"
    await other.close()


@pytest.mark.parametrize(
    ("payload", "content_type", "code"),
    [
        (b"{", None, "payload_invalid"),
        (b"\xc1\x00", "application/cbor", "payload_invalid"),
        (b"ARROW1", "application/vnd.apache.arrow.stream", "content_type_unknown"),
        (b'"' + b"x" * 70_000 + b'"', None, "payload_too_large"),
        (b'"' + b"x" * 200_000 + b'"', None, "payload_too_large"),
    ],
)
async def test_what_it_brings_is_looked_at_before_it_is_used(
    box: Box, payload: bytes, content_type: str, code: str
) -> None:
    """A broken payload is refused and the token stays good."""
    seq = await begun(box, one(ask(), wait(), value("e", "{{ answer }}")))
    [token] = tokens(box, seq)
    assert await refused(box, token, payload, content_type) == code
    await call(box, token, cbor2.dumps({"k": 1}), "application/cbor; x=y")
    assert box.document()["result"] == {"k": 1}


async def test_nothing_is_a_value_too(box: Box) -> None:
    """A callback without a payload gives null."""
    seq = await begun(box, one(ask(), wait(), value("e", "{{ [answer] }}")))
    await call(box, tokens(box, seq)[0])
    assert box.document()["result"] == [None]


async def test_a_cancelled_execution_takes_none(box: Box) -> None:
    """It has ended, and says so."""
    seq = await begun(box, one(ask(), wait()))
    [token] = tokens(box, seq)
    box.engine.cancel(seq, "ops", None, lambda status: None)
    await box.settle()
    assert await refused(box, token, 1) == "callback_ended"


@pytest.mark.parametrize("restart", [False, True])
async def test_items_of_a_loop_have_a_token_each(tmp_path: Path, restart: bool) -> None:
    """Callbacks for items come in any order; results stand in order; each token is for its own item."""
    box = Box(tmp_path / "box")
    loop = {"in": ["a", "b", "c"], "iterator": "x", "spec": {"mode": "parallel"}}
    seq = await begun(box, one(ask(), wait(), value("e", "{{ [iter.x, answer] }}"), loop=loop))
    handed = tokens(box, seq)
    assert len(set(handed)) == 3
    await call(box, handed[2], 3)
    if restart:
        picture = box.photograph(tmp_path / "cut")
        await box.close()
        box = Box(picture, clock=box.clock)
        await box.settle()
        assert box.pool.submitted == []
    assert await refused(box, handed[2], 3) == "callback_used"
    await call(box, handed[0], 1)
    await call(box, handed[1], 2)
    assert box.engine.state_of(seq).status == "completed"
    assert json.loads(box.engine.answer(seq).payload)["result"] == [["a", 1], ["b", 2], ["c", 3]]
    await box.close()


async def test_a_visit_has_its_own_token(box: Box) -> None:
    """A step that arcs lead back to asks anew; the token of the visit before has expired."""
    again = {"step": "s", "when": "{{ ctx.n < 2 }}"}
    step = one(
        ask(),
        wait(timeout=60),
        value("e", "{{ answer }}"),
        set={"n": "{{ ctx.n | default(0) + 1 }}"},
        next=[again],
    )
    seq = await begun(box, step)
    [first] = tokens(box, seq)
    await call(box, first, 1)
    _, second = tokens(box, seq)
    assert first != second
    assert await refused(box, first, 1) == "callback_used"
    await call(box, second, 2)
    assert box.document()["result"] == 2


@pytest.mark.parametrize(
    "config",
    [
        {"callback": True, "seconds": 5},
        {"callback": {"timeout": 5, "deadline": "2026-01-01"}},
        {"timeout": 5},
        {"seconds": 5, "deadline": 5},
        {"callback": {"until": 5}},
        {"callback": "yes"},
        {"callback": False},
        {},
        {"seconds": "soon"},
        {"seconds": 32 * 86_400},
        {"until": "tomorrow"},
        {"seconds": 5, "until": "2026-01-01"},
        {"seconds": 5, "after_power_loss": "guess"},
        {"seconds": 5, "spec": {"effect": "pure"}},
        {"seconds": 5, "spec": {"effect": "write"}},
    ],
)
def test_what_a_wait_cannot_be_told(config: dict[str, Any]) -> None:
    """Refused while compiling."""
    with pytest.raises(Exception, match="yaml"):
        playbook([{"step": "s", "tool": {"kind": "wait", **config}}])


def test_callback_is_a_name_only_where_one_is_waited_for() -> None:
    """Elsewhere it means nothing, and the message says where it does."""
    with pytest.raises(Exception, match="callback"):
        playbook([{"step": "s", "tool": value("a", "{{ callback.token }}")}])
