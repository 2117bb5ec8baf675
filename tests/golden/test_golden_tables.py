"""Golden tables: what a centre makes of released segments, row for row.

A change here is a change of what every analyst sees: raise `PROJECTION`, and write them again by
`python -m tests.golden.test_golden_tables`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.central.compaction_rows import table_of
from edge.segments.sealed import open_sealed
from edge.segments.sealing import sealed_paths

HERE = Path(__file__).parent
SEALED = sorted(path for path in (HERE / "sealed").glob("*/*/*") if path.is_dir())


def lines_of(folder: Path) -> list[str]:
    """The rows of a folder of segments, one JSON object each."""
    made = []
    for path in sealed_paths(folder):
        for row in table_of(open_sealed(path.read_bytes()), linked=True).to_pylist():
            made.append(json.dumps(row, default=str, ensure_ascii=False))
    return made


def golden(folder: Path) -> Path:
    """Where the rows of a folder stand; codecs give the same."""
    return HERE / "tables" / f"{folder.parent.name}.jsonl"


@pytest.mark.parametrize("folder", SEALED, ids=lambda folder: "-".join(folder.parts[-3:]))
def test_released_segments_give_the_same_rows(folder: Path) -> None:
    """Every release's segments, by every codec, become the rows they always became."""
    assert lines_of(folder) == golden(folder).read_text().splitlines()


def test_they_stay_small() -> None:
    """Blueprints are most of it; under 300 KB in all."""
    assert sum(path.stat().st_size for path in (HERE / "tables").iterdir()) < 300_000


if __name__ == "__main__":
    for each in SEALED:
        golden(each).parent.mkdir(exist_ok=True)
        golden(each).write_text("\n".join(lines_of(each)) + "\n")
