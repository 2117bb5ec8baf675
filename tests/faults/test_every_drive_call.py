"""Every call that changes a file, once: killed there, refused there; then the same request again, and one answer."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.cli.client import RemoteProblem, RuntimeClient
from edge.core.errors import Unavailable
from edge.core.events import CatalogRegistered, Event, ExecutionFinished, ExecutionRequested
from edge.store.journal import read_groups
from playbooks.compile import compile_playbook
from tests.faults.drive_calls import Counter, Fault, build
from tests.process.box import Box

THREE_STEPS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: three, path: faults/three}
workflow:
  - step: wide
    spec: {effect: read}
    input: {n: "{{ n }}", pad: "{{ pad }}"}
    tool: {kind: python, code: "result = {'n': n * 2, 'pad': pad * 2}"}
    next: [{step: length}]
  - step: length
    input: {n: "{{ wide.n }}", pad: "{{ wide.pad }}"}
    tool: {kind: python, code: "result = {'n': n + len(pad)}"}
    next: [{step: last}]
  - step: last
    tool: {kind: transform, value: {n: "{{ length.n + 1 }}"}}
"""
BLUEPRINT = compile_playbook(THREE_STEPS.encode(), "three.yaml").data
#: Larger than what an event holds, so that a blob is written, and a block of the cache.
PAD = "x" * 70_000
GIVEN = json.dumps({"n": 20, "pad": PAD}).encode()
RESULT = {"n": 2 * 20 + 2 * len(PAD) + 1}
REQUEST_ID = "r-1"
PATIENCE_S = 60.0
#: Filling a journal's file with zeros is the same call 32 times: the first, some between and the last are enough.
SAME_CALL_STEP = 8
#: Ways to strike every call: what is refused for good is broken and full by turns, since both go one way.
WALKS = ["before", "after", "once", "for good"]
SLICES = 4


@dataclass(slots=True)
class Heard:
    """What a client was told, over all that it asked."""

    accepted: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    registered: bool = False


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def calls(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of one run without a fault."""
    trial = Trial(library, tmp_path_factory.mktemp("count"), None)
    trial.run()
    names = trial.counter.names()
    assert {"pwrite", "writev", "fdatasync", "rename", "openat64"} <= {name.split()[0] for name in names}
    assert any("/blobs/" in name for name in names)
    return names


class Trial:
    """One fresh box, one request, one fault."""

    def __init__(self, library: Path, folder: Path, fault: Fault | None) -> None:
        self.fault = fault
        self.box = Box(folder, 1, workers=1, cache=str(folder / "data" / "cache"), reserve_mb=1)
        self.counter = Counter(library, self.box.data, folder / "state")
        self.heard = Heard()

    def run(self) -> None:
        """Ask under the fault until answered or dead; then without it; check all that was promised."""
        try:
            self.box.environment = self.counter.environment(self.fault)
            self.box.start("runtime")
            self._ask()
            self._end(self.fault)
            before = self._events()
            self.box.environment = {}
            self.box.start("runtime")
            self._ask()
            assert self.heard.answers, "the box does not come back"
            self._end(None)
            self._check(before)
        finally:
            self.box.down()

    def _ask(self) -> None:
        """Ask until there is an answer or the runtime is gone."""
        process = self.box.processes["runtime"]
        deadline_s = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            assert time.monotonic() < deadline_s, "neither an answer nor an end"
            try:
                with RuntimeClient(self.box.settings, PATIENCE_S) as runtime:
                    runtime.call("register", blueprint=BLUEPRINT)
                    self.heard.registered = True
                    identity = runtime.submit("faults/three", GIVEN, "application/json", REQUEST_ID)
                    self.heard.accepted.append(identity)
                    self.heard.answers.append(json.loads(runtime.answer()[2]))
                    return
            except RemoteProblem as problem:
                self.heard.refusals.append(problem.problem_code)
                time.sleep(0.1)
            except Unavailable:
                time.sleep(0.02)  # polls a process that has no way to say when it listens

    def _end(self, fault: Fault | None) -> None:
        """Stop what still runs; however it ended, that was one of the ends it is designed to have."""
        process = self.box.processes.pop("runtime")
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)
        words = self.box.words()
        assert "Traceback" not in words, words
        if code == -signal.SIGKILL:
            assert fault is not None
            assert fault.kills
        elif code != 0:
            assert fault is not None, words
            assert code in (1, 2), (code, words)
            assert "CRITICAL" in words.splitlines()[-1], words

    def _events(self) -> list[Event]:
        return [e for _, group, _ in read_groups(self.box.settings.journal_folder) for e in group.events()]

    def _check(self, before: list[Event]) -> None:
        report = self.box.verify()
        assert report.whole, report.problems
        events = self._events()
        assert events[: len(before)] == before, "an event that was there is gone or changed"
        bodies = [event.body for event in events]
        requests = [e for e in events if isinstance(e.body, ExecutionRequested)]
        assert [e.body.request_id for e in requests] == [REQUEST_ID]  # type: ignore[union-attr]
        assert sum(isinstance(body, ExecutionFinished) for body in bodies) == 1
        assert sum(isinstance(body, CatalogRegistered) for body in bodies) == 1
        identity = f"{report.log_id.hex()}-{requests[0].seq}"
        assert set(self.heard.accepted) == {identity}
        assert not self.heard.refusals
        first = self.heard.answers[0]
        assert all(answer == first for answer in self.heard.answers)
        if first["status"] == "completed":
            assert first["result"] == RESULT
        else:
            assert first["error"]["code"] in ("cache_full", "cache_unusable", "worker_lost"), first


def places(calls: list[str]) -> Iterator[int]:
    """The calls worth a fault of their own."""
    same = 0
    for place, name in enumerate(calls, 1):
        same = same + 1 if place > 1 and calls[place - 2] == name else 0
        follows_same = place < len(calls) and calls[place] == name
        if not (same and follows_same) or same % SAME_CALL_STEP == 0:
            yield place


def strike(library: Path, tmp_path: Path, faults: list[Fault]) -> None:
    """One trial for each fault; all that went wrong is told together."""
    wrong = []
    for number, fault in enumerate(faults):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = Trial(library, folder, fault)
        try:
            trial.run()
        except (AssertionError, subprocess.TimeoutExpired, RemoteProblem) as error:
            names = trial.counter.names()
            name = names[fault.place - 1] if fault.place <= len(names) else "beyond the last"
            wrong.append(f"{fault} ({name}): {error}\n{trial.heard}")
    print(f"{len(faults)} faults, {len(wrong)} went wrong")
    assert not wrong, "\n\n".join(wrong)


def test_a_sample_of_all_calls(library: Path, calls: list[str], tmp_path: Path) -> None:
    """A fault now and then: what was accepted is there, the log is whole, the request is in it once."""
    # Another part of the walk each time would be a test that fails now and then; this one is the same each time.
    every = list(places(calls))
    chosen = [every[len(every) * number // 7] for number in range(1, 7)]
    strike(
        library,
        tmp_path,
        [fault_of(WALKS[number % len(WALKS)], place) for number, place in enumerate(chosen)],
    )


def fault_of(walk: str, place: int) -> Fault:
    """What a walk does at one call."""
    if walk == "for good":
        return Fault("EIO" if place % 2 else "ENOSPC", place, lasting=True)
    return Fault("EIO" if walk == "once" else walk, place)


@pytest.mark.faults_full
@pytest.mark.parametrize("slice_number", range(SLICES))
@pytest.mark.parametrize("walk", WALKS)
def test_every_call(walk: str, slice_number: int, library: Path, calls: list[str], tmp_path: Path) -> None:
    """Killed before, killed after, refused at each call: nothing accepted is lost, nothing is answered twice."""
    chosen = list(places(calls))[slice_number::SLICES]
    strike(library, tmp_path, [fault_of(walk, place) for place in chosen])
