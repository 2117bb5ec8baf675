"""Loops on real processes: workers and runtime killed in the middle, and every item committed once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter

from edge.cli.client import RuntimeClient
from edge.core.events import Event, LoopItems, StepStarted
from tests.process.box import Box

LOOP = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: loop, path: loops/EFFECT}
workflow:
  - step: each
    loop: {in: "{{ range(workload.n) }}", iterator: x, spec: {mode: parallel, max_in_flight: 4}}
    tool:
      kind: python
      code: |
        import time
        time.sleep(0.004)
        result = x * 2
      spec: {effect: EFFECT, on_unknown: ON_UNKNOWN}
"""


def loop(effect: str, on_unknown: str = "retry") -> str:
    source = LOOP.replace("EFFECT", effect).replace("ON_UNKNOWN", on_unknown)
    return source if effect == "write" else source.replace(f", on_unknown: {on_unknown}", "")


def committed(events: list[Event]) -> Counter[int]:
    bodies = [event.body for event in events if isinstance(event.body, LoopItems)]
    return Counter(index for body in bodies for index in range(body.first, body.first + body.count))


def test_fifty_items_run_fifty_times(quiet_box: Box) -> None:
    """A loop over 50 items with an effect runs its task 50 times and commits 50 outcomes: two events an item."""
    quiet_box.register(loop("write", "fail"))
    answer = quiet_box.run("loops/write", {"n": 50})
    assert answer["result"] == [n * 2 for n in range(50)]
    events = quiet_box.events()
    started = Counter(event.iteration for event in events if isinstance(event.body, StepStarted))
    assert started == Counter((index,) for index in range(50))
    assert committed(events) == Counter(range(50))


def test_workers_killed_in_a_loop(quiet_box: Box) -> None:
    """With workers killed again and again every item still has one outcome, and the results are in order."""
    quiet_box.register(loop("read"))
    stop = threading.Event()

    def killing() -> None:
        chance = random.Random(7)
        while not stop.is_set():
            # After some progress, not after some time: on a busy machine one item would be hit again and again.
            wanted = len(committed(quiet_box.events())) + 12
            while not stop.wait(0.01) and len(committed(quiet_box.events())) < wanted:
                pass
            pids = quiet_box.status()["worker_pids"]
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)

    killer = threading.Thread(target=killing)
    killer.start()
    try:
        answer = quiet_box.run("loops/read", {"n": 400})
    finally:
        stop.set()
        killer.join()
    assert answer.get("result") == [n * 2 for n in range(400)], answer
    assert committed(quiet_box.events()) == Counter(range(400))
    assert quiet_box.verify().whole


def test_a_runtime_killed_in_a_loop_goes_on(quiet_box: Box) -> None:
    """With the runtime killed in the middle the loop goes on where its log stops, and ends with the same result."""
    quiet_box.register(loop("read"))
    with RuntimeClient(quiet_box.settings) as runtime:
        payload = json.dumps({"n": 400}).encode()
        execution_id = runtime.submit("loops/read", payload, "application/json", None)
    seq = int(execution_id.rpartition("-")[2])
    for _ in range(3):
        deadline_s = time.monotonic() + 10
        before = len(committed(quiet_box.events()))
        while len(committed(quiet_box.events())) == before and time.monotonic() < deadline_s:
            time.sleep(0.01)  # polls for progress that nobody announces
        quiet_box.kill("runtime")
        quiet_box.start("runtime")
        quiet_box.status()
    deadline_s = time.monotonic() + 30
    while quiet_box.ask("execution", id=execution_id)["status"] == "running":
        assert time.monotonic() < deadline_s, "it does not end"
        time.sleep(0.02)  # polls for an end that nobody announces
    found = quiet_box.ask("execution", id=execution_id)
    assert found["status"] == "completed"
    events = [event for event in quiet_box.events() if event.execution == seq]
    assert committed(events) == Counter(range(400))
    assert quiet_box.verify().whole
