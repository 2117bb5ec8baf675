"""The daemons' command line: values by name, and a clear word where it cannot be read."""

from __future__ import annotations

import pytest

from edge.core.options import LOG_LEVELS, Option, read_options

OPTIONS = {"data": Option(None, help="data folder"), "log-level": Option("info", LOG_LEVELS)}


def test_values_and_defaults() -> None:
    """What is given stands under its name, the rest at its default; both ways of writing are read."""
    assert read_options("p", OPTIONS, []) == {"data": None, "log-level": "info"}
    given = ["--data", "/x y", "--log-level=debug"]
    assert read_options("p", OPTIONS, given) == {"data": "/x y", "log-level": "debug"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--dta", "x"], "--dta not recognized"),
        (["--data"], "--data requires argument"),
        (["here"], "unexpected argument 'here'"),
        (["--log-level", "loud"], "--log-level cannot be 'loud'; it may be debug, info, warning, error"),
    ],
)
def test_what_cannot_be_read_is_said(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The process ends with code 2, saying what was wrong and what there is."""
    with pytest.raises(SystemExit) as ended:
        read_options("p", OPTIONS, given)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert "--log-level" in told


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` ends with code 0 and the usage."""
    with pytest.raises(SystemExit) as ended:
        read_options("p", OPTIONS, ["--help"])
    assert ended.value.code == 0
    assert "data folder" in capsys.readouterr().out
