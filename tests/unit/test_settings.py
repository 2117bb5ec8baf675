"""Settings: defaults, file, command line, and plain words where one cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.errors import Misconfigured
from edge.core.settings import default_data_folder, load_settings


def test_the_command_line_wins_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    """Defaults hold where nothing is said; the file wins over them, what is given wins over the file."""
    (tmp_path / "edge.toml").write_text('box = "kitchen"\nworkers = 3\n')
    settings = load_settings(tmp_path, workers=4)
    assert (settings.box, settings.workers, settings.cache_mb, settings.data) == ("kitchen", 4, 64, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("worker = 3", "there is no setting 'worker'"),
        ('data = "/tmp"', "there is no setting 'data'"),
        ('workers = "3"', "workers must be int"),
        ("workers = true", "workers must be int"),
        ("workers = 0", "workers is 0; it may be 1 to 64"),
        ("cache_mb = 100000", "it may be 1 to 65536"),
        ("commit_window_ms = -1", "it may be 0 to 10000"),
        ('box = "a/b"', "cannot be a topic level"),
        ('box = "a+"', "cannot be a topic level"),
        ("workers = ", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, says: str) -> None:
    """A wrong key, type, bound or file is Misconfigured and names it."""
    (tmp_path / "edge.toml").write_text(text)
    with pytest.raises(Misconfigured, match=says):
        load_settings(tmp_path)


def test_two_boxes_never_share_a_cache_folder(tmp_path: Path) -> None:
    """The default cache folder depends on the data folder; a given one is taken as it is."""
    first, second = load_settings(tmp_path / "a"), load_settings(tmp_path / "b")
    assert first.cache_folder != second.cache_folder
    assert load_settings(tmp_path, cache="/x/y").cache_folder == Path("/x/y")


def test_the_data_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """EDGE_DATA wins over XDG_DATA_HOME, which wins over the home folder."""
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    monkeypatch.delenv("EDGE_DATA", raising=False)
    assert default_data_folder() == Path("/x/noetl-edge")
    monkeypatch.setenv("EDGE_DATA", "/d")
    assert default_data_folder() == Path("/d")


@pytest.mark.parametrize(("host", "box"), [("pi-4.local", "pi-4"), ("_a", "a"), ("...", "box"), ("ä b", "b")])
def test_a_host_name_becomes_a_topic_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, box: str
) -> None:
    """The box is named after the host, made fit for a topic."""
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert load_settings(tmp_path).box == box
