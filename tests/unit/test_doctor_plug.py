"""The plug test's second half, on files that are planted here."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.main import main
from edge.core.errors import Misconfigured
from edge.doctor import plug
from edge.doctor.findings import FAIL, OK, WARN

RUN, OTHER = b"run-0001", b"run-0002"


def plant(folder: Path, numbers: dict[int, bytes]) -> None:
    """A file that holds these records, by number, of their runs."""
    data = bytearray(plug.FILE_BYTES)
    for number, run in numbers.items():
        at = (number - 1) % plug.RECORDS * plug.RECORD_BYTES
        data[at : at + plug.RECORD_BYTES] = plug.record_of(run, number)
    (folder / plug.FILE_NAME).write_bytes(data)


def test_a_record_is_known_whole_or_not_at_all() -> None:
    """Any changed byte, and zeros, are no record."""
    data = plug.record_of(RUN, 7)
    assert plug.number_in(data) == (RUN, 7)
    assert all(
        plug.number_in(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) is None
        for place in range(len(data))
    )
    assert plug.number_in(bytes(plug.RECORD_BYTES)) is None


def test_all_that_was_told_is_there(tmp_path: Path) -> None:
    """More than was told may be there: the last words may not have arrived."""
    plant(tmp_path, dict.fromkeys(range(1, 12), RUN))
    found = plug.judge(plug.look(tmp_path, 10), 10)
    assert (found.grade, found.says) == (
        OK,
        "all 10 records that were told are there, and 1 more: it keeps its word.",
    )


def test_a_missing_end_and_a_hole_are_told_apart(tmp_path: Path) -> None:
    """The one is a flush ignored, the other a block torn; each has its mend."""
    plant(tmp_path, dict.fromkeys(range(1, 9), RUN))
    ended = plug.judge(plug.look(tmp_path, 10), 10)
    assert (ended.grade, "the last 2 of 10" in ended.says, "ignores flushes" in ended.mend) == (
        FAIL,
        True,
        True,
    )
    plant(tmp_path, dict.fromkeys((1, 2, 3, 6, 7, 8, 9, 10), RUN))
    torn = plug.judge(plug.look(tmp_path, 10), 10)
    assert (torn.grade, "the first is 4" in torn.says, "journal_mirror" in torn.mend) == (FAIL, True, True)


def test_the_file_goes_round(tmp_path: Path) -> None:
    """Of what newer records stand in place of, and of the one place that was being written, nothing is asked."""
    newest = plug.RECORDS + 100
    plant(tmp_path, dict.fromkeys(range(102, newest + 1), RUN))
    assert plug.look(tmp_path, newest).missing == ()
    plant(tmp_path, dict.fromkeys(range(103, newest + 1), RUN))
    assert plug.look(tmp_path, newest).missing == (102,)


def test_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Should old records ever stand beside new ones, they count for nothing."""
    plant(tmp_path, {**dict.fromkeys(range(1, 8), RUN), 9: OTHER})
    assert plug.look(tmp_path, 9).missing == (8, 9)


def test_what_a_person_may_give_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file, no number, no address, nobody there: one sentence and the mend, and no exit code 0."""
    with pytest.raises(Misconfigured, match="no plug test was run"):
        plug.look(tmp_path, 1)
    data = ["--data", str(tmp_path)]
    for given, words in (
        (["--drive-check", "0"], "no number that was told"),
        (["--drive-test", "nonsense"], "HOST:PORT"),
        (["--drive-test", "127.0.0.1:1"], "Nobody notes at 127.0.0.1:1"),
    ):
        assert main(["doctor", *data, *given]) != 0
        assert words in capsys.readouterr().err
    assert plug.unjudged(5).grade == WARN
