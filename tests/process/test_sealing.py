"""A box with a centre seals its log as it goes, through kills of everything: each event is in one segment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.segments.sealed import open_sealed
from edge.segments.sealing import sealed_paths
from edge.store.journal import read_groups
from edge.store.key_file import read_or_make_key
from tests.process.box import PLUS_ONE, Box


@pytest.fixture
def sealing(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path, 1, centre=True)
    yield box
    box.down()


def sealed(box: Box) -> list[bytes]:
    return [
        each.stored.data
        for path in sealed_paths(box.settings.sealed_folder)
        for each in open_sealed(path.read_bytes()).groups()
    ]


def stored(box: Box) -> list[bytes]:
    return [data for _, _, data in read_groups(box.settings.journal_folder)]


def test_a_stop_in_order_seals_all(sealing: Box) -> None:
    """After SIGTERM every event is in a segment, signed with the box's own key, which nobody else may read."""
    sealing.start("runtime")
    sealing.register(PLUS_ONE)
    for n in range(20):
        assert sealing.run("p", {"n": n})["result"] == n + 1
    sealing.kill("runtime", 15)
    assert sealed(sealing) == stored(sealing)
    assert sealing.settings.log_key_path.stat().st_mode & 0o077 == 0
    assert len(read_or_make_key(sealing.settings.log_key_path, 32)) == 32


def test_kills_leave_no_event_out_and_none_twice(sealing: Box) -> None:
    """`kill -9` of the runtime between and during seals, then a stop in order: every group once, in order."""
    for round_number in range(4):
        sealing.start("runtime")
        sealing.status()
        if round_number == 0:
            sealing.register(PLUS_ONE)
        for n in range(400):
            sealing.run("p", {"n": n})
        if round_number % 2:
            wait_for_segments(sealing.settings.sealed_folder, round_number)
        sealing.kill("runtime", 9)
    sealing.start("runtime")
    sealing.status()
    sealing.kill("runtime", 15)
    assert sealed(sealing) == stored(sealing)
    numbers = [
        open_sealed(path.read_bytes()).manifest.number
        for path in sealed_paths(sealing.settings.sealed_folder)
    ]
    assert numbers == list(range(len(numbers)))


def wait_for_segments(folder: Path, count: int) -> None:
    deadline_s = time.monotonic() + 60
    while len(sealed_paths(folder)) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_what_keeps_the_log_from_being_sealed_is_said(sealing: Box) -> None:
    """`edge sync status` asks the running box, and ends with 1: nothing else would show it before the centre asks."""
    sealing.start("runtime")
    sealing.register(PLUS_ONE)
    sealing.run("p", {"n": 1})
    key = sealing.settings.log_key_path
    key.write_bytes(bytes(32))
    key.chmod(0o644)
    assert "may be read by others" in sealing.edge("sync", "push", check=None).stderr + (
        sealing.edge("bundle", "export", str(sealing.data.parent), "--same-drive", check=1).stderr
    )
    said = sealing.edge("sync", "status", check=1).stdout
    assert "wrong    the log could not be sealed: " in said
    assert f"Run chmod 600 {key}" in said
