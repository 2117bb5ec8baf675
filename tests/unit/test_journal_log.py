"""What the daemons log: plain for people, with priorities where systemd's journal reads it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.core.journal_log import Prioritised, journal_reads


def record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("x", level, "x.py", 1, message, None, None)


@pytest.mark.parametrize(
    ("level", "priority"),
    [("CRITICAL", 2), ("ERROR", 3), ("WARNING", 4), ("INFO", 6), ("DEBUG", 7)],
)
def test_every_line_has_its_priority(level: str, priority: int) -> None:
    """A record of several lines is several entries of the journal, each as grave as the whole."""
    text = Prioritised("%(levelname)s %(message)s").format(record(getattr(logging, level), "one\ntwo"))
    assert text == f"<{priority}>{level} one\n<{priority}>two"


def test_only_the_journal_itself_is_told(tmp_path: Path) -> None:
    """A file that is not the one systemd named, or no name at all, is written for people."""
    with (tmp_path / "log").open("w") as file:
        found = os.fstat(file.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert journal_reads(file.fileno(), named)
        assert not journal_reads(file.fileno(), {"JOURNAL_STREAM": "8:1"})
        assert not journal_reads(file.fileno(), {"JOURNAL_STREAM": "nonsense"})
        assert not journal_reads(file.fileno(), {})


@pytest.mark.parametrize("module", ["edge.runtime", "gateway"])
@pytest.mark.parametrize("journal", [True, False])
def test_a_daemon_logs_for_who_reads(tmp_path: Path, module: str, journal: bool) -> None:
    """The same refusal, with its priority for the journal and as it is for people."""
    (tmp_path / "edge.toml").write_text("nonsense = 1\n")
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    with (tmp_path / "log").open("w+") as log:
        found = os.fstat(log.fileno())
        if journal:
            environment["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
        command = [sys.executable, "-m", module, "--data", str(tmp_path)]
        done = subprocess.run(command, stderr=log, env=environment, check=False, timeout=60)
        log.seek(0)
        said = log.read()
    assert done.returncode == 2
    start = f"{module.removeprefix('edge.')}: CRITICAL {tmp_path}/edge.toml: there is no setting"
    assert said.startswith(f"<2>{start}" if journal else start)
