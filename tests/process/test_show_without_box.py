"""`edge show` where no runtime answers: the same story, from the log's files."""

from __future__ import annotations

import json
import signal

from edge.cli.client import RuntimeClient
from tests.process.box import Box

STEPS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: steps, path: steps}
workflow:
  - step: one
    tool: {kind: transform, value: {n: 1}}
    next: [{step: rest, when: "{{ workload.waits }}"}]
  - step: rest
    tool: {kind: wait, seconds: 600}
"""


def test_a_story_is_told_with_and_without_a_box(quiet_box: Box) -> None:
    """An execution that ended and one that waits: told by the box, and the same from its log once it is stopped."""
    box = quiet_box
    box.register(STEPS)
    box.run("steps", {"waits": False})
    with RuntimeClient(box.settings) as runtime:
        execution_id = runtime.submit("steps", b'{"waits": true}', "application/json", None)
    waiting = execution_id.rpartition("-")[2]
    while "step.waiting" not in box.edge("log", "show").stdout:
        box.status()
    ended = next(event.seq for event in box.events() if event.type == "playbook.execution.requested")
    before = [box.edge("show", str(each), "--json").stdout for each in (ended, waiting)]
    box.kill("runtime", signal.SIGTERM)
    after = [box.edge("show", str(each), "--json") for each in (ended, waiting)]
    assert "No runtime serves this box" in after[0].stderr
    told = [json.loads(text) for text in before]
    read = [json.loads(done.stdout) for done in after]
    assert read[0] == told[0]
    assert told[1]["waits"].pop()["left_ms"] > 0
    (wait,) = read[1].pop("waits")
    assert (wait["task"], wait["left_ms"]) == ("rest", None)
    del told[1]["waits"]
    assert read[1] == told[1]
    assert read[1]["steps"]["rest"]["status"] == "waiting"
    text = box.edge("show", waiting).stdout
    assert "rest                 waiting" in text
    assert "999 in the log" in box.edge("show", "999", check=2).stderr
