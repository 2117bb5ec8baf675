"""Loops of effects under `kill -9` of workers and runtime: one outcome an index, no effect repeated unasked."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from edge.cli.client import RuntimeClient
from edge.core.codec import decode
from edge.core.events import ExecutionFinished, LoopItems, StepStarted
from edge.core.limits import ATTEMPTS_MAX
from tests.process.box import START_S, Box

pytestmark = pytest.mark.sandbox

ITEMS = 50
SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))

#: Each item has its effect at once and is then busy for a while: a kill finds it with the effect behind it.
APPEND = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: append, path: loops/append}
workflow:
  - step: each
    loop: {in: "{{ range(50) | list }}", iterator: x, spec: {mode: MODE, max_in_flight: 4}}
    spec:
      on_unknown: ON_UNKNOWN
      policy: {failure: best_effort, access: {files: [{path: FOLDER, mode: write}]}}
    tool:
      kind: python
      code: |
        import os, time
        fd = os.open("FOLDER/effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, b"%d\\n" % x)
        os.close(fd)
        time.sleep(0.02)
        result = x * 2
"""


def committed(box: Box) -> list[LoopItems]:
    """The outcomes of items in the log, in the order of the log."""
    return [event.body for event in box.events() if isinstance(event.body, LoopItems)]


def begun(box: Box) -> Counter[int]:
    """How often the intent of each item's effect was written down."""
    return Counter(event.iteration[0] for event in box.events() if isinstance(event.body, StepStarted))


def has_ended(box: Box) -> bool:
    """Whether the execution's end is on the drive."""
    return any(isinstance(event.body, ExecutionFinished) for event in box.events())


def kill_until_it_ends(box: Box, chance: random.Random) -> Counter[str]:
    """Kill workers and the runtime at random moments until the loop has ended; how often each."""
    killed: Counter[str] = Counter()
    while not has_ended(box):
        wanted = sum(body.count for body in committed(box)) + chance.randint(1, 4)
        deadline_s = time.monotonic() + START_S
        while sum(body.count for body in committed(box)) < wanted and not has_ended(box):
            assert time.monotonic() < deadline_s, box.words()
            time.sleep(chance.uniform(0, 0.01))  # polls for progress that nobody announces
        # Of few kills, which is what a fast box leaves room for, chance alone may spare the runtime.
        if chance.random() < 0.4 or (killed["worker"] >= 2 and not killed["runtime"]):
            killed["runtime"] += 1
            box.kill("runtime")
            assert box.verify().whole
            box.start("runtime")
            box.status()
        elif pids := box.status()["worker_pids"]:
            killed["worker"] += 1
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(chance.choice(pids), signal.SIGKILL)
    return killed


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("on_unknown", ["retry", "fail"])
def test_fifty_effects_under_kills(quiet_box: Box, tmp_path: Path, mode: str, on_unknown: str) -> None:
    """One committed result for each of 50 items, in order; effects as often as `on_unknown` allows.

    With `retry` an item's effect happens once at least and ATTEMPTS_MAX times at most. With `fail` it never happens
    twice: an item that was killed over it ends as `outcome_unknown`. NoETL's engine runs the task of such a loop
    of 50 items 90 times and more with nothing killed at all.
    """
    folder = tmp_path / "out"
    folder.mkdir()
    source = APPEND.replace("MODE", mode).replace("ON_UNKNOWN", on_unknown).replace("FOLDER", str(folder))
    quiet_box.register(source)
    with RuntimeClient(quiet_box.settings) as runtime:
        execution_id = runtime.submit("loops/append", b"{}", "application/json", None)
    killed = kill_until_it_ends(quiet_box, random.Random(f"{SEED} {mode} {on_unknown}"))
    found = quiet_box.ask("execution", id=execution_id)
    assert found["status"] == "completed", found
    bodies = committed(quiet_box)
    indices = [index for body in bodies for index in range(body.first, body.first + body.count)]
    assert sorted(indices) == list(range(ITEMS)), "an index without an outcome, or with two"
    if mode == "sequential":
        assert indices == list(range(ITEMS)), "a sequential loop out of order"
    failed = {index: problem for body in bodies for index, problem in (body.failed or {}).items()}
    effects = Counter(int(line) for line in (folder / "effects").read_text().split())
    results = answer(quiet_box)
    assert results == [None if index in failed else index * 2 for index in range(ITEMS)]
    if on_unknown == "retry":
        assert {problem["code"] for problem in failed.values()} <= {"worker_lost"}, failed
        assert set(effects) == set(range(ITEMS)), "an effect that never happened"
        assert max(begun(quiet_box).values()) <= ATTEMPTS_MAX
        assert 1 < max(effects.values()) <= ATTEMPTS_MAX, (killed, effects)
    else:
        assert {problem["code"] for problem in failed.values()} == {"outcome_unknown"}, (killed, failed)
        assert set(effects.values()) == {1}, "an effect was repeated, and nobody had asked for it"
        assert set(range(ITEMS)) - set(failed) <= set(effects)
    assert killed["runtime"], killed
    assert killed["worker"], killed
    assert quiet_box.verify().whole


def answer(box: Box) -> list[object]:
    """The results of the loop, as the execution's end has them."""
    [end] = [event.body for event in box.events() if isinstance(event.body, ExecutionFinished)]
    assert end.result is not None, end
    made = decode(end.result)
    assert json.dumps(made)
    return list(made)
