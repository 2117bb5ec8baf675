"""What this user may not read is named as that: never as lost, damaged or not running."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.cli.client import RuntimeClient
from edge.core.errors import Misconfigured
from edge.core.events import Event, Gap
from edge.core.settings import load_settings
from edge.store.journal import Journal
from edge.store.segment_file import segment_paths
from edge.store.verify import verify_journal
from edge.testing.history import write_group


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder whose parents anybody may enter, unlike those of `tmp_path`."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Root may read everything, so root steps down for a moment."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@contextmanager
def shut(path: Path) -> Iterator[None]:
    path.chmod(0)
    try:
        with an_ordinary_user(), pytest.raises(Misconfigured, match="may not be read by this user") as seen:
            yield
    finally:
        path.chmod(0o755)
    assert str(path) in seen.value.message
    assert "root" in seen.value.mend


@pytest.mark.parametrize("what", ["the folder", "a segment"])
def test_a_journal_that_may_not_be_read_is_not_damaged(data: Path, what: str) -> None:
    """Verification stops with who may read it; no event is called lost."""
    folder = data / "journal"
    folder.mkdir(mode=0o755)
    journal = Journal(folder)
    write_group(journal, [Event(1, Gap(1, 1, "x"))])
    journal.close()
    with shut(folder if what == "the folder" else segment_paths(folder)[0]):
        verify_journal(folder)


def test_a_runtime_that_may_not_be_asked_is_not_absent(data: Path) -> None:
    """A socket of another user's runtime is not "no runtime": a second `edge up` would be the wrong advice."""
    settings = load_settings(data)
    settings.socket_path.parent.mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(settings.socket_path))
        listener.listen()
        with shut(settings.socket_path):
            RuntimeClient(settings)


def test_settings_that_may_not_be_read_are_not_wrong(data: Path) -> None:
    """Nobody is told to remove a file of settings that is only shut to him."""
    path = data / "edge.toml"
    path.write_text("workers = 3\n")
    with shut(path):
        load_settings(data)
