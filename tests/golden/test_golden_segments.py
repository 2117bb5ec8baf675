"""Golden segments: what released versions sealed, this release opens to the same groups, for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.security.signing import Signer
from edge.segments.packing import CODECS, COLUMNS
from edge.segments.sealed import open_sealed
from edge.segments.sealing import Sealing, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import read_groups

HERE = Path(__file__).parent
LOGS = sorted(path.name for path in HERE.glob("v*") if path.is_dir())
SEALED = sorted(path for path in (HERE / "sealed").glob("*/*/*") if path.is_dir())


def groups_of(log: str) -> list[bytes]:
    return [data for _, _, data in read_groups(HERE / log / "journal")]


@pytest.mark.parametrize("folder", SEALED, ids=lambda folder: "-".join(folder.parts[-3:]))
def test_released_segments_open_to_their_log(folder: Path) -> None:
    """Every codec's segments of every log give its groups byte for byte."""
    found = [
        each.stored.data for path in sealed_paths(folder) for each in open_sealed(path.read_bytes()).groups()
    ]
    assert found == groups_of(folder.parent.name)


def test_there_is_one_of_each_codec_and_log() -> None:
    """A new codec or golden log needs golden segments: `python -m tests.golden.seal`."""
    there = {(folder.parent.name, folder.name) for folder in SEALED}
    assert there == {(log, codec.partition("+")[0]) for log in LOGS for codec in CODECS}


@pytest.mark.parametrize("log", LOGS)
def test_every_event_there_is_fits_columns(log: str, tmp_path: Path) -> None:
    """No golden log needs the plain codec: all types of events come back from columns."""
    sealing = Sealing(tmp_path, Signer(bytes(32)), "golden", BlobStore(tmp_path / "blobs"))
    made = list(sealing.seal(HERE / log / "journal", 2**62, everything=True))
    assert made
    assert {manifest.codec for _, manifest in made} == {COLUMNS}


def test_they_are_small() -> None:
    """They stay in the repository for ever: under 100 KB in all."""
    assert sum(path.stat().st_size for path in (HERE / "sealed").rglob("*.segment")) < 100_000
