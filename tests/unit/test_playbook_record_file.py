"""The file that `edge playbook test --record` adds to: whole before and after, whatever the drive says."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from edge.cli.playbook_record import add_to

OLD = "cases:\n  - case: the author's own\n"


def test_a_case_is_added_behind_those_there_are(tmp_path: Path) -> None:
    """What stood in the file stands there still, and a file that was not there is made."""
    target = tmp_path / "a.test.yaml"
    add_to(target, OLD)
    add_to(target, "  - case: new\n")
    assert target.read_text() == OLD + "  - case: new\n"


def test_a_drive_that_takes_half_of_it_costs_no_old_case(tmp_path: Path) -> None:
    """A write that fails in its middle is taken back: the file is as it was."""
    target = tmp_path / "a.test.yaml"
    target.write_text(OLD)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(OLD) + 5, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            add_to(target, "  - case: new\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_text() == OLD
