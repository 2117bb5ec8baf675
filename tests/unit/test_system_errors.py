"""Errors of the system that end the runtime: each is told as whose it is, and with the exit code that follows."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge.runtime import __main__ as entry
from edge.runtime.process.system_errors import DRIVE, SCARCE, told


def error(code: int, path: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), path)


@pytest.mark.parametrize("code", sorted(DRIVE))
def test_what_a_drive_refuses_is_the_drives(code: int) -> None:
    """It names the file and the drive, and a new start may find it well again."""
    said = told(error(code, "/data/journal"))
    assert said is not None
    assert said[0].startswith("/data/journal cannot be used")
    assert "Look after the drive" in said[0]
    assert said[1] == 1


@pytest.mark.parametrize("code", sorted(SCARCE))
def test_what_the_machine_has_no_more_of_is_not_the_drives(code: int) -> None:
    """Too many open files, no memory, no processes: it says of what, and never sends anybody to the drive."""
    said = told(error(code))
    assert said is not None
    assert SCARCE[code] in said[0]
    assert "drive" not in said[0]
    assert said[1] == 1


def test_what_stands_in_the_way_and_what_is_forbidden_are_for_a_person() -> None:
    """No new start helps there: exit code 2."""
    for code in (errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM):
        said = told(error(code, "/data/run"))
        assert said is not None
        assert (said[1], said[0].startswith("/data/run")) == (2, True)


def test_an_error_of_nobodys_is_a_mistake_of_ours() -> None:
    """A wrong argument to the system, a broken pipe: it is raised again, with its traceback."""
    for code in (errno.EINVAL, errno.EBADF, errno.EPIPE, errno.ENOTSOCK):
        assert told(error(code)) is None
    assert told(OSError("no number")) is None


@pytest.mark.parametrize(
    ("code", "ends", "says"),
    [
        (errno.EMFILE, 1, "LimitNOFILE"),
        (errno.EIO, 1, "Look after the drive"),
        (errno.EISDIR, 2, "in its place"),
    ],
)
def test_the_runtimes_entry_ends_as_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    ends: int,
    says: str,
) -> None:
    """Whatever of the system's comes up to it is said as whose it is, and the exit code follows."""

    def fails(*_: object) -> int:
        raise error(code, str(tmp_path / "there"))

    monkeypatch.setattr(entry, "with_own_seed", lambda _: None)
    monkeypatch.setattr(entry, "_run", fails)
    monkeypatch.setattr("sys.argv", ["edge.runtime", "--data", str(tmp_path)])
    assert entry.main() == ends
    assert says in caplog.text


def test_the_runtimes_entry_keeps_the_story_of_our_own_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is neither drive, machine nor path is raised again: no person is sent anywhere."""

    def fails(*_: object) -> int:
        raise error(errno.EINVAL)

    monkeypatch.setattr(entry, "with_own_seed", lambda _: None)
    monkeypatch.setattr(entry, "_run", fails)
    monkeypatch.setattr("sys.argv", ["edge.runtime", "--data", str(tmp_path)])
    with pytest.raises(OSError, match="Invalid argument"):
        entry.main()
