"""The simulation (`python -m tests.sim`): a few seeds always, many under --faults; bugs let in turn it red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))
#: How many seeds `--faults` runs, and in how many parts, side by side.
SEEDS = int(os.environ.get("EDGE_TEST_SIM_SEEDS") or 36)
PARTS = 6


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own: it takes the machine's clock and chance away."""
    command = [sys.executable, "-m", "tests.sim", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_a_sample_of_worlds() -> None:
    """Whatever happens to a box: each request once, each accepted one ends, the log is what the box thinks it is."""
    done = simulated("--seed", str(SEED), "--seeds", "2", "--steps", "80")
    assert done.returncode == 0, f"EDGE_TEST_SEED={SEED}\n{done.stdout[-6_000:]}{done.stderr[-2_000:]}"


@pytest.mark.faults_full
@pytest.mark.parametrize("part", range(PARTS))
def test_many_worlds(part: int) -> None:
    """As the sample: 36 seeds, some eighty days of a box."""
    each = -(-SEEDS // PARTS)
    done = simulated("--seed", str(SEED + part * each), "--seeds", str(each), "--steps", "400")
    print(done.stdout)
    assert done.returncode == 0, f"EDGE_TEST_SEED={SEED}\n{done.stdout[-6_000:]}{done.stderr[-2_000:]}"


def test_a_seed_says_all() -> None:
    """The same seed gives the same run, to the last digit of every moment."""
    first, second = (simulated("--seed", "7", "--steps", "30").stdout.rpartition("; ")[2] for _ in range(2))
    assert first == second
    assert len(first.strip()) == 12


@pytest.mark.parametrize(
    ("bug", "seed", "says"),
    [
        ("told-before-durable", 101, "before it was durable"),
        ("wall-clock-waits", 101, "too early"),
        pytest.param("lost-ids", 101, "was accepted as", marks=pytest.mark.faults_full),
        pytest.param("believed-after-a-failed-flush", 101, "LogDamaged", marks=pytest.mark.faults_full),
        pytest.param("open-not-carried", 505, "that the log does not hold", marks=pytest.mark.faults_full),
        pytest.param("receipts-not-asked", 316, "the centre does not have it", marks=pytest.mark.faults_full),
        pytest.param("unknown-is-retried", 501, "repeated", marks=pytest.mark.faults_full),
    ],
)
def test_a_bug_that_is_let_in_is_found(bug: str, seed: int, says: str) -> None:
    """A check that cannot fail proves nothing."""
    done = simulated("--seed", str(seed), "--steps", "400", "--plant", bug)
    assert done.returncode == 1
    assert says in done.stdout
