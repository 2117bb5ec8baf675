"""The log's homes on drives of their own: journal on one, index on another, cache on a third."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.box import PLUS_ONE, Box


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[Path]]:
    """Folders that a test mounts memory on, unmounted afterwards."""
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("only root may mount")
    mounted: list[Path] = []
    yield mounted
    for at in reversed(mounted):
        subprocess.run(["umount", "-l", str(at)], check=True)


def mount(mounts: list[Path], at: Path) -> None:
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(at)], check=True)
    mounts.append(at)


@pytest.fixture
def box(tmp_path: Path, mounts: list[Path]) -> Iterator[Box]:
    mount(mounts, tmp_path / "one")
    made = Box(tmp_path / "one", 1, workers=1, cache=str(tmp_path / "three" / "cache"), reserve_mb=8)
    mount(mounts, made.settings.index_folder)
    mount(mounts, tmp_path / "three")
    drives = {path.stat().st_dev for path in (made.data, made.settings.index_folder, tmp_path / "three")}
    assert len(drives) == 3
    made.start("runtime")
    made.register(PLUS_ONE)
    for n in range(10):
        assert made.run("p", {"n": n})["result"] == n + 1
    yield made
    made.down()


def test_a_box_on_three_drives_survives_a_kill(box: Box) -> None:
    """Killed, started again: the log is whole, both homes agree, requests are answered."""
    box.kill("runtime", 9)
    box.start("runtime")
    box.status()
    assert box.run("p", {"n": 41})["result"] == 42
    box.kill("runtime", 15)
    report = box.verify()
    assert (report.problems, report.index_last_seq) == ([], report.last_seq)
    assert len(box.edge("doctor", check=None).stdout.split("free for")) > 2


def test_an_index_whose_drive_is_gone_is_made_anew(box: Box, mounts: list[Path]) -> None:
    """The journal's drive is enough: a start without the other one makes the index again from the journal."""
    box.kill("runtime", 15)
    events = box.verify().events
    index = box.settings.index_folder
    subprocess.run(["umount", str(index)], check=True)
    mounts.remove(index)
    assert not list(index.iterdir())
    box.start("runtime")
    box.status()
    assert box.run("p", {"n": 1})["result"] == 2
    box.kill("runtime", 15)
    report = box.verify()
    assert (report.problems, report.index_last_seq) == ([], report.last_seq)
    assert report.events > events
