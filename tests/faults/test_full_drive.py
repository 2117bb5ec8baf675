"""The drive fills up at every size: what was told stays, the writer ends by name, and goes on when there is room."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cli.client import RemoteProblem, RuntimeClient
from edge.core.limits import KIB
from edge.store.segment_file import segment_paths
from tests.faults.children import Children
from tests.faults.log_on_trial import CHECK, REFUSED, WRITE, told
from tests.process.box import Box

STEP_BYTES = 4 * KIB
SIZES = 12
SIZES_WHOLE = 120
EVENTS = 900
ROOM = "64m"
HELLO = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: hello, path: full/hello}
workflow:
  - step: hello
    tool: {kind: transform, value: {n: 1}}
"""


LARGE_BYTES = 200_000
LARGE = f"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: large, path: full/large}}
workflow:
  - step: large
    spec: {{effect: read, timeout: 20}}
    tool: {{kind: python, code: "import time; time.sleep(3); result = 'x' * {LARGE_BYTES}"}}
"""
REFUSED_MANY = 300


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as made:
        yield made


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """A drive whose size can be changed."""
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("only root may mount")
    at = tmp_path / "drive"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def resize(drive: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(drive)], check=True)


def fill_and_go_on(children: Children, drive: Path, say: Path, room_bytes: int) -> str:
    """A log that is written until the drive is full, then with room again; how the first writer ended."""
    log = drive / "log"
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir()
    say.write_text("")
    if room_bytes % (3 * STEP_BYTES) == 0:  # a log that was begun with room, and one that was not
        assert children.run(WRITE, folder=str(log), say=str(say), seed=1, events=100).code == 0
    held_bytes = sum(path.stat().st_blocks * 512 for path in log.rglob("*") if path.is_file())
    resize(drive, str(held_bytes + room_bytes))
    ended = children.run(WRITE, folder=str(log), say=str(say), seed=room_bytes, events=EVENTS)
    assert ended.code in (0, REFUSED), (room_bytes, ended)
    assert ended.code == 0 or "No space left" in ended.words or "KB left" in ended.words, ended.words
    resize(drive, ROOM)
    if segment_paths(log / "journal"):
        seen = children.run(CHECK, folder=str(log), told=told(say))
        assert seen.code == 0, (room_bytes, seen.words)
        assert not seen.value["untold"], (room_bytes, seen.value)
    assert children.run(WRITE, folder=str(log), say=str(say), seed=3, events=50).code == 0
    seen = children.run(CHECK, folder=str(log), told=told(say))
    assert (seen.code, seen.value and seen.value["untold"]) == (0, 0), (room_bytes, seen)
    return "refused" if ended.code else "had room"


def test_a_drive_that_fills_up(children: Children, drive: Path, tmp_path: Path) -> None:
    """At some sizes, from no room at all: a refusal by name, nothing lost, and on when there is room."""
    ends = Counter(
        fill_and_go_on(children, drive, tmp_path / "say", STEP_BYTES * 9 * number) for number in range(SIZES)
    )
    print(dict(ends))
    assert ends["refused"] > SIZES // 2


def test_the_bed_sees_an_index_that_writes_by_its_map(
    children: Children, drive: Path, tmp_path: Path
) -> None:
    """WRITEMAP ends the process by a signal where the drive is full: the bed does not take that for a refusal."""
    say = tmp_path / "say"
    codes = []
    for number in range(1, SIZES):
        log = drive / "log"
        shutil.rmtree(log, ignore_errors=True)
        log.mkdir()
        say.write_text("")
        resize(drive, str(8 * STEP_BYTES * number + 100 * KIB))
        given = {"folder": str(log), "say": str(say), "seed": number, "planted": "WRITEMAP"}
        codes.append(children.run(WRITE, events=EVENTS, **given).code)
        resize(drive, ROOM)
    print(f"WRITEMAP: {Counter(codes)}")
    assert -signal.SIGBUS in codes


@pytest.mark.faults_full
def test_a_drive_of_every_size(children: Children, drive: Path, tmp_path: Path) -> None:
    """As above, in steps of 4 KiB."""
    ends = Counter(
        fill_and_go_on(children, drive, tmp_path / "say", STEP_BYTES * number)
        for number in range(SIZES_WHOLE)
    )
    print(f"{SIZES_WHOLE} sizes: {dict(ends)}")
    assert ends["refused"] > SIZES_WHOLE // 2


def test_a_box_on_a_drive_that_fills_up(drive: Path) -> None:
    """Below its reserve a box refuses by name and still gives recorded answers; with room it takes requests again."""
    box = Box(drive, 1, workers=1, reserve_mb=8, cache=str(drive / "data" / "cache"))
    box.start("runtime")
    try:
        box.register(HELLO)
        first = until(box, "r-1")
        ballast = drive / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(64 * KIB))
        assert until(box, "r-2", refused=True) == "storage_full"
        assert until(box, "r-1") == first
        ballast.unlink()
        assert until(box, "r-2") != first
        assert box.verify().whole
    finally:
        box.down()


@pytest.mark.parametrize("reserve_mb", [4, 16, 40])
def test_what_was_accepted_ends_on_a_full_drive(reserve_mb: int, drive: Path) -> None:
    """Somebody else fills the drive to its last byte: accepted work ends, requests are refused."""
    box = Box(drive, 1, workers=1, reserve_mb=reserve_mb, cache=str(drive.parent / "cache"))
    box.start("runtime")
    try:
        box.register(HELLO)
        box.register(LARGE)
        until_held(drive)
        with RuntimeClient(box.settings) as accepted:
            accepted.submit("full/large", b"{}", "application/json", "large")
            fill(drive)
            heard = json.loads(accepted.answer()[2])
        assert (heard["status"], len(heard["result"])) == ("completed", LARGE_BYTES)
        assert until(box, "r-1", refused=True) == "storage_full"
        for number in range(REFUSED_MANY):  # saying no costs next to nothing
            with contextlib.suppress(RemoteProblem), RuntimeClient(box.settings) as runtime:
                runtime.submit("full/hello", b"{}", "application/json", f"no-{number}")
        box.kill("runtime")
        box.start("runtime")
        assert "open" in box.status(), box.words()
        assert until(box, "r-2", refused=True) == "storage_full"
        with RuntimeClient(box.settings) as runtime:
            runtime.submit("full/large", b"{}", "application/json", "large")
            assert json.loads(runtime.answer()[2]) == heard
        (drive / "ballast").unlink()
        until(box, "r-3")
        assert box.verify().whole
        until_said(box, ["storage.refusing", "storage.serving"])
        assert box.processes["runtime"].poll() is None
    finally:
        box.down()


def until_said(box: Box, types: list[str]) -> None:
    """Wait until the log says that requests were refused, and that they are taken again."""
    deadline_s = time.monotonic() + 30
    while [each for each in (event.type for event in box.events()) if each in types][-2:] != types:
        assert time.monotonic() < deadline_s, [event.type for event in box.events()][-20:]
        time.sleep(0.2)  # polls what is looked at every five seconds


def until_held(drive: Path) -> None:
    """Wait until the box holds its reserve."""
    deadline_s = time.monotonic() + 30
    while not (drive / "data" / "reserve").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)  # polls what is done a moment after the start


def fill(drive: Path) -> None:
    """Take every byte that is left."""
    with (drive / "ballast").open("wb", buffering=0) as file:
        for size_bytes in (1024 * KIB, 4 * KIB):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size_bytes))


def until(box: Box, request_id: str, *, refused: bool = False) -> str:
    """Ask until that is what comes: an execution's id, or a refusal's code."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            with RuntimeClient(box.settings) as runtime:
                heard = runtime.submit("full/hello", b"{}", "application/json", request_id)
                runtime.answer()
            was_refused = False
        except RemoteProblem as problem:
            heard, was_refused = problem.problem_code, True
        if was_refused == refused:
            return heard
        assert time.monotonic() < deadline_s, heard
        request_id += "'" if refused else ""
        time.sleep(0.2)  # polls what is looked up once a second
