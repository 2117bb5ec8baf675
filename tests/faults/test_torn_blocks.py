"""A whole block of a flash drive is gone, anywhere in the log: what that costs, with a mirror or without."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from edge.core.limits import KIB
from tests.faults.children import Children
from tests.faults.log_on_trial import CHECK, RECOVER, SALVAGE, WRITE, told, with_mirror

SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))
EVENTS_BEFORE, EVENTS = 300, 2_300
WRITTEN = EVENTS_BEFORE + EVENTS
TEARS = 6
TEARS_WHOLE = 60
RECOVERED_MIN = 0.95


@dataclass(slots=True)
class Torn:
    """What became of a log after many tears: how they ended, and how many of its events were there in all."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    there: int = 0
    of: int = 0


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as made:
        yield made


def written(children: Children, place: Path, *, mirrored: bool) -> tuple[Path, int]:
    """A log of two lives, the second ended by a signal: the index lacks its end. The log, and the last event told."""
    log = place / "log"
    log.mkdir(parents=True)
    if mirrored:
        with_mirror(log)
    say = place / "say"
    say.write_text("")
    for planted, events in (("closed", EVENTS_BEFORE), ("killed", EVENTS)):
        given = {"folder": str(log), "say": str(say), "seed": SEED, "planted": planted}
        assert children.run(WRITE, events=events, **given).code == 0
    return log, told(say)


def tear(log: Path, chance: Random, block_bytes: int) -> str:
    """Ruin one block of what the log takes on its drive; where."""
    paths = [path for path in sorted(log.rglob("*")) if path.name.endswith((".journal", "data.mdb"))]
    blocks = [(path, at) for path in paths for at in range(0, path.stat().st_size, block_bytes)]
    path, at = chance.choice(blocks)
    data = bytearray(path.read_bytes())
    ruined = len(data[at : at + block_bytes])
    data[at : at + block_bytes] = chance.choice([bytes(ruined), b"\xff" * ruined, chance.randbytes(ruined)])
    path.write_bytes(data)
    return f"{path.relative_to(log)} from byte {at}"


def tear_often(children: Children, place: Path, block_bytes: int, tears: int, *, mirrored: bool) -> Torn:
    """Tear the same log again and again; open it as the runtime would, then recover it, then salvage it."""
    log, last = written(children, place / "whole", mirrored=mirrored)
    chance = Random(SEED + block_bytes)
    seen = Torn()
    for _ in range(tears):
        folder = shutil.copytree(log, place / "log")
        where = tear(folder, chance, block_bytes)
        end, there, words = mended(children, folder, last)
        seen.ends[end] += 1
        seen.there += there
        seen.of += WRITTEN
        if end not in ("as it was", "mended", "lost and named"):
            seen.wrong.append(f"{end}: {where}: {words}")
        shutil.rmtree(folder)
    return seen


def mended(children: Children, folder: Path, last: int) -> tuple[str, int, str]:
    """How a torn log comes out, how many events it has then, and words."""
    steps = []
    ended = children.run(CHECK, folder=str(folder), told=last)
    for step, anew in ((RECOVER, {}), (SALVAGE, {}), (SALVAGE, {"index_anew": True})):
        if ended.code and "AssertionError" not in ended.words:
            children.run(step, folder=str(folder), **anew)
            steps.append(step)
            ended = children.run(CHECK, folder=str(folder), told=last)
    if ended.code:
        return "wrong history or not opened", 0, ended.words[-500:]
    events = min(ended.value["events"], WRITTEN)
    if ended.value["lost"]:
        return "lost and named", events, ""
    if events < WRITTEN:
        return "lost unnamed", events, f"{events} events are left"
    return ("mended" if steps else "as it was"), events, ""


@pytest.mark.parametrize("tears", [TEARS, pytest.param(TEARS_WHOLE, marks=pytest.mark.faults_full)])
@pytest.mark.parametrize("block_kib", [4, 16, 128])
def test_with_a_mirror_a_torn_block_costs_nothing(
    children: Children, tmp_path: Path, block_kib: int, tears: int
) -> None:
    """Every loss is named, and nearly every event is there: each is taken from the copy that is sound."""
    seen = tear_often(children, tmp_path, block_kib * KIB, tears, mirrored=True)
    print(
        f"seed {SEED}: {tears} of {block_kib} KiB, mirrored: {dict(seen.ends)}, {seen.there / seen.of:.4f} there"
    )
    assert not seen.wrong, "\n".join(seen.wrong)
    assert seen.there >= RECOVERED_MIN * seen.of


@pytest.mark.faults_full
@pytest.mark.parametrize("block_kib", [4, 16, 128])
def test_many_torn_blocks_without_a_mirror(children: Children, tmp_path: Path, block_kib: int) -> None:
    """The index has what is older than a thousand events. What is newer is lost where its block is torn.

    At the very end that looks like a torn write, and goes unnamed: this is what the mirror is for.
    """
    seen = tear_often(children, tmp_path, block_kib * KIB, TEARS_WHOLE, mirrored=False)
    print(
        f"seed {SEED}: {TEARS_WHOLE} of {block_kib} KiB, no mirror: {dict(seen.ends)}, {seen.there / seen.of:.4f}"
    )
    assert all(line.startswith("lost unnamed") for line in seen.wrong), "\n".join(seen.wrong)
