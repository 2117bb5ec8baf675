"""Executions run again: all blocks come out as recorded, and a planted change is found where it was planted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import decode, encode
from edge.core.events import Event, ExecutionFinished, LoopItems, StepDone, TaskDone
from edge.replay import difference
from edge.replay.journal_source import JournalSource
from edge.replay.pinned import Pinned
from edge.replay.reconstruct import events_of, histories
from edge.replay.rerun import Rerun, rerun
from edge.replay.sandbox import Sandbox
from tests.process.box import PLUS_ONE, Box

RECORDED = (Path(__file__).parent / "recorded.yaml").read_text()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that ran the playbook five times and was killed in between."""
    made = Box(tmp_path_factory.mktemp("recorded"), 1)
    made.start("runtime")
    made.register(PLUS_ONE)
    made.register(RECORDED)
    for n in range(4):
        assert made.run("recorded", {"n": n})["status"] == "completed"
        if n == 1:
            made.kill("runtime")
            made.start("runtime")
            made.status()
    made.down()
    yield made
    made.down()


class Again:
    """The box's log, and a sandbox to run it again in."""

    def __init__(self, box: Box) -> None:
        self.source, self.pinned = JournalSource(box.settings), Pinned()
        events = list(events_of(self.source))
        for event in events:
            self.pinned.meet(event)
        self.histories = list(histories(events))
        self.sandbox = Sandbox(self.pinned.hash_seed)

    def run(self, history: list[Event], **more: Any) -> Rerun:
        digest = history[0].body.digest  # type: ignore[attr-defined]
        return rerun(self.sandbox, self.source, self.pinned.blueprint(digest), history, **more)

    @property
    def history(self) -> list[Event]:
        """The longest one."""
        return max(self.histories, key=len)


@pytest.fixture(scope="module")
def again(box: Box) -> Iterator[Again]:
    made = Again(box)
    yield made
    made.sandbox.close()


def planted(history: list[Event], at: Event, body: Any) -> list[Event]:
    return [replace(event, body=body) if event is at else event for event in history]


def done(history: list[Event], step: str) -> tuple[Event, Any]:
    """The outcome of a step."""
    found = next(each for each in history if each.step == step and type(each.body) is StepDone)
    return found, found.body


def test_all_comes_out_as_recorded(again: Again) -> None:
    """Pipelines, retries, loops, tables, branches, failures, children, a crash: every state is the recorded one."""
    made = [again.run(history) for history in again.histories]
    assert [each.differences for each in made] == [()] * len(made)
    assert all(each.same and each.digest == each.recorded for each in made)
    longest = again.run(again.history)
    assert (longest.blocks >= 12, longest.taken >= 6) == (True, True)


@pytest.mark.parametrize("step", ["ask", "pure", "sum", "end"])
def test_a_changed_output_is_found_where_it_is(again: Again, step: str) -> None:
    """A block that gives another output than is recorded is named with its event, and nothing after it is."""
    history = again.history
    event, body = done(history, step)
    other = encode({"x": 1, "xs": [1.0], "sum": 0, "pad": "", "b": 0})
    changed = replace(body, value=other) if body.digest is None else replace(body, digest=bytes(32))
    made = again.run(planted(history, event, changed))
    assert not made.same
    first = made.differences[0]
    assert (first.seq, first.kind, first.step, first.what) == (event.seq, difference.PURE, step, "output")
    assert first.was != first.now
    if body.value is not None:
        assert first.now == {"value": decode(body.value)}


def test_a_changed_item_is_found(again: Again) -> None:
    """Of a loop the item is named."""
    history = again.history
    event = next(each for each in history if each.step == "each" and type(each.body) is LoopItems)
    body: Any = event.body
    made = again.run(planted(history, event, replace(body, results=encode([7] * body.count))))
    first = made.differences[0]
    assert (first.seq, first.step, first.item, first.was) == (event.seq, "each", body.first, {"value": 7})


def test_a_changed_decision_is_found(again: Again) -> None:
    """An arc that is not taken now, and what `set` writes: named at the outcome that they followed."""
    history = again.history
    event, body = done(history, "ask")
    made = again.run(planted(history, event, replace(body, ctx={"seen": 0})))
    assert [(each.seq, each.kind) for each in made.differences[:1]] == [(event.seq, difference.DECISION)]
    end = history[-1]
    assert isinstance(end.body, ExecutionFinished)
    other = again.run(planted(history, end, replace(end.body, result_step="ask")))
    assert [(each.seq, each.what) for each in other.differences] == [(end.seq, "the end")]


def test_effects_are_never_run(again: Again) -> None:
    """One whose outcome is not in the record is named and not run; one that nothing asks for is missed."""
    history = again.history
    first = next(each for each in history if each.step == "again" and type(each.body) is TaskDone)
    without = [each for each in history if each is not first]
    made = again.run(without)
    assert made.differences[0].step == "again"
    assert made.differences[0].kind in (difference.EXTRA, difference.ABSENT)
    asked = next(each for each in history if each.step == "ask" and type(each.body) is TaskDone)
    body: Any = asked.body
    strayed = again.run(planted(history, asked, replace(body, task="other")))
    assert strayed.differences[0].kind == difference.ABSENT


def test_numbers_within_a_tolerance_are_a_class_of_their_own(again: Again) -> None:
    """A last bit that differs is a change; with a tolerance it is within it, and still not the same."""
    history = again.history
    event, body = done(history, "end")
    value = decode(body.value)
    near = planted(history, event, replace(body, value=encode({**value, "b": value["b"] * (1 + 1e-12)})))
    assert again.run(near).differences[0].kind == difference.PURE
    made = again.run(near, tolerance=1e-9)
    assert [each.kind for each in made.differences] == [difference.WITHIN]
    assert not made.same


WAVERS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: wavers, path: wavers}
workflow:
  - step: end
    spec: {effect: pure}
    tool:
      kind: python
      code: |
        import threading
        def work():  # in steps: `sum` over a range would let no other thread in
            for _ in range(500_000):
                pass
        turns, other = 0, threading.Thread(target=work)
        other.start()
        while other.is_alive():
            turns += 1
        result = {'turns': turns}
"""


def test_what_differs_from_run_to_run_is_no_change(tmp_path: Path) -> None:
    """A block that counts while a thread works gives another output each time: no change of it is claimed."""
    box = Box(tmp_path, 1)
    box.start("runtime")
    box.register(WAVERS)
    box.run("wavers", {})
    box.down()
    again = Again(box)
    try:
        first = again.run(again.history).differences[0]
    finally:
        again.sandbox.close()
    assert (first.kind, first.step) == (difference.VARIES, "end")
    assert first.was != first.now


def test_an_end_that_is_not_there_is_labelled(again: Again) -> None:
    """A log that was cut tells so; what there is of it is the same."""
    made = again.run(again.history[:-3])
    assert [each.kind for each in made.differences] == [difference.TAIL]
    assert made.same


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    """Its folder in memory goes; that of one that is alive stays."""
    code = (
        "import sys, time\nfrom edge.replay.sandbox import Sandbox\n"
        "with Sandbox() as made:\n    print(made.folder, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        with Sandbox():
            assert folder.is_dir()
        other.kill()
        other.wait()
    assert folder.is_dir()
    with Sandbox():
        assert not folder.exists()


def test_the_command(box: Box) -> None:
    """One execution, all of them, and all by two processes: the same digest, which is the log's."""
    whole = box.edge("replay", "--all").stdout.splitlines()[-1]
    for words in (("--all",), ("--all", "--jobs", "2")):
        said = box.edge("replay", "--rerun", *words).stdout
        assert whole in said
        assert "same       as recorded" in said
    number = next(event.seq for event in box.events() if event.type == "playbook.execution.requested")
    assert "same       as recorded" in box.edge("replay", "--rerun", str(number)).stdout
