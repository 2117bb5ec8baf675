"""Blobs: durable before they are named, checked when they are read."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from edge.core.errors import LogDamaged, StorageFailed
from edge.store.blobs import BlobStore


def test_bytes_come_back_under_their_digest(tmp_path: Path) -> None:
    """A blob is found under the SHA-256 of its bytes, after reopening too; storing it again changes nothing."""
    data = b"x" * 100_000
    digest = BlobStore(tmp_path).put(data)
    assert digest == hashlib.sha256(data).digest()
    store = BlobStore(tmp_path)
    assert store.put(data) == digest
    assert store.get(digest) == data
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [digest.hex()]


def test_a_missing_or_changed_blob_is_damage(tmp_path: Path) -> None:
    """A blob that is gone or holds other bytes is LogDamaged, named by its digest."""
    store = BlobStore(tmp_path)
    digest = store.put(b"truth")
    store.path(digest).write_bytes(b"other")
    with pytest.raises(LogDamaged, match="does not hold what was stored"):
        store.get(digest)
    store.path(digest).unlink()
    with pytest.raises(LogDamaged, match=digest.hex()[:16]):
        store.get(digest)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_drive_that_fails_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A blob that could not be made durable is StorageFailed, and no file under its name is left."""
    store = BlobStore(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageFailed, match="No space left"):
            store.put(b"data")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert store.get(store.put(b"data")) == b"data"


def test_file_and_folder_are_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's bytes are flushed before it gets its name, the folder after."""
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (order.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))[1],
    )
    monkeypatch.setattr(
        Path, "rename", lambda self, target: (order.append("rename"), rename(self, target))[1]
    )
    digest = BlobStore(tmp_path).put(b"data")
    name = digest.hex()
    assert order == [tmp_path.name, f"{name}.part", "rename", name[:2]]


def test_a_part_left_by_a_power_cut_is_written_over(tmp_path: Path) -> None:
    """A half-written file of an earlier life does not end up in the blob."""
    store = BlobStore(tmp_path)
    part = tmp_path / f"{hashlib.sha256(b'data').hexdigest()}.part"
    part.write_bytes(b"long garbage of an earlier life")
    assert store.get(store.put(b"data")) == b"data"
    assert not part.exists()


def test_parts_go_when_the_next_writer_begins(tmp_path: Path) -> None:
    """What was half written takes no room for ever; whole blobs stay, and who only reads changes nothing."""
    digest = BlobStore(tmp_path).put(b"data")
    part = tmp_path / f"{bytes(32).hex()}.part"
    part.write_bytes(b"half")
    store = BlobStore(tmp_path)
    assert part.exists()
    store.begin_life()
    assert not part.exists()
    assert store.get(digest) == b"data"


def test_a_failing_flush_of_a_known_blob_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storing a known blob again flushes its folder, and a failure there is StorageFailed as well."""
    store = BlobStore(tmp_path)
    store.put(b"data")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailed):
        store.put(b"data")


def test_blobs_are_counted_and_removed(tmp_path: Path) -> None:
    """What all of them take; removing one leaves the others, and one that is gone is no matter."""
    blobs = BlobStore(tmp_path / "blobs")
    first, second = blobs.put(b"x" * 100), blobs.put(b"y" * 50)
    assert blobs.used_bytes() == 150
    blobs.remove([first, first, b"z" * 32])
    assert blobs.used_bytes() == 50
    assert blobs.get(second) == b"y" * 50
    with pytest.raises(LogDamaged):
        blobs.get(first)


def test_a_full_drive_is_asked_for_room_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drive refuses a blob, room is asked for; with some the blob is written, without it is refused."""
    blobs = BlobStore(tmp_path / "blobs")
    asked: list[int] = []
    room = [True]
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(asked) and room[0]:
            return write(fd, data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_room(size_bytes: int) -> bool:
        asked.append(size_bytes)
        return room[0]

    blobs.make_room = make_room
    monkeypatch.setattr(os, "write", full)
    digest = blobs.put(b"x" * 100)
    assert (blobs.get(digest), asked) == (b"x" * 100, [100])
    room[0] = False
    with pytest.raises(StorageFailed, match="No space left"):
        blobs.put(b"y")
