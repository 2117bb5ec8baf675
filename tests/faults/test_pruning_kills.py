"""Every call that pruning makes on the drive, once: killed there, refused there; then all that is needed is there."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.store.segment_file import segment_paths
from tests.faults import pruning_on_trial
from tests.faults.drive_calls import Counter, Fault, build
from tests.faults.test_every_drive_call import WALKS, fault_of, places

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
SAMPLE = 4
#: A pruned file becomes the next one; a call is named by where it leads.
LEAVES = "rename /journal/next.spare.part"


class Bed:
    """A log to prune, made once, and what is known of it."""

    def __init__(self, folder: Path) -> None:
        self.library = build(folder)
        self.begun = folder / "begun"
        asyncio.run(pruning_on_trial.begin(self.begun))
        copy = shutil.copytree(self.begun, folder / "whole")
        self.known = asyncio.run(pruning_on_trial.known(copy, go_on=False))
        assert self.known["open"]
        assert len(segment_paths(self.begun / "journal")) >= 3

    def prune(self, folder: Path, fault: Fault | None) -> tuple[int, Counter]:
        """Prune a copy of it in a process of its own, under a fault; how that ended."""
        data = shutil.copytree(self.begun, folder / "data")
        counter = Counter(self.library, data, folder / "state")
        ended = subprocess.run(
            [sys.executable, "-m", pruning_on_trial.__name__, str(data)],
            env={**os.environ, **counter.environment(fault)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return ended.returncode, counter

    def try_out(self, folder: Path, fault: Fault) -> None:
        """One fault; whatever it did, nothing that is needed is gone, then or after pruning goes on."""
        folder.mkdir()
        code, counter = self.prune(folder, fault)
        if not counter.struck:  # threads share the drive: a call is not in each run, or not at that place
            met = counter.names()[fault.place - 1 :]
            spared = fault.kind == "ENOSPC" and met and met[0].startswith("unlink")
            assert (code, spared or not met) == (0, True), (code, met)
        elif fault.kills:
            assert code == -9, code
        else:
            assert code in (0, 1, pruning_on_trial.REFUSED), code
        for go_on in (False, True):
            assert asyncio.run(pruning_on_trial.known(folder / "data", go_on=go_on)) == self.known
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    return Bed(tmp_path_factory.mktemp("bed"))


@pytest.fixture(scope="module")
def calls(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of pruning without a fault."""
    folder = tmp_path_factory.mktemp("count")
    code, counter = bed.prune(folder, None)
    assert code == 0
    assert asyncio.run(pruning_on_trial.known(folder / "data", go_on=False)) == bed.known
    names = counter.names()
    assert {"rename", "pwrite", "fdatasync", "unlink"} <= {name.split()[0] for name in names}
    return names


def strike(bed: Bed, tmp_path: Path, faults: list[Fault], calls: list[str]) -> None:
    """One trial for each fault; all that went wrong is told together."""
    wrong: list[Any] = []
    for number, fault in enumerate(faults):
        try:
            bed.try_out(tmp_path / str(number), fault)
        except Exception as error:
            wrong.append(f"{fault} ({calls[fault.place - 1]}): {type(error).__name__} {error}")
    print(f"{len(faults)} faults, {len(wrong)} went wrong")
    assert not wrong, "\n\n".join(wrong)


def test_a_sample_of_pruning_calls(bed: Bed, calls: list[str], tmp_path: Path) -> None:
    """Kills now and then while a log is pruned: it is whole each time, and pruning goes on."""
    every = list(places(calls))
    chosen = {every[len(every) * number // (SAMPLE + 1)] for number in range(1, SAMPLE + 1)}
    # Around the moments when a file leaves the log.
    chosen |= {place for place in every if LEAVES in calls[max(0, place - 3) : place]}
    strike(bed, tmp_path, [Fault("before", place) for place in sorted(chosen)], calls)


@pytest.mark.faults_full
@pytest.mark.parametrize("walk", WALKS)
def test_every_pruning_call(walk: str, bed: Bed, calls: list[str], tmp_path: Path) -> None:
    """Killed before, killed after, refused at each call of pruning: nothing that is needed is gone."""
    every = [fault_of(walk, place) for place in places(calls)]
    # A full drive refuses no removal.
    spared = [each for each in every if each.kind == "ENOSPC" and calls[each.place - 1].startswith("unlink")]
    strike(bed, tmp_path, [each for each in every if each not in spared], calls)
