"""HTTP from a real worker: through its porter, to granted hosts only, verified by the system's authorities."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.testing.loopback import serving
from tests.process.box import Box

pytestmark = pytest.mark.sandbox

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: h, path: h}}
workflow:
  - step: ask
    spec: {{policy: {{access: {{hosts: ["localhost:{port}"]}}}}}}
    tool: {{kind: http, url: "http://localhost:{port}/rows", response_type: table}}
    next: say
  - step: say
    spec: {{policy: {{access: {{hosts: ["127.0.0.1:{port}"]}}}}}}
    tool: {{kind: http, method: POST, url: "http://127.0.0.1:{port}/say", json: {{rows: "{{{{ ask.rows }}}}"}}}}
    next: elsewhere
  - step: elsewhere
    spec: {{policy: {{access: {{hosts: ["127.0.0.1:{port}"]}}}}}}
    tool:
      - name: moved
        kind: http
        url: "http://127.0.0.1:{port}/moved"
        spec:
          policy:
            rules:
              - else: {{then: {{do: continue, set: {{ctx.why: "{{{{ output.error.code }}}}"}}}}}}
      - {{name: end, kind: transform, value: "{{{{ [say.data, ctx.why] }}}}"}}
"""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, 1)


def test_http_in_a_locked_worker(box: Box) -> None:
    """A name is resolved and reached, a write carries its identity, a redirect elsewhere is refused."""
    answers = {
        "/rows": lambda h: h.say(200, b'[{"a": 1}, {"a": 2}]', "application/json"),
        "/say": lambda h: h.say(201, b'"heard"', "application/json"),
        "/moved": lambda h: h.say(302, b"", Location="http://localhost:1/"),
    }
    with serving(answers) as server:
        try:
            box.start("runtime")
            box.register(PLAYBOOK.format(port=server.port))
            answer = box.run("h")
        finally:
            box.down()
    assert answer.get("error") is None, answer
    assert answer["result"] == ["heard", "access_denied"]
    method, _, headers, body = server.seen[1]
    assert (method, body) == ("POST", b'{"rows":2}')
    assert headers["Idempotency-Key"].startswith(f"{answer['execution_id']}/say/")
