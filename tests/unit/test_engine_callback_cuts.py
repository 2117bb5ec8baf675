"""Callbacks cut at every event: the same end whatever was cut, and a token that is taken once over all of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cbor2
import pytest

from edge.core.errors import RequestRefused
from edge.core.events import CallbackReceived, Event, TaskDone
from edge.core.state import RUNNING, fold
from edge.store.journal import read_groups
from edge.testing.box import Box
from edge.testing.plain import playbook

EXECUTION = 3
GO_ON = {"else": {"then": {"do": "continue", "set": {"ctx.heard": "{{ output.data }}"}}}}


def ask(name: str) -> dict[str, Any]:
    """Hands the token of the next wait out."""
    return {
        "name": name,
        "kind": "python",
        "code": "result = token",
        "input": {"token": "{{ callback.token }}"},
    }


def wait(name: str, *rules: Any) -> dict[str, Any]:
    spec = {"spec": {"policy": {"rules": list(rules)}}} if rules else {}
    return {"name": name, "kind": "wait", "callback": True, "timeout": "1h", **spec}


def value(name: str, given: Any) -> dict[str, Any]:
    return {"name": name, "kind": "transform", "value": given}


TWICE = [ask("ask1"), wait("first", GO_ON), value("between", "{{ first }}!"), ask("ask2"), wait("second")]
#: Two waits in one pipeline, what its rules write, a step behind it and a visit more.
PIPELINE: list[dict[str, Any]] = [
    {"step": "s", "tool": [*TWICE, value("end", "{{ [between, second] }}")],
     "set": {"n": "{{ ctx.n | default(0) + 1 }}"},
     "next": [{"step": "s", "when": "{{ ctx.n < 2 }}"}, {"step": "t"}]},
    {"step": "t", "tool": value("v", "{{ [s, ctx.heard, ctx.n] }}")},
]  # fmt: skip
LOOP: list[dict[str, Any]] = [
    {"step": "s", "loop": {"in": ["a", "b"], "iterator": "x", "spec": {"mode": "parallel"}},
     "tool": [ask("ask"), wait("answer"), value("end", "{{ [iter.x, answer] }}")]},
]  # fmt: skip
EARLY: list[dict[str, Any]] = [
    {"step": "s", "tool": [ask("ask"), {"name": "rest", "kind": "wait", "seconds": 30}, wait("answer"),
                           value("end", "{{ answer }}")]},
]  # fmt: skip


def handed_out(events: list[Event]) -> dict[str, str]:
    """Every token that a recorded task handed out, and what whoever has it says: where it was asked."""
    return {
        cbor2.loads(event.body.value): f"{event.body.task} {event.visit} {event.iteration}"
        for event in events
        if isinstance(event.body, TaskDone) and event.body.task.startswith("ask") and event.body.value
    }


def say(box: Box, token: str, given: str) -> str:
    """Use a token: `taken`, or the code it was refused with."""
    try:
        box.engine.callbacks.receive(token, None, json.dumps(given).encode(), lambda _: None)
    except RequestRefused as error:
        return error.problem_code
    return "taken"


async def carried_on(box: Box) -> tuple[Any, Counter[str]]:
    """The end of the execution, whose every token is used as soon as it is out, and again and again after.

    Callers that have no word of whether their callback was taken say it again: each time anew to all tokens. Gives
    the state as JSON would have it, without what may differ, and how often each token was taken.
    """
    taken: Counter[str] = Counter()
    for _ in range(60):
        await box.settle()
        for token, given in handed_out(box.engine.events_of(EXECUTION)).items():
            said = say(box, token, given)
            taken[token] += said == "taken"
            again = say(box, token, "mallory")
            assert again in ("callback_used", "callback_ended", "callback_expired"), (said, again)
            assert said in ("taken", "callback_used", "callback_ended"), said
        await box.settle()
        await box.pass_time(1)
        if box.engine.state_of(EXECUTION).status != RUNNING:
            break
    state = box.engine.state_of(EXECUTION)
    assert state == fold(box.engine.events_of(EXECUTION))
    steps = {name: (step.status, step.visit, step.outcome.value) for name, step in state.steps.items()
             if step.outcome is not None}  # fmt: skip
    answer = json.loads(box.engine.answer(EXECUTION).payload)
    return (state.status, state.ctx, steps, answer.get("result")), taken


def cuts(box: Box, target: Path) -> list[Path]:
    """The box's drive as a power cut would have left it before and after each event since the request."""
    (file,) = sorted((box.folder / "journal").iterdir())
    data, made = file.read_bytes(), []
    ends = [(group.first_seq, data.index(frame) + len(frame)) for _, group, frame in read_groups(file.parent)]
    for seq, end in ends:
        if seq < EXECUTION:
            continue
        folder = box.photograph(target / f"cut{seq}")
        shutil.rmtree(folder / "index")
        (mine,) = sorted((folder / "journal").iterdir())
        mine.write_bytes(data[:end] + bytes(len(data) - end))
        made.append(folder)
    return made


@pytest.mark.parametrize("steps", [PIPELINE, LOOP, EARLY], ids=["pipeline", "loop", "early"])
async def test_every_cut_leads_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[dict[str, Any]]
) -> None:
    """Cut after any event and carried on, it ends in the same state; the first callback is taken, once."""
    monkeypatch.setattr("edge.runtime.commit.gate.GROUP_EVENTS_MAX", 1)
    box = Box(tmp_path / "whole")
    await box.register(playbook(steps))
    box.submit("t")
    wanted, taken = await carried_on(box)
    assert wanted[0] == "completed"
    assert set(taken.values()) == {1}
    await box.gate.flushed()
    pictures = cuts(box, tmp_path)
    assert len(pictures) >= 2 * len(taken) + 2
    await box.close()
    for picture in pictures:
        again = Box(picture, clock=box.clock)
        before = {
            each for each in again.engine.events_of(EXECUTION) if isinstance(each.body, CallbackReceived)
        }
        ended, taken_since = await carried_on(again)
        assert ended == wanted, picture.name
        assert max(taken_since.values(), default=0) <= 1
        assert sum(taken_since.values()) + len(before) == len(taken)
        events = again.engine.events_of(EXECUTION)
        came = Counter((each.visit, each.iteration, each.body.round) for each in events
                       if isinstance(each.body, CallbackReceived))  # fmt: skip
        assert len(came) == len(taken)
        assert set(came.values()) == {1}, "a callback was recorded twice"
        assert not again.engine.executor.open
        assert len(again.engine.executor.timers) == 0
        await again.close()
