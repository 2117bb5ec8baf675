"""The table of clock faults in edge/core/DESIGN.md: every letter has tests, and every test named there is one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _sections() -> tuple[str, str]:
    """The table of faults, and that of tests."""
    text = (
        (ROOT / "edge/core/DESIGN.md")
        .read_text("utf-8")
        .partition("## Clocks")[2]
        .partition("## Decisions")[0]
    )
    table, _, tests = text.partition("| | Test |")
    return table, tests


def test_every_letter_has_its_tests() -> None:
    """No cell points to nothing, and no test stands there for nothing."""
    table, tests = _sections()
    given = set(re.findall(r"^\| ([a-z]) \|", tests, re.MULTILINE))
    asked = {
        letter for group in re.findall(r"\(([a-z](?:, [a-z])*)[\),]", table) for letter in group.split(", ")
    }
    assert asked | {"b"} == given


def test_every_test_named_there_is_one() -> None:
    """Files and functions, spelled as they are."""
    _, tests = _sections()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tests)
    assert len(named) > 20
    for path, name in named:
        source = (ROOT / path).read_text("utf-8")
        assert not name or f"def {name}(" in source, f"{path} has no {name}"
