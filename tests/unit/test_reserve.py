"""The reserve: room that is held without being written, and given when the drive is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.core.limits import MIB
from edge.store import reserve
from edge.store.reserve import FILE_NAME, Reserve

SIZE_BYTES = 8 * MIB


class Drive:
    """What the drive says is free."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def look(self, _: object) -> os.statvfs_result:
        blocks = self.free_bytes // 4096
        return os.statvfs_result((4096, 4096, 10**6, blocks, blocks, 10**6, 10**6, 10**6, 0, 255))


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    made = Drive(10**9)
    monkeypatch.setattr(reserve.os, "statvfs", made.look)
    return made


@pytest.fixture
def held(tmp_path: Path) -> Reserve:
    index = tmp_path / "data.mdb"
    index.write_bytes(b"x" * 4096)
    made = Reserve(tmp_path, index, SIZE_BYTES)
    try:
        with (tmp_path / "try").open("wb") as file:
            reserve.allocate(file.fileno(), 0, 4096)
    except OSError:
        pytest.skip("this file system allocates nothing ahead")
    return made


def test_it_is_held_without_being_written(held: Reserve, drive: Drive, tmp_path: Path) -> None:
    """Half lies in a file of its own, half behind the index, which keeps its length and its bytes."""
    assert held.held_bytes == 0
    held.hold()
    assert held.held_bytes == SIZE_BYTES
    assert (tmp_path / FILE_NAME).stat().st_size == SIZE_BYTES // 2
    assert (tmp_path / "data.mdb").read_bytes() == b"x" * 4096
    held.hold()
    assert held.held_bytes == SIZE_BYTES


def test_it_is_given_only_where_the_drive_is_full(held: Reserve, drive: Drive, tmp_path: Path) -> None:
    """A drive that refuses for another reason gets nothing; a full one gets some at a time, until none is left."""
    held.hold()
    assert not held.give(1_000)
    drive.free_bytes = 0
    assert held.give(1_000)
    assert (tmp_path / FILE_NAME).stat().st_size == 0
    assert not held.give(1_000)
    assert held.held_bytes == SIZE_BYTES // 2  # what is behind the index is the index's alone
    held.hold()
    assert held.held_bytes == SIZE_BYTES // 2
    drive.free_bytes = 10**9
    held.hold()
    assert held.held_bytes == SIZE_BYTES


def test_a_drive_without_room_to_spare_is_left_alone(held: Reserve, drive: Drive) -> None:
    """Nothing is taken from a drive that would be full by it."""
    drive.free_bytes = SIZE_BYTES
    held.hold()
    assert held.held_bytes == 0
