"""A mistake of our own in a real daemon: it ends, is started again, and what was under way does not hang."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from edge.core.events import ExecutionRequested
from tests.process.box import Box
from tests.process.callers import Caller
from tests.process.mosquitto import Mosquitto
from tests.process.test_restarts import end_of, submit

#: The runtime with a bug planted where an outcome is written down: the first one in each process raises.
PLANTED = """
import sys
from edge.runtime.__main__ import main
from edge.runtime.running.outcomes import Recorder

sound, seen = Recorder.outcome, []

def planted(self, *given, **named):
    if not seen:
        seen.append(1)
        raise {error}
    return sound(self, *given, **named)

Recorder.outcome = planted
sys.argv = ["edge.runtime", *sys.argv[sys.argv.index("edge.runtime") + 1 :]]
sys.exit(main())
"""
#: The gateway with one planted where it hears that a request was accepted: a receipt is due, and the acknowledgement.
PLANTED_GATEWAY = """
import sys
from gateway.__main__ import main
from gateway.daemon import Gateway

def planted(self, *given):
    raise ValueError('planted')

Gateway._accepted = planted
sys.argv = ["gateway", *sys.argv[sys.argv.index("gateway") + 1 :]]
sys.exit(main())
"""
HELLO = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: hello, path: hello}
workflow:
  - step: greet
    tool: {kind: transform, value: "hello"}
"""

#: An effect waits until its intent is durable, and by then the request was accepted; a pure step runs ahead of both.
EFFECT = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: effect, path: effect}
workflow:
  - step: greet
    spec: {effect: write, on_unknown: retry}
    tool: {kind: python, code: "result = 'hello'"}
"""


@pytest.mark.parametrize("error", ["ValueError('planted')", "OSError(5, 'planted')"])
def test_a_mistake_over_an_outcome_does_not_leave_its_execution_hanging(
    quiet_box: Box, tmp_path: Path, error: str
) -> None:
    """The process says what it was and exits with 1; the next one runs the step again and completes the execution."""
    box = quiet_box
    box.register(EFFECT)
    box.kill("runtime", signal.SIGTERM)
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(error=error))
    box.started_by["runtime"] = [sys.executable, str(script)]
    box.start("runtime")
    box.status()
    execution = submit(box, "effect")
    assert box.processes.pop("runtime").wait(timeout=60) == 1
    assert "planted" in box.words()
    del box.started_by["runtime"]
    box.start("runtime")
    assert end_of(box, execution).status == "completed"
    assert box.verify().whole


@pytest.mark.mosquitto
async def test_a_mistake_over_a_receipt_does_not_leave_a_gateway_that_acknowledges_nothing(
    box: Box, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """The gateway ends with 1; the next one is given the message again, and it ran once."""
    box.register(HELLO)
    box.kill("gateway", signal.SIGTERM)
    script = tmp_path / "planted.py"
    script.write_text(PLANTED_GATEWAY)
    box.started_by["gateway"] = [sys.executable, str(script)]
    box.start("gateway")
    caller = Caller("c", mosquitto.port, ["hello"], 1)
    asking = asyncio.get_running_loop().create_task(caller.run())
    ended = await asyncio.to_thread(box.processes.pop("gateway").wait, 60)
    assert ended == 1
    assert "planted" in box.words()
    caller.stopping = True
    del box.started_by["gateway"]
    box.start("gateway")
    await asyncio.wait_for(asking, 60)
    assert [len(one.results) > 0 for one in caller.asked] == [True]
    assert sum(isinstance(event.body, ExecutionRequested) for event in box.events()) == 1
