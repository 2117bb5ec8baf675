"""`edge circuit` on a running box: a host that fails is named, left alone over a restart, and let through by hand."""

from __future__ import annotations

import json

from edge.testing.loopback import serving
from tests.process.box import Box

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: ask, path: ask}}
workflow:
  - step: ask
    spec: {{policy: {{breaker: {{trip_after: 2, probe_after: 10m}}, access: {{hosts: ["127.0.0.1:{port}"]}}}}}}
    tool: {{kind: http, url: "http://127.0.0.1:{port}/"}}
"""


def code(box: Box) -> str:
    answer = box.run("ask")
    return str((answer.get("error") or {}).get("code"))


def test_listed_and_reset(quiet_box: Box) -> None:
    """Opened by failures, still open after a kill, closed by `edge circuit reset`."""
    box = quiet_box
    up: list[bool] = []
    with serving({"/": lambda h: h.say(200, b"1") if up else h.say(503, b"")}) as server:
        box.register(PLAYBOOK.format(port=server.port))
        assert "no failures" in box.edge("circuit", "list").stdout
        assert [code(box) for _ in range(3)] == ["http_status", "http_status", "circuit_open"]
        name = f"127.0.0.1:{server.port}"
        assert f"{name}  open  2 failures in a row" in box.edge("circuit", "list").stdout
        box.kill("runtime")
        box.start("runtime")
        box.status()
        (listed,) = json.loads(box.edge("circuit", "list", "--json").stdout)
        assert (listed["downstream"], listed["state"]) == (name, "open")
        assert 0 < listed["probe_in_ms"] <= 600_000
        assert code(box) == "circuit_open"
        up.append(True)
        assert "is closed" in box.edge("circuit", "reset", name).stdout
        assert code(box) == "None"
        assert "is not open" in box.edge("circuit", "reset", name, check=2).stderr
    assert len(server.seen) == 3
