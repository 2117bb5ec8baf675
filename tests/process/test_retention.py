"""A real box that prunes: started with a policy where room is wanted, asked for everything afterwards."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from edge.cli.client import RuntimeClient
from edge.core.limits import SEGMENT_BYTES
from edge.store.segment_file import segment_paths
from tests.process.box import Box

WAITS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: waits, path: kept/waits}
workflow:
  - step: pause
    tool:
      - {name: first, kind: transform, value: "{{ workload.n }}"}
      - {name: until, kind: wait, seconds: 86400}
"""
SHORT = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: short, path: kept/short}
workflow:
  - step: length
    tool: {kind: transform, value: "{{ workload.pad | length }}"}
"""
PAD_BYTES = 60_000
REQUESTS = SEGMENT_BYTES // PAD_BYTES + 20
#: More than any drive has free: room is always wanted.
ALL_OF_IT_MB = 2**20


def ask(box: Box, request_id: str) -> dict[str, Any]:
    """A request and its answer."""
    payload = json.dumps({"pad": "x" * PAD_BYTES}).encode()
    with RuntimeClient(box.settings) as runtime:
        identity = runtime.submit("kept/short", payload, "application/json", request_id)
        return {"id": identity, **json.loads(runtime.answer()[2])}


def restart(box: Box, number: int, **settings: Any) -> None:
    """Start the box again with other settings."""
    box.kill("runtime", number)
    lines = [
        'box = "testbox"',
        "workers = 1",
        *(f"{name} = {json.dumps(value)}" for name, value in settings.items()),
    ]
    (box.data / "edge.toml").write_text("\n".join(lines) + "\n")
    box.start("runtime")
    box.status()


def test_a_box_prunes_and_goes_on(tmp_path: Path) -> None:
    """The oldest file goes; what waits, answers and the commands know what they must, over a kill as well."""
    box = Box(tmp_path, 1, workers=1, reserve_mb=1)
    box.start("runtime")
    try:
        box.register(WAITS)
        box.register(SHORT)
        with RuntimeClient(box.settings) as runtime:
            waits = runtime.submit("kept/waits", b'{"n": 5}', "application/json", "w")
        answers = [ask(box, f"r-{number}") for number in range(REQUESTS)]
        assert len(segment_paths(box.settings.journal_folder)) == 2
        restart(box, signal.SIGTERM, reserve_mb=ALL_OF_IT_MB, retain_policy="oldest")
        deadline_s = time.monotonic() + 60
        while len(segment_paths(box.settings.journal_folder)) > 1 or not box.ask("retention")["refusing"]:
            assert time.monotonic() < deadline_s, box.words()
            time.sleep(0.1)  # polls what is looked at every five seconds
        now = box.ask("retention")
        assert (now["refusing"], now["oldest"]) == ("drive", None)
        restart(box, signal.SIGKILL, reserve_mb=1)
        said = box.edge("log", "verify").stdout
        assert "pruned   up to event" in said
        assert "whole" in said
        assert "last by oldest" in box.edge("log", "stat").stdout
        number = waits.rpartition("-")[2]
        assert "waiting" in box.edge("show", waits).stdout or "waits for" in box.edge("show", waits).stdout
        assert f"execution  {waits}" in box.edge("explain", number).stdout
        assert ask(box, "r-3") == answers[3]
        pruned = box.edge("explain", answers[3]["id"], check=2)
        assert "was pruned" in pruned.stderr
        assert ask(box, "new")["status"] == "completed"
        assert box.verify().whole
    finally:
        box.down()
