"""Many executions under kills and retries: one state on the box, at the centre, after `rebuild`, and run again."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.cli.central_sources import central_source
from edge.cli.client import RuntimeClient
from edge.core.codec import encode
from edge.core.errors import EdgeError
from edge.core.events import AttemptLost, Event, ExecutionResumed, StepDone, TaskDone
from edge.replay.journal_source import JournalSource
from edge.replay.log_state import log_state
from edge.replay.rerun_log import rerun_log
from edge.sync.bundle import MANIFEST
from tests.process.box import Box
from tests.process.test_rerun import Again, planted

FEW = 150
#: Three thousand under `scripts/test --faults`; ten thousand take a quarter of an hour.
EXECUTIONS = int(os.environ.get("EDGE_TEST_RERUNS", FEW))
SEED = int(os.environ.get("EDGE_TEST_SEED", "20261126"))
CALLERS = 3

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: rough, path: rough}
workflow:
  - step: read
    desc: Fails, or dies with its process, by chance; what it gave at last is recorded.
    tool:
      - name: sensor
        kind: python
        input: {n: "{{ n }}"}
        code: |
          import os, random, signal
          dice = random.random()
          if dice < 0.01:
              os.kill(os.getpid(), signal.SIGKILL)
          if dice < 0.1:
              raise ValueError("noise")
          result = {"n": n, "level": random.gauss(5, 2)}
        spec:
          policy:
            rules:
              - when: "{{ output.status == 'error' }}"
                then: {do: retry, attempts: 20, delay: 0.001}
      - name: scale
        kind: transform
        value: {n: "{{ sensor.n }}", level: "{{ sensor.level / 3 }}"}
    next: [{step: judge, set: {ctx.level: "{{ read.level }}"}}]
  - step: judge
    spec: {effect: pure}
    input: {n: "{{ read.n }}", level: "{{ ctx.level }}"}
    tool: {kind: python, code: "result = {'high': level > 2, 'parts': [level * k / 7 for k in range(n % 5)]}"}
    next: {arcs: [{step: act, when: "{{ judge.high }}"}, {step: each}]}
  - step: act
    spec: {effect: write, on_unknown: retry}
    input: {to: "{{ read.level }}"}
    tool: {kind: python, code: "result = {'set': to}"}
    next: [each]
  - step: each
    loop: {in: "{{ judge.parts }}", iterator: part, spec: {mode: parallel}}
    tool: {kind: transform, value: "{{ iter.part * 3 }}"}
    next: [tell]
  - step: tell
    tool: {kind: transform, value: {n: "{{ n }}", high: "{{ judge.high }}", sum: "{{ each | sum }}"}}
"""


def call(box: Box, numbers: Iterator[int]) -> None:
    """Ask for executions until all were answered, again under the same id where the runtime was killed."""
    for number in numbers:
        payload = json.dumps({"n": number}).encode()
        while True:
            try:
                with RuntimeClient(box.settings, 60) as runtime:
                    runtime.submit("rough", payload, "application/json", f"r{number}")
                    runtime.answer()
                break
            except (EdgeError, OSError):
                time.sleep(0.1)  # the runtime is being started again


def run_roughly(made: Box, executions: int) -> None:
    """Let a box run so many while it is killed again and again, and end it."""
    made.start("runtime")
    made.register(PLAYBOOK)
    numbers, kills = iter(range(executions)), max(3, executions // 500)
    shared, taken = threading.Lock(), [0]

    def own() -> Iterator[int]:
        while True:
            with shared:
                number = next(numbers, None)
                taken[0] += 1
            if number is None:
                return
            yield number

    callers = [threading.Thread(target=call, args=(made, own())) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for number in range(kills):
        while taken[0] < executions * (number + 1) // (kills + 2):
            time.sleep(0.05)  # callers are threads that have no way to say how far they are
        made.kill("runtime")
        made.start("runtime")
        made.status()
    for caller in callers:
        caller.join()
    made.down()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A box that runs nothing yet. Nothing of it is left running."""
    (tmp_path / "rough").mkdir()
    made = Box(tmp_path / "rough", 1)
    yield made
    made.down()


@pytest.mark.minutes
def test_one_state_everywhere(box: Box, tmp_path: Path) -> None:
    """The digests of the log are equal on the box, from a stick, at the centre, after `rebuild`, and run again."""
    run_roughly(box, EXECUTIONS)
    source = JournalSource(box.settings)
    whole = log_state(source)
    assert (whole.executions, whole.open) == (EXECUTIONS, 0)
    met = Counter(type(event.body) for event in box.events())
    assert met[AttemptLost] + met[ExecutionResumed] > 0
    assert met[TaskDone] > EXECUTIONS // 2
    (tmp_path / "stick").mkdir()
    done = box.edge("bundle", "export", str(tmp_path / "stick"), "--json", "--same-drive")
    place, centre = json.loads(done.stdout)["folder"], tmp_path / "centre"
    key = json.loads((Path(place) / MANIFEST).read_text())["key"]
    for words in (("enrol", "testbox", key), ("import", place)):
        box.edge("central", *words, "--data", str(centre))
    assert log_state(central_source(centre, None, "testbox")) == whole
    (centre / "ledger.sqlite").unlink()
    box.edge("central", "rebuild", "--data", str(centre))
    shelf = central_source(centre, None, "testbox")
    assert log_state(shelf) == whole
    again = rerun_log(shelf, None, 2)
    assert (again.failed, again.first, again.same) == ("", [], EXECUTIONS)
    assert again.log_digests(source.log_id) == (whole.digest, whole.digest)


def test_a_changed_block_is_found_at_its_step(box: Box) -> None:
    """In any execution, at any of its pure blocks: the first difference is the event where it was planted."""
    run_roughly(box, FEW)
    chance = random.Random(SEED)
    again = Again(box)
    try:
        for history in chance.sample(again.histories, 12):
            event = chance.choice([each for each in history if pure(each)])
            body = replace(event.body, value=encode("planted"))  # type: ignore[call-arg]
            made = again.run(planted(history, event, body))
            assert made.digest != made.recorded, (SEED, event)
            assert (made.differences[0].seq, made.differences[0].step) == (event.seq, event.step), (
                SEED,
                event,
            )
            assert made.differences[0].was == {"value": "planted"}
    finally:
        again.sandbox.close()


def pure(event: Event) -> bool:
    """Whether an outcome is of a step that is made again."""
    return type(event.body) is StepDone and event.step in ("read", "judge", "tell")
