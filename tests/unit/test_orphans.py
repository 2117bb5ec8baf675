"""Caches in memory that killed boxes left: removed by whoever starts next, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge.core.settings import Settings, load_settings, memory_cache
from edge.runtime.process.orphans import reap, sign
from edge.store.blocks import MARKER, Blocks


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the machine's memory."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr("edge.core.settings._MEMORY", folder)
    return folder


def killed(tmp_path: Path, name: str) -> Settings:
    """A box that ran, put a block into its cache, and was killed."""
    (tmp_path / name).mkdir()
    settings = load_settings(tmp_path / name)
    blocks = Blocks(settings.cache_folder)
    sign(settings)
    blocks.put(bytes(32), 3, "3-a-0.arrow", b"block")
    return settings


def test_the_cache_of_a_box_that_is_gone_is_removed(tmp_path: Path, shm: Path) -> None:
    """Its data folder was removed after it was killed: the next start of any box gives its memory back."""
    gone, there, own = (killed(tmp_path, name) for name in ("gone", "there", "own"))
    shutil.rmtree(gone.data)
    assert reap(own) == [gone.cache_folder]
    assert sorted(shm.iterdir()) == sorted([there.cache_folder, own.cache_folder])
    assert next(there.cache_folder.rglob("*.arrow")).read_bytes() == b"block"


def test_what_is_not_known_to_be_an_orphan_stays(tmp_path: Path, shm: Path) -> None:
    """Unsigned, signed for another folder, no cache, or not even a folder: nothing of that is ours to remove."""
    own = killed(tmp_path, "own")
    unsigned, forged, link = (killed(tmp_path, name) for name in ("unsigned", "forged", "link"))
    (unsigned.cache_folder / MARKER).write_bytes(b"")
    (forged.cache_folder / MARKER).write_bytes(b"/not/there")
    for each in (unsigned, forged, link):
        shutil.rmtree(each.data)
    shutil.move(link.cache_folder, tmp_path / "elsewhere")
    link.cache_folder.symlink_to(tmp_path / "elsewhere")
    stranger = memory_cache(tmp_path / "stranger")
    stranger.mkdir()
    memory_cache(tmp_path / "file").write_bytes(b"")
    assert reap(own) == []
    assert len(list(shm.iterdir())) == 6
    assert next((tmp_path / "elsewhere").rglob("*.arrow")).exists()


def test_a_cache_of_the_data_folders_own_is_not_signed(tmp_path: Path, shm: Path) -> None:
    """Where `cache` names a folder, nothing is written but what a cache holds."""
    (tmp_path / "edge.toml").write_text(f'cache = "{tmp_path / "cache"}"\n')
    settings = load_settings(tmp_path)
    Blocks(settings.cache_folder)
    sign(settings)
    assert (settings.cache_folder / MARKER).read_bytes() == b""
    assert reap(settings) == []
