"""SQL in a real worker: locked in, bound, beside numpy that stays out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.box import Box

pytestmark = pytest.mark.sandbox

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: q, path: q}
workflow:
  - step: make
    tool:
      kind: python
      code: |
        import pyarrow as pa
        result = pa.table({"device": ["a", "b"] * 5000, "n": list(range(10000))})
    next: ask
  - step: ask
    input: {made: "{{ make }}"}
    tool:
      kind: sql
      output: rows
      query: SELECT device, sum(n) AS n FROM made GROUP BY device ORDER BY device
    next: [{step: again}]
  - step: again
    input: {made: "{{ make }}", rows: "{{ ask }}"}
    spec: {effect: pure}
    tool: {kind: sql, output: row, query: "SELECT count(*) AS n, (SELECT sum(n) FROM rows) AS s FROM made"}
    next: small
  - step: small
    input: {was: "{{ again }}"}
    tool:
      - {name: full, kind: sql, query: "SELECT list(range) FROM range(100000000)",
         spec: {policy: {rules: [{else: {then: {do: continue, set: {ctx.why: "{{ output.error.code }}"}}}}]}}}
      - {name: last, kind: transform, value: "{{ [was, ctx.why] }}"}
"""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, 1)


def test_sql_runs_in_a_locked_worker(box: Box) -> None:
    """Tables of the cache go in, rows come out, and an engine out of memory is told, in a worker that is shut."""
    try:
        box.start("runtime")
        box.register(PLAYBOOK)
        answer = box.run("q")
    finally:
        box.down()
    assert answer.get("error") is None, answer
    assert answer["result"] == [{"n": 10000, "s": 49995000}, "memory_exceeded"]
