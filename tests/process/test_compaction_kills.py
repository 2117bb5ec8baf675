"""The compactor killed between any two steps: the next run completes, nothing is lost and nothing is in twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from edge.central.compaction import TABLES
from tests.unit.central_rig import Centre, Pump

ROOT = Path(__file__).parents[2]


def test_killed_at_every_step(tmp_path: Path) -> None:
    """Files merged, parked segments linked, a new box: nothing is in twice after a kill, all after the next run."""
    centre = Centre(tmp_path / "centre")
    old, new = Pump(tmp_path / "old", "pump-7"), Pump(tmp_path / "new", "box-1")
    first, second, third, fourth, fifth = old.sealed(5, executions=2)
    centre.take([first, third])
    centre.compact()
    (centre.data / TABLES).rename(centre.data / "tables.before")
    centre.take([second, fifth, *new.sealed(3, executions=2)])
    centre.central.close()
    done = subprocess.run(
        [sys.executable, "-m", "tests.process.compaction_kills", str(centre.data)],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) > 20
    assert {each["ended"] for each in said[:-1]} == {-signal.SIGKILL}
    for each in said:
        events, different, _ = each["after"]
        assert events == different, each
    linked, parked = 1 + 3 * 2 * 4 + 1 + 3 * 2 * 4, 2 * 4
    assert {tuple(each["next"]) for each in said} == {(linked + parked, linked + parked, linked)}
    centre = Centre(centre.data)
    assert centre.compact().files == 0
    assert len(list((centre.data / TABLES).glob("*.parquet*"))) == 3
    assert fourth
