"""The runtime's view of the cache: budget, eviction, and that everything may vanish."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from edge.core.errors import CacheMiss, Misconfigured
from edge.core.values import TableRef
from edge.store.blocks import Blocks, block_key, request_key

A, B = b"a" * 32, b"b" * 32


def files(blocks: Blocks) -> list[str]:
    return sorted(
        path.name for path in blocks.root.rglob("*") if path.is_file() and path.name != ".noetl-edge-cache"
    )


def test_what_an_earlier_runtime_left_is_emptied(tmp_path: Path) -> None:
    """Opening takes the folder over empty; closing removes it."""
    Blocks(tmp_path / "c").put(A, 7, request_key(7), b"bytes")
    blocks = Blocks(tmp_path / "c")
    assert files(blocks) == []
    assert blocks.root.stat().st_mode & 0o777 == 0o700
    blocks.close()
    assert not blocks.root.exists()


def test_bytes_from_outside_are_put_as_unvalidated(tmp_path: Path) -> None:
    """A table that came with a request gets a reference without rows and columns, and reads back."""
    blocks = Blocks(tmp_path / "c")
    ref = blocks.put(A, 7, request_key(7), b"bytes")
    assert ref == TableRef("7-.request.arrow", hashlib.sha256(b"bytes").digest(), 5, None, None)
    assert ref.outside
    assert blocks.read(A, ref) == b"bytes"


def test_the_oldest_block_goes_when_the_budget_is_spent(tmp_path: Path) -> None:
    """Blocks beyond the budget are evicted oldest first, counted, and are misses from then on."""
    blocks = Blocks(tmp_path / "c", budget_bytes=250)
    refs = [blocks.put(A, n, request_key(n), bytes([n]) * 100) for n in range(1, 4)]
    stat = blocks.stat()
    assert (stat.used_bytes, stat.blocks, stat.evicted) == (200, 2, 1)
    with pytest.raises(CacheMiss):
        blocks.read(A, refs[0])
    assert blocks.read(A, refs[2]) == bytes([3]) * 100


def test_a_block_larger_than_the_budget_stays_alone(tmp_path: Path) -> None:
    """The block just written is kept even where it alone is over the budget."""
    blocks = Blocks(tmp_path / "c", budget_bytes=10)
    blocks.put(A, 1, request_key(1), b"small")
    ref = blocks.put(A, 2, request_key(2), b"x" * 100)
    assert blocks.read(A, ref) == b"x" * 100
    assert blocks.stat().blocks == 1


def test_writing_a_block_again_counts_it_once(tmp_path: Path) -> None:
    """A block written again replaces its size in the account and becomes the newest."""
    blocks = Blocks(tmp_path / "c", budget_bytes=250)
    blocks.put(A, 1, "one", b"x" * 100)
    blocks.put(A, 2, "two", b"y" * 100)
    blocks.put(A, 1, "one", b"z" * 50)
    assert blocks.stat().used_bytes == 150
    blocks.put(A, 3, "three", b"w" * 120)
    assert files(blocks) == ["one", "three"]


def test_an_executions_blocks_go_with_it(tmp_path: Path) -> None:
    """Dropping an execution removes its files and their bytes, and nobody else's."""
    blocks = Blocks(tmp_path / "c")
    blocks.put(A, 1, block_key(1, "a", 0), b"x")
    blocks.put(B, 1, block_key(1, "b", 2), b"y")
    kept = blocks.put(A, 2, block_key(2, "a", 0), b"z")
    blocks.drop(1)
    blocks.drop(1)
    assert (files(blocks), blocks.stat().used_bytes) == ([kept.key], 1)


def test_the_folder_may_vanish_at_any_moment(tmp_path: Path) -> None:
    """With the folder deleted, reading is a miss, dropping is quiet, and writing makes it again."""
    blocks = Blocks(tmp_path / "c")
    ref = blocks.put(A, 1, "one", b"x")
    shutil.rmtree(blocks.root)
    with pytest.raises(CacheMiss, match="one"):
        blocks.read(A, ref)
    blocks.drop(1)
    assert blocks.read(A, blocks.put(A, 2, "two", b"y")) == b"y"
    shutil.rmtree(blocks.root)
    blocks.note_miss()
    assert blocks.folder(A).is_dir()
    assert blocks.stat().missed == 1


def test_a_changed_block_is_a_miss(tmp_path: Path) -> None:
    """A block that holds other bytes than were written is a miss, not data."""
    blocks = Blocks(tmp_path / "c")
    ref = blocks.put(A, 1, "one", b"x")
    (blocks.folder(A) / "one").write_bytes(b"y")
    with pytest.raises(CacheMiss, match="does not hold"):
        blocks.read(A, ref)


def test_only_recorded_bytes_are_restored(tmp_path: Path) -> None:
    """A block is put back from the log only where the bytes are those of its digest."""
    blocks = Blocks(tmp_path / "c")
    ref = TableRef("one", hashlib.sha256(b"x").digest(), 1, 1, ("a",))
    blocks.restore(A, 1, ref, b"x")
    assert blocks.read(A, ref) == b"x"
    with pytest.raises(CacheMiss):
        blocks.restore(A, 1, ref, b"y")


def test_names_of_blocks_never_collide() -> None:
    """Execution, step and visit give each block a name of its own; a request's table has one no step can have."""
    names = [block_key(e, s, v) for e in (1, 11) for s in ("a", "a-1", "1-a") for v in (0, 1, 10)]
    names += [request_key(1), request_key(11)]
    assert len(set(names)) == len(names)


def test_one_execution_at_a_time_is_spared(tmp_path: Path) -> None:
    """The favoured execution's blocks stay whatever the budget says, until it ends; then another may be favoured."""
    blocks = Blocks(tmp_path / "c", budget_bytes=250)
    assert blocks.favour(1)
    assert not blocks.favour(2)
    refs = [blocks.put(A, n, request_key(n), bytes([n]) * 100) for n in (1, 2, 3, 4)]
    assert blocks.read(A, refs[0]) == bytes([1]) * 100
    assert [blocks.holds(A, ref.key) for ref in refs] == [True, False, False, True]
    blocks.drop(1)
    assert blocks.favour(2)


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    """A folder with anything of somebody else's in it is refused, and nothing in it is touched."""
    root = tmp_path / "home"
    (root / ("0" * 32)).mkdir(parents=True)
    (root / "letters").write_text("keep")
    with pytest.raises(Misconfigured, match="not empty"):
        Blocks(root)
    assert sorted(path.name for path in root.iterdir()) == ["0" * 32, "letters"]


def test_only_what_a_cache_puts_there_is_removed(tmp_path: Path) -> None:
    """Taking over and closing remove blocks of an earlier run, and leave whatever else was put beside them."""
    root = tmp_path / "c"
    first = Blocks(root)
    first.put(A, 1, "1-a-0.arrow", b"x")
    (root / "notes").mkdir()
    (root / "notes" / "a").write_text("keep")
    again = Blocks(root)
    assert not (root / again.folder_name(A)).exists()
    again.put(A, 1, "1-a-0.arrow", b"x")
    again.close()
    assert [path.name for path in root.iterdir()] == ["notes"]
    assert (root / "notes" / "a").read_text() == "keep"


def test_an_empty_cache_leaves_no_folder(tmp_path: Path) -> None:
    """A cache that was wiped while it ran is still known as ours, and goes when it is closed."""
    root = tmp_path / "c"
    blocks = Blocks(root)
    shutil.rmtree(root)
    blocks.note_miss()
    blocks.put(A, 1, "1-a-0.arrow", b"x")
    Blocks(root).close()
    assert not root.exists()
