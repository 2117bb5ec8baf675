"""The power goes at any moment of lives that also prune: what was told is there, what is pruned is wholly gone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.children import Children
from tests.faults.log_on_trial import with_mirror
from tests.faults.pruned_lives import LIVE, LOOK
from tests.faults.recording_drive import KEPT, Cuts, Drive, build, mounted, read_record
from tests.faults.test_power_cuts import Recorded, Seen, memory

__all__ = ["memory"]

SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))
LIVES = 4
REQUESTS_PER_LIFE = 40
CUTS = 8
CUTS_WHOLE = 100


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("drive"))


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as made:
        yield made


def record(
    program: Path, children: Children, place: Path, kind: str, planted: str, *, mirrored: bool
) -> Recorded:
    """Several lives of one box that prunes, on a recording drive."""
    place.mkdir()
    with Drive(program, place, kind) as drive:
        if mirrored:
            with_mirror(drive.folder)
        for life in range(LIVES):
            given = {"folder": str(drive.folder), "say": str(drive.say), "requests": REQUESTS_PER_LIFE}
            ended = children.run(LIVE, **given, seed=SEED + life, life=life, planted=planted)
            if planted and ended.code:
                break  # it found itself out
            assert ended.code == 0, ended.words
    return Recorded(read_record(drive.record), drive.base, kind, mirrored)


def cut_often(recorded: Recorded, children: Children, place: Path, cuts: int) -> Seen:
    """Cut at random moments; let each image start, prune on, and look at all that was told."""
    chance = Random(SEED)
    seen = Seen()
    images = Cuts(recorded.done, recorded.base, place)
    begun = next(place for place, done in enumerate(recorded.done) if done.kind == "s")
    moments = sorted(chance.randrange(begun, len(recorded.done)) for _ in range(cuts))
    pruned = Counter[bool]()
    for number, moment in enumerate(moments):
        kept = KEPT[number % len(KEPT)]
        with mounted(images.cut(moment, kept, chance), place / "files", recorded.kind) as sound:
            assert sound, f"the file system is lost: cut {moment}, {kept}"
            if recorded.mirrored:
                with_mirror(place / "files")
            ended = children.run(LOOK, folder=str(place / "files"), words=images.words)
        end = "whole" if ended.code == 0 else "not whole"
        seen.ends[end] += 1
        if ended.code:
            seen.wrong.append(f"cut {moment}, {kept}, told {images.told}: {ended.words[-1_500:]}")
        else:
            pruned[ended.value["pruned"] > 0] += 1
    seen.ends["of which pruned"] = pruned[True]
    return seen


def check(program: Path, children: Children, memory: Path, kind: str, cuts: int, *, mirrored: bool) -> None:
    """Nothing is wrong after any cut, and most cuts met a log whose beginning had gone."""
    recorded = record(program, children, memory / "drive", kind, "", mirrored=mirrored)
    seen = cut_often(recorded, children, memory, cuts)
    print(f"seed {SEED}: {cuts} cuts on {kind}, mirrored: {mirrored}, {dict(seen.ends)}")
    assert not seen.wrong, f"EDGE_TEST_SEED={SEED}\n" + "\n\n".join(seen.wrong)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_log_is_whole_wherever_its_pruning_is_cut(
    program: Path, children: Children, memory: Path, mirrored: bool
) -> None:
    """A few cuts: request ids, answers and open histories are as they were told, and pruning goes on to its end."""
    check(program, children, memory, "ext4", CUTS, mirrored=mirrored)


@pytest.mark.faults_full
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("kind", "cuts"), [("ext4", CUTS_WHOLE), ("xfs", CUTS_WHOLE // 2)])
def test_a_log_is_whole_after_hundreds_of_cuts(
    program: Path, children: Children, memory: Path, kind: str, cuts: int, mirrored: bool
) -> None:
    """As above, often."""
    check(program, children, memory, kind, cuts, mirrored=mirrored)


@pytest.mark.parametrize("planted", ["unlinked before it is carried"])
def test_the_bed_sees_bad_pruning(program: Path, children: Children, memory: Path, planted: str) -> None:
    """A segment that leaves before what is needed of it is durable elsewhere is seen."""
    recorded = record(program, children, memory / "drive", "ext4", planted, mirrored=False)
    seen = cut_often(recorded, children, memory, CUTS)
    print(f"{planted}: {dict(seen.ends)}")
    assert seen.wrong
