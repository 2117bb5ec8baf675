"""One state everywhere: a box that was killed, its bundle, the centre, the centre rebuilt, by the same code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.sync.bundle import MANIFEST
from tests.process.box import Box

FLAKY = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: flaky, path: flaky}
workflow:
  - step: ask
    tool:
      - name: asked
        kind: python
        input: {n: "{{ n }}"}
        code: |
          import time
          time.sleep(0.02)
          result = n * 2
  - step: sum
    tool: {kind: transform, value: "{{ ask + 1 }}"}
"""
FLAKY = FLAKY.replace("code: |\n", "code: |\n").replace(
    "  - step: sum", '    next: [{step: sum, set: {ctx.seen: "{{ ask }}"}}]\n  - step: sum'
)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, 1)
    made.start("runtime")
    made.register(FLAKY)
    for n in range(4):
        assert made.run("flaky", {"n": n})["result"] == 2 * n + 1
        if n % 2:
            made.kill("runtime")
            made.start("runtime")
            made.status()
    made.down()
    yield made
    made.down()


def told(box: Box, *words: str, check: int = 0) -> dict[str, Any]:
    return dict(json.loads(box.edge(*words, "--json", check=check).stdout))


def test_box_bundle_centre_and_rebuild_say_the_same(box: Box, tmp_path: Path) -> None:
    """Digests of the log and of an execution at two of its events are equal in all four places."""
    stick, data = tmp_path / "stick", str(tmp_path / "centre")
    stick.mkdir()
    place = told(box, "bundle", "export", str(stick), "--same-drive")["folder"]
    key = json.loads((Path(place) / MANIFEST).read_text())["key"]
    box.edge("central", "enrol", "testbox", key, "--data", data)
    box.edge("central", "import", place, "--data", data)
    whole = told(box, "replay", "--all")
    assert whole["executions"] == 4
    requests = [event.seq for event in box.events() if event.type == "playbook.execution.requested"]
    execution = f"{whole['log_id']}-{requests[2]}"
    at_seq = ("--at-seq", str(requests[2] + 1))

    def everywhere(*centre: str) -> list[list[str]]:
        return [
            [told(box, *words)["digest"] for words in places]
            for places in (
                (("replay", "--all"), ("replay", execution), ("replay", execution, *at_seq)),
                (
                    ("replay", "--all", "--bundle", place),
                    ("replay", execution, "--bundle", place),
                    ("replay", execution, "--bundle", place, *at_seq),
                ),
                (
                    ("central", "show", "--box", "testbox", *centre),
                    ("central", "show", execution, *centre),
                    ("central", "show", execution, *centre, *at_seq),
                ),
            )
        ]

    first = everywhere("--data", data)
    assert first[0] == first[1] == first[2]
    assert len(set(first[0])) == 3
    box.edge("central", "rebuild", "--data", data)
    assert everywhere("--data", data) == first
    later = box.edge("central", "show", execution, "--data", data, "--at", "2999-01-01T00:00:00Z")
    assert "after event" in later.stderr
    assert "completed" in later.stdout
    nothing = box.edge("central", "show", execution, "--data", data, "--known-at", "2001-01-01", check=2)
    assert "Nothing of this log had come here" in nothing.stderr
    assert "There is no log of nobody" in box.edge(
        "central", "show", "--box", "nobody", "--data", data, check=2
    ).stderr  # fmt: skip
    assert "is no execution" in box.edge("replay", "x", check=2).stderr
    assert "Which execution?" in box.edge("replay", check=2).stderr
    assert "is no time" in box.edge("replay", execution, "--at", "noon", check=2).stderr
