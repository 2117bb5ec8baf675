"""One bit of a file changes: whoever asks the log gets what was written or hears of damage, never another answer."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from edge.core.errors import CacheMiss, LogDamaged
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from tests.faults.children import Children
from tests.faults.log_on_trial import ANSWERED, ANSWERS, WRITE

SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))
FLIPS = 20
FLIPS_WHOLE = 400


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as made:
        yield made


@pytest.fixture(scope="module")
def log(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some segments, closed, its index whole."""
    folder = tmp_path_factory.mktemp("log") / "log"
    folder.mkdir()
    (folder.parent / "say").write_text("")
    given = {"folder": str(folder), "say": str(folder.parent / "say"), "planted": "closed"}
    assert children.run(WRITE, seed=SEED, events=ANSWERED, **given).code == 0
    return folder


def flip_often(children: Children, log: Path, place: Path, home: str, flips: int) -> Counter[str]:
    """Flip a bit of one home's files; what asking the log then comes to."""
    chance = Random(SEED)
    ends: Counter[str] = Counter()
    for number in range(flips):
        folder = shutil.copytree(log, place / "log")
        # Of locks, and of room not used yet, nothing is ever read.
        path = chance.choice(sorted([*(folder / home).glob("*.journal"), *(folder / home).glob("data.mdb")]))
        data = bytearray(path.read_bytes())
        used = [at for at in range(0, len(data), 64) if any(data[at : at + 64])]
        at = chance.choice(used) + chance.randrange(64)
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        ended = children.run(ANSWERS, folder=str(folder))
        end = (
            ended.value
            if ended.code == 0
            else f"ended by signal {-ended.code}"
            if ended.code < 0
            else "raised"
        )
        ends[end] += 1
        assert ended.code <= 0, (number, path.name, at, ended)
        assert end not in ("another answer", "forgotten"), (number, path.name, at)
        shutil.rmtree(folder)
    return ends


@pytest.mark.parametrize("home", ["journal", "index"])
def test_a_flipped_bit_is_never_an_answer(children: Children, log: Path, tmp_path: Path, home: str) -> None:
    """What is read is what was written, or it is named as damaged."""
    print(home, dict(flip_often(children, log, tmp_path, home, FLIPS)))


@pytest.mark.faults_full
@pytest.mark.parametrize("home", ["journal", "index"])
def test_many_flipped_bits(children: Children, log: Path, tmp_path: Path, home: str) -> None:
    """As above, often."""
    print(home, FLIPS_WHOLE, dict(flip_often(children, log, tmp_path, home, FLIPS_WHOLE)))


def test_a_flipped_bit_in_a_block_or_blob_is_noticed(tmp_path: Path) -> None:
    """Blocks of the cache and large values are checked by digest at each reading."""
    blobs = BlobStore(tmp_path / "blobs")
    digest = blobs.put(b"large" * 100)
    blocks = Blocks(tmp_path / "cache", 1_000_000)
    block = blocks.put(b"d" * 32, 7, "7-a-0.arrow", b"block" * 100)
    for path, read, damage in [
        (blobs.path(digest), lambda: blobs.get(digest), LogDamaged),
        (next((tmp_path / "cache").rglob("*.arrow")), lambda: blocks.read(b"d" * 32, block), CacheMiss),
    ]:
        whole = path.read_bytes()
        for at in range(0, len(whole), 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            with pytest.raises(damage):
                read()
        path.write_bytes(whole)
        assert read() == whole
    blocks.close()
