"""The Arrow cache may vanish at any moment: what is needed is made again, and says the same."""

from __future__ import annotations

import json
import shutil
import threading
import time
from typing import Any

import pyarrow as pa

from edge.cli.client import RuntimeClient
from edge.core.events import StepDone
from edge.store.arrow_stream import stream_from_table
from tests.process.box import Box

ARROW = "application/vnd.apache.arrow.stream"
#: A table goes through the cache, then a slow block gives time to take it away, then it is read again.
TABLES = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: tables, path: cache/tables}
workload: {naps: 0}
workflow:
  - step: keep
    tool:
      kind: arrow
      table: "{{ workload.table }}"
      ops: [{filter: "{{ t >= 10 }}"}]
    next: [{step: nap, when: "{{ keep.rows > 0 }}"}]
  - step: nap
    spec: {timeout: 20s}
    tool:
      kind: python
      code: |
        import time
        time.sleep(1.0)
        result = {"slept": True}
    next: [{step: sum, when: "{{ nap.slept }}"}]
  - step: sum
    tool:
      kind: arrow
      table: "{{ keep }}"
      ops: [{aggregate: {values: {n: "{{ t | count }}", total: "{{ t | sum }}"}}}]
      output: row
"""


def ask(box: Box, into: list[Any]) -> None:
    """One execution on a table, its answer put into the list."""
    table = pa.table({"t": [float(n) for n in range(64)]})
    with RuntimeClient(box.settings, 60) as runtime:
        runtime.submit("cache/tables", stream_from_table(table), ARROW, None)
        into.append(json.loads(runtime.answer()[2]))


def wait_for_step(box: Box, step: str) -> None:
    """Return once a step's outcome is in the journal."""
    while not any(event.step == step for event in box.events()):
        time.sleep(0.01)  # polls a process that nobody asked to say so


def test_the_folder_may_be_deleted_while_running(quiet_box: Box) -> None:
    """The whole cache folder is removed under an execution: it finishes, and with the same result."""
    quiet_box.register(TABLES)
    answers: list[Any] = []
    ask(quiet_box, answers)
    asking = threading.Thread(target=ask, args=(quiet_box, answers))
    before = len(quiet_box.events())
    asking.start()
    while not any(event.step == "keep" for event in quiet_box.events()[before:]):
        time.sleep(0.005)  # polls a process that nobody asked to say so
    shutil.rmtree(quiet_box.settings.cache_folder)
    asking.join(60)
    assert [answer.get("result") for answer in answers] == [{"n": 54, "total": 1971.0}] * 2, answers
    assert quiet_box.ask("cache")["missed"] > 0
    ask(quiet_box, answers)
    assert answers[2]["result"] == answers[0]["result"]
    done = [
        event for event in quiet_box.events() if event.step == "keep" and isinstance(event.body, StepDone)
    ]
    assert len(done) == 3, "a block made again is no second outcome"
    assert quiet_box.verify().whole


def test_a_file_in_place_of_the_folder_is_named(quiet_box: Box) -> None:
    """With a file where the cache was, requests fail and say so; once it is gone they are answered as before."""
    quiet_box.register(TABLES)
    folder = quiet_box.settings.cache_folder
    answers: list[Any] = []
    ask(quiet_box, answers)
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    ask(quiet_box, answers)
    assert answers[1]["error"]["code"] == "cache_unusable", answers[1]
    folder.unlink()
    ask(quiet_box, answers)
    assert answers[2].get("result") == answers[0]["result"], answers[2]


def test_a_damaged_block_is_noticed_and_made_again(quiet_box: Box) -> None:
    """A bit flipped in a block is not read: its digest is wrong, and the step behind it runs again."""
    quiet_box.register(TABLES)
    answers: list[Any] = []
    asking = threading.Thread(target=ask, args=(quiet_box, answers))
    asking.start()
    wait_for_step(quiet_box, "keep")
    blocks = list(quiet_box.settings.cache_folder.rglob("*-keep-*.arrow"))
    assert len(blocks) == 1
    data = bytearray(blocks[0].read_bytes())
    data[-20] ^= 1
    blocks[0].write_bytes(bytes(data))
    asking.join(60)
    assert answers[0]["result"] == {"n": 54, "total": 1971.0}, answers


def test_a_damaged_stream_from_outside_fails_its_step_only(quiet_box: Box) -> None:
    """A request's Arrow stream that is broken is refused by the worker that opens it, with a clear problem."""
    quiet_box.register(TABLES)
    data = bytearray(stream_from_table(pa.table({"t": [1.0, 2.0]})))
    for payload in (b"not arrow at all", bytes(data[: len(data) // 2])):
        with RuntimeClient(quiet_box.settings, 60) as runtime:
            runtime.submit("cache/tables", payload, ARROW, None)
            answer = json.loads(runtime.answer()[2])
        assert answer["status"] == "failed", answer
        assert answer["error"]["code"] == "payload_invalid", answer
    answers: list[Any] = []
    ask(quiet_box, answers)
    assert answers[0]["status"] == "completed"


def test_a_budget_too_small_evicts_and_goes_on(tmp_path: Any) -> None:
    """With room for almost nothing, blocks are evicted and made again; results stay right."""
    box = Box(tmp_path, 1, cache_mb=1)
    try:
        box.start("runtime")
        box.register(TABLES.replace("time.sleep(1.0)", "time.sleep(0.2)"))
        answers: list[Any] = []
        table = pa.table({"t": [float(n) for n in range(50_000)]})
        threads = [threading.Thread(target=ask_with, args=(box, table, answers)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert [answer.get("result", answer) for answer in answers] == [
            {"n": 49_990, "total": 1249974955.0}
        ] * 6
        stat = box.ask("cache")
        assert stat["evicted"] > 0
        assert stat["used_bytes"] <= stat["budget_bytes"]
    finally:
        box.down()


def ask_with(box: Box, table: pa.Table, into: list[Any]) -> None:
    """One execution on this table."""
    with RuntimeClient(box.settings, 120) as runtime:
        runtime.submit("cache/tables", stream_from_table(table), ARROW, None)
        into.append(json.loads(runtime.answer()[2]))
