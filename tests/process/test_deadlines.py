"""Deadlines and timeouts over a real broker: whoever asked hears of them, whatever became of the runtime."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from edge.core.events import ExecutionDeadline, ExecutionFinished, ExecutionRequested, StepFailed, StepWaiting
from tests.process.box import BOX, START_S, Box
from tests.process.test_request_line import client, wait_until_serving

pytestmark = pytest.mark.mosquitto

#: Long enough for a kill and a restart on a busy machine, short enough to be waited for.
DEADLINE_S = 6

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: demo/late}\nworkflow:\n"
WAITS = "  - step: late\n    tool: {kind: wait, callback: true, timeout: 1h}\n"
BOUNDED = """  - step: late
    spec: {policy: {lifecycle: {deadline_s: DEADLINE}}}
    tool: {kind: wait, callback: true, timeout: 1h}
    next: [{step: never}]
  - step: never
    tool: {kind: noop}
"""
BUSY = """  - step: late
    spec: {effect: EFFECT, timeout: 1500ms}
    tool:
      kind: python
      code: |
        import time
        time.sleep(60)
        result = 1
"""


def ask(box: Box, deadline_ms: int | None = None) -> subprocess.Popen[str]:
    """Somebody who asks over the broker and waits for the one answer."""
    properties = ["-D", "publish", "user-property", "receipt", "none"]
    properties += ["-D", "publish", "user-property", "request-id", "r-1"]
    if deadline_ms is not None:
        properties += ["-D", "publish", "user-property", "deadline", str(deadline_ms)]
    given = ["-t", f"edge/v1/{BOX}/request/ada/demo/late", "-e", "answers/ada", "-q", "1", "-m", "{}"]
    return subprocess.Popen(
        [*client("mosquitto_rr", box), *given, *properties, "-W", "90"], stdout=subprocess.PIPE, text=True
    )


def answer(asked: subprocess.Popen[str]) -> dict[str, Any]:
    """What they heard."""
    words, _ = asked.communicate(timeout=100)
    return dict(json.loads(words))


def until(box: Box, kind: type) -> None:
    """Return once an event of this type is on the drive."""
    deadline_s = time.monotonic() + START_S
    while not any(isinstance(event.body, kind) for event in box.events()):
        assert time.monotonic() < deadline_s, box.words()
        time.sleep(0.01)  # polls a process that nobody asked to say so


def kill_and_start(box: Box, away_s: float) -> None:
    """End the runtime at once, and start it again after a while."""
    box.kill("runtime")
    time.sleep(away_s)  # the time that passes while nobody is there is what is tested
    box.start("runtime")


def check(box: Box, heard: dict[str, Any], code: str, step: str | None) -> None:
    """The answer says what ended it, and the log says the same, once."""
    assert heard["status"] == "failed"
    assert (heard["error"]["code"], heard["error"].get("step")) == (code, step), heard
    [end] = [event.body for event in box.events() if isinstance(event.body, ExecutionFinished)]
    assert end.problem is not None
    assert end.problem["code"] == code
    assert sum(isinstance(event.body, ExecutionRequested) for event in box.events()) == 1
    assert box.verify().whole


#: Until when the runtime is away that was killed while it waited, in parts of the deadline; None: it was not.
AWAY = pytest.mark.parametrize(
    "away_s", [None, 0, DEADLINE_S + 1], ids=["alive", "back in time", "back too late"]
)


@AWAY
def test_a_requests_deadline_reaches_who_asked(box: Box, away_s: float | None) -> None:
    """The user property `deadline` ends an execution that waits: `deadline_exceeded`, also over `kill -9`."""
    box.register(HEAD + WAITS)
    wait_until_serving(box)
    asked = ask(box, DEADLINE_S * 1000)
    until(box, StepWaiting)
    if away_s is not None:
        kill_and_start(box, away_s)
    heard = answer(asked)
    check(box, heard, "deadline_exceeded", None)
    [body] = [event.body for event in box.events() if isinstance(event.body, ExecutionDeadline)]
    assert body == ExecutionDeadline(DEADLINE_S * 1000, body.by)


@AWAY
def test_a_steps_deadline_reaches_who_asked(box: Box, away_s: float | None) -> None:
    """`policy.lifecycle.deadline_s` fails the step that waits, by name, also over `kill -9`."""
    box.register(HEAD + BOUNDED.replace("DEADLINE", str(DEADLINE_S)))
    wait_until_serving(box)
    asked = ask(box)
    until(box, StepWaiting)
    if away_s is not None:
        kill_and_start(box, away_s)
    check(box, answer(asked), "deadline_exceeded", "late")
    assert sum(isinstance(event.body, StepFailed) for event in box.events()) == 1


@pytest.mark.parametrize(("effect", "code"), [("read", "timeout"), ("write", "outcome_unknown")])
@pytest.mark.parametrize("killed", [False, True])
def test_a_timeout_reaches_who_asked(box: Box, effect: str, code: str, killed: bool) -> None:
    """A block over `spec.timeout` is killed: what reads is tried again and then fails, what writes is not known."""
    box.register(HEAD + BUSY.replace("EFFECT", effect))
    wait_until_serving(box)
    asked = ask(box)
    until(box, ExecutionRequested)
    if killed:
        while not box.status()["worker_pids"]:
            time.sleep(0.01)  # polls for a worker that nobody announces
        kill_and_start(box, 0)
    check(box, answer(asked), code, "late")


def test_a_deadline_that_is_none_is_refused(box: Box) -> None:
    """Nothing is accepted for a deadline that cannot be read; who asked hears why."""
    box.register(HEAD + WAITS)
    wait_until_serving(box)
    asked = ask(box, -5)
    assert answer(asked)["error"]["code"] == "deadline_invalid"
    assert not any(isinstance(event.body, ExecutionRequested) for event in box.events())
