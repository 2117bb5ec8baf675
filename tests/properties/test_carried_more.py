"""Pruning at random places of random lives: what is carried and what is left say what the whole log said."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.core.errors import RequestRefused
from edge.core.limits import KIB
from edge.core.state import Execution, fold
from edge.runtime.retention.terms import Terms
from edge.testing.box import Box
from edge.testing.plain import playbook
from tests.unit.retention_rig import again, check_whole, prune_all
from tests.unit.subscription_rig import ONE, subscription

#: Waits in a loop and in a pipeline, a task on the way, a branch; ends by time or by a callback's deadline.
LONG: Final[list[dict[str, Any]]] = [
    {
        "step": "first",
        "spec": {"effect": "write", "on_unknown": "retry"},
        "input": {"n": "{{ workload.n }}"},
        "tool": {"kind": "python", "code": "result = n"},
        "next": {"spec": {"mode": "inclusive"}, "arcs": [{"step": "many"}, {"step": "beside"}]},
    },
    {
        "step": "many",
        "loop": {"in": "{{ [30, 600, 6000] }}", "iterator": "t", "spec": {"mode": "parallel"}},
        "tool": {"name": "pause", "kind": "wait", "seconds": "{{ iter.t }}"},
        "next": [{"step": "last"}],
    },
    {"step": "beside", "tool": {"kind": "transform", "value": "{{ workload.n + 1 }}"}},
    {"step": "last", "tool": {"kind": "transform", "value": "{{ workload.n }}"}},
]
SHORT: Final[list[dict[str, Any]]] = [
    {"step": "a", "tool": {"kind": "transform", "value": "{{ workload.n }}"}}
]
PARENT: Final[list[dict[str, Any]]] = [
    {"step": "p", "tool": {"kind": "playbook", "path": "long", "input": {"n": 4}}}
]

OPERATIONS: Final = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(["long", "short", "parent"]), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.sampled_from([1, 40, 700, 7_000, 200_000]), st.just(0)),
    st.tuples(st.just("message"), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("deliver"), st.just(0), st.just(0)),
    st.tuples(st.just("pause"), st.just(0), st.just(0)),
    st.tuples(st.just("prune"), st.sampled_from(["oldest", "thin"]), st.just(0)),
    st.tuples(st.just("restart"), st.booleans(), st.just(0)),
)


class Life:
    """One box over all its restarts, and what it must still know."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.lives = 0
        #: What was asked under a request id: payload and what it came to.
        self.asked: dict[str, tuple[str, bytes, int]] = {}

    def _open(self) -> dict[int, Execution]:
        executor = self.box.engine.executor
        numbers = [*executor.open, *executor.parking.numbers()]
        return {number: fold(self.box.engine.events_of(number)) for number in numbers}

    def _known(self) -> dict[str, Any]:
        """All that a restart takes from the log."""
        box = self.box
        return {
            "open": self._open(),
            "owed": sorted(box.engine.owed),
            "catalog": [blueprint.digest for blueprint in box.engine.catalog.playbooks()],
            "subscriptions": [
                (i.number, i.state, i.lanes.backlog, i.lanes.position(), dict(i.counts), sorted(i.executions))
                for i in box.subscriptions.all()
            ],
        }

    async def play(self, kind: str, what: Any, number: int) -> None:
        box = self.box
        if kind == "submit":
            self._submit(what, number)
        elif kind == "pass":
            await box.pass_time(what)
        elif kind == "message":
            box.message(box.subscriptions.find("in/s").number, "a/x", b"%d" % what, packet=what + 1)
        elif kind == "deliver":
            for owed in list(box.engine.owed)[:2]:
                box.engine.delivered(owed)
        elif kind == "pause":
            intake = box.subscriptions.find("in/s")
            change = box.subscriptions.resume if intake.state == "paused" else box.subscriptions.pause
            change(intake, "test", lambda state: None)
        elif kind == "prune":
            before = self._known()
            await prune_all(box, Terms(), what)
            assert self._known() == before
            self._check_files(before["open"])
        else:
            await box.settle()
            before = self._known()
            self.lives += 1
            self.box = await again(box, self.folder / str(self.lives), with_index=what)
            shutil.rmtree(box.folder)
            after = self._known()
            # What was delivered since it was noted last is sent again.
            assert set(after.pop("owed")) >= set(before.pop("owed"))
            assert after == before
        await self.box.settle()
        if kind == "submit" and self.box.receipts:
            self._note(self.box.receipts[-1].seq)

    def _submit(self, path: str, number: int) -> None:
        request_id = f"r{number}" if number else None
        payload = b'{"n": %d}' % number
        if request_id in self.asked and self.asked[request_id][0] != path:
            return
        self.box.submit(path, payload, request_id=request_id)
        if request_id is not None:
            self.asked.setdefault(request_id, (path, payload, 0))

    def _note(self, seq: int) -> None:
        request = self.box.engine.state_of(seq).request
        if request.request_id in self.asked:
            path, payload, known = self.asked[request.request_id]
            assert known in (0, seq), "a request id was given twice inside its window"
            self.asked[request.request_id] = path, payload, seq

    def _check_files(self, known: dict[int, Execution]) -> None:
        """The journal's files alone fold to the same."""
        events = self.box.events()
        for number, state in known.items():
            assert fold(event for event in events if event.execution == number) == state


async def live(folder: Path, operations: list[tuple[str, Any, int]]) -> None:
    box = Box(folder / "0", segment_bytes=64 * KIB)
    for steps, path in ((LONG, "long"), (SHORT, "short"), (PARENT, "parent")):
        await box.register(playbook(steps, path, workload={"n": 0}))
    await box.register(ONE)
    await box.subscribe(subscription())
    life = Life(box, folder)
    for kind, what, number in operations:
        await life.play(kind, what, number)
    for request_id, (path, payload, seq) in life.asked.items():
        if seq:
            life.box.submit(path, payload, request_id=request_id)
            await life.box.settle()
            assert life.box.receipts[-1].seq == seq
            assert life.box.receipts[-1].duplicate
    await check_whole(life.box)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPERATIONS, min_size=4, max_size=24))
def test_pruning_changes_nothing_that_is_needed(operations: list[tuple[str, Any, int]]) -> None:
    """Open executions, owed answers, catalog, subscriptions and remembered requests are what they were."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder), operations), debug=False)


def test_an_unknown_execution_is_not_called_pruned(tmp_path: Path) -> None:
    """What never was is told apart from what was pruned."""

    async def ask() -> list[str]:
        box = Box(tmp_path)
        await box.register(playbook(SHORT, "short"))
        await prune_all(box)
        codes = []
        for number in (1, 10**6):
            try:
                box.engine.events_of(number)
            except RequestRefused as error:
                codes.append(error.problem_code)
        await box.close()
        return codes

    assert asyncio.run(ask()) == ["execution_pruned", "execution_unknown"]
