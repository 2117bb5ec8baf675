"""A table that author code made is opened only in a process of the same playbook."""

from __future__ import annotations

from tests.process.box import Box

AUTHOR = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: author, path: table/author}
workflow:
  - step: make
    tool:
      kind: python
      libs: {pa: pyarrow}
      code: |
        result = pa.table({"n": [1, 2, 3]})
    next: [{step: sum, when: "{{ make.rows == 3 }}"}]
  - step: sum
    tool:
      kind: arrow
      table: "{{ make }}"
      ops: [{aggregate: {values: {total: "{{ n | sum }}"}}}]
      output: row
"""
PLAIN = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: plain, path: table/plain}
workflow:
  - step: one
    tool: {kind: transform, value: {n: 1}}
"""


def test_a_table_of_author_code_stays_with_its_playbook(quiet_box: Box) -> None:
    """An arrow step over a table that a python step returned works, in a process bound to that playbook."""
    quiet_box.register(AUTHOR)
    quiet_box.register(PLAIN)
    assert quiet_box.run("table/plain")["result"] == {"n": 1}
    assert quiet_box.run("table/author")["result"] == {"total": 6}
    assert quiet_box.run("table/plain")["result"] == {"n": 1}
    assert quiet_box.verify().whole
