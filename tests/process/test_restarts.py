"""A restarted runtime goes on where the log says, and never round and round."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from edge.cli.client import RuntimeClient
from edge.core.events import (
    BootStarted,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    StepDone,
    StepStarted,
)
from edge.core.limits import RESUMES_MAX
from tests.process.box import Box, alive

#: A block that would bring the box down, were it not for the test that does it: it only has to be under way.
HEAVY = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: heavy, path: restart/heavy}
workflow:
  - step: before
    tool: {kind: transform, value: {n: 1}}
    next: [{step: heavy, when: "{{ before.n == 1 }}"}]
  - step: heavy
    spec: {timeout: 60s}
    tool:
      kind: python
      code: |
        import time
        time.sleep(50)
        result = 1
"""
STEPS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: steps, path: restart/steps}
workflow:
  - step: one
    spec: {effect: EFFECT, timeout: 20s}
    tool: {kind: python, code: "import time; time.sleep(0.4); result = {'n': 1}"}
    next: [{step: two}]
  - step: two
    spec: {effect: EFFECT, timeout: 20s}
    input: {n: "{{ one.n }}"}
    tool: {kind: python, code: "import time; time.sleep(0.4); result = {'n': n + 1}"}
"""


def submit(box: Box, playbook: str) -> int:
    """A local request that is in the log; nobody waits for its answer."""
    with RuntimeClient(box.settings) as runtime:
        return int(runtime.submit(playbook, b"{}", "application/json", None).rpartition("-")[2])


def end_of(box: Box, execution: int, timeout_s: float = 60) -> ExecutionFinished:
    """The end of an execution, once it is in the journal."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for event in box.events():
            if event.execution == execution and isinstance(event.body, ExecutionFinished):
                return event.body
        box.status()
    raise AssertionError(f"execution {execution} did not end; {box.words()[-2000:]}")


def test_a_block_that_kills_the_box_does_not_loop(quiet_box: Box) -> None:
    """Twenty restarts of the runtime on a block under way: a few resumes, then the execution fails."""
    quiet_box.register(HEAVY)
    execution = submit(quiet_box, "restart/heavy")
    while not any(event.step == "before" for event in quiet_box.events()):
        time.sleep(0.01)  # polls a process that nobody asked to say so
    for _ in range(20):
        status = quiet_box.status()
        # The kernel's out-of-memory killer would take them all; here the runtime, and its children follow.
        quiet_box.kill("runtime")
        assert all(not alive(pid) for pid in ended([status["zygote_pid"], *status["worker_pids"]]))
        assert quiet_box.verify().whole
        quiet_box.start("runtime")
    quiet_box.status()
    end = end_of(quiet_box, execution)
    assert end.status == "failed"
    assert end.problem is not None
    assert end.problem["code"] == "resume_limit"
    events = quiet_box.events()
    resumed = sum(isinstance(event.body, ExecutionResumed) for event in events)
    # A kill may cut off the end event, which is then written by the restart after: nothing was dispatched again.
    assert RESUMES_MAX < resumed < 10


def ended(pids: list[int], timeout_s: float = 10) -> list[int]:
    """The same processes, once all have ended or the time is up."""
    deadline_s = time.monotonic() + timeout_s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.005)  # processes of others cannot be waited for
    return pids


def kill_in_the_middle(box: Box, effect: str) -> tuple[int, list[Any]]:
    """Kill the runtime while the second step runs; the execution's events once it has ended."""
    box.register(STEPS.replace("EFFECT", effect))
    execution = submit(box, "restart/steps")
    while not any(event.step == "one" and isinstance(event.body, StepDone) for event in box.events()):
        time.sleep(0.01)  # polls a process that nobody asked to say so
    box.kill("runtime")
    box.start("runtime")
    box.status()
    end_of(box, execution)
    return execution, [event for event in box.events() if event.execution == execution]


def test_a_restart_goes_on_after_the_last_recorded_step(quiet_box: Box) -> None:
    """Read steps: the first is not run again, the second is; the result is as if nothing had happened."""
    _, events = kill_in_the_middle(quiet_box, "read")
    kinds = [type(event.body) for event in events]
    assert kinds == [ExecutionRequested, StepDone, ExecutionResumed, StepDone, ExecutionFinished]
    assert events[-1].body.status == "completed"


def test_a_write_of_unknown_outcome_is_not_repeated(quiet_box: Box) -> None:
    """A write step whose intent is durable and whose outcome is not: it fails as `outcome_unknown`."""
    _, events = kill_in_the_middle(quiet_box, "write")
    end = events[-1].body
    assert end.status == "failed"
    assert end.problem["code"] == "outcome_unknown"
    assert sum(isinstance(event.body, StepStarted) for event in events) == 2


def test_a_clean_stop_says_so_and_resumes_too(quiet_box: Box) -> None:
    """SIGTERM: the runtime closes the log in order; what was open goes on at the next start."""
    quiet_box.register(STEPS.replace("EFFECT", "read"))
    execution = submit(quiet_box, "restart/steps")
    quiet_box.kill("runtime", signal.SIGTERM)
    assert quiet_box.verify().index_last_seq == quiet_box.events()[-1].seq
    quiet_box.start("runtime")
    assert end_of(quiet_box, execution).status == "completed"
    boots = [event.body for event in quiet_box.events() if isinstance(event.body, BootStarted)]
    assert [boot.clean for boot in boots] == [True, True]


def test_a_second_runtime_is_refused(quiet_box: Box) -> None:
    """Two runtimes on one data folder: the second says who is in the way and ends with code 2."""
    first = quiet_box.processes.pop("runtime")
    quiet_box.start("runtime")
    second = quiet_box.processes["runtime"]
    assert second.wait(timeout=30) == 2
    assert "Another runtime already serves" in quiet_box.words()
    quiet_box.processes["runtime"] = first
    assert json.dumps(quiet_box.status()["open"]) == "0"


def test_a_thread_that_a_block_left_ends_with_its_process(quiet_box: Box) -> None:
    """A block that leaves a thread behind gives its result, and its process is replaced: nothing computes on."""
    quiet_box.register(
        """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: spin, path: restart/spin}
workflow:
  - step: spin
    tool:
      kind: python
      code: |
        import os, threading
        def work():
            while True:
                pass
        threading.Thread(target=work, daemon=True).start()
        result = os.getpid()
"""
    )
    pid = quiet_box.run("restart/spin")["result"]
    deadline_s = time.monotonic() + 15
    while alive(pid):
        assert time.monotonic() < deadline_s, "the process lives on"
        time.sleep(0.02)  # polls for the end of a process that is not our child
    assert quiet_box.run("restart/spin")["result"] != pid


REST = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: rest, path: restart/rest}
workflow:
  - step: rest
    tool: {kind: wait, duration: 12h}
"""


def test_very_many_that_wait_do_not_hold_a_start_up(quiet_box: Box) -> None:
    """They are looked at while the box serves; told to end in the midst of it, it closes its log in order."""
    quiet_box.register(REST)
    with RuntimeClient(quiet_box.settings) as runtime:
        for _ in range(1_200):
            runtime.submit("restart/rest", b"{}", "application/json", None)
    for _ in range(3):
        quiet_box.kill("runtime", signal.SIGTERM)
        quiet_box.start("runtime")
        assert (quiet_box.status()["open"], quiet_box.status()["waiting"]) == (0, 1_200)
    assert quiet_box.edge("playbook", "list").returncode == 0
    quiet_box.kill("runtime", signal.SIGTERM)
    assert "CRITICAL" not in quiet_box.words()
    assert quiet_box.verify().whole
