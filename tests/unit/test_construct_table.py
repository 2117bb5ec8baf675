"""The table of NoETL's constructs in playbooks/DESIGN.md: every row names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DESIGN = ROOT / "playbooks" / "DESIGN.md"
TITLE = "## NoETL's constructs, one by one"
KINDS = ("same", "differs", "refused")
#: Short names of the table: a file and its test, and where the examples stand that it goes through.
SHORT = {
    "conformance": ("unit/test_conformance.py", "test_means_here_what_it_means_there"),
    "refusal": ("unit/test_conformance_refusals.py", "test_is_refused_with_its_reason"),
}
EXAMPLES = {
    "conformance": ("unit/conformance_routing.py", "unit/conformance_tools.py"),
    "refusal": ("unit/test_conformance_refusals.py",),
}


class Row(NamedTuple):
    """One construct."""

    construct: str
    here: str
    tests: str


def _rows() -> list[Row]:
    section = DESIGN.read_text("utf-8").partition(TITLE)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines]
    return [Row(*(cell.strip() for cell in row)) for row in cells if row[0].strip() != "Construct"]


def _text(file: str) -> str:
    return (ROOT / "tests" / file).read_text("utf-8")


ROWS = _rows()


def test_the_table_is_whole() -> None:
    """There is one, no construct stands twice, and each says first whether it is the same here."""
    assert len(ROWS) > 60
    assert len({row.construct for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.here.split(":")[0].split(";")[0] in KINDS, row
        assert row.here.startswith("same") or ":" in row.here, f"say how or why: {row}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.construct.replace("`", "")[:60])
def test_every_construct_is_shown_by_a_test(row: Row) -> None:
    """`file::test` names a test of that file, `conformance[x]` and `refusal[x]` an example of the conformance set."""
    named = re.findall(r"`([^`]+)`", row.tests)
    assert named, f"no test: {row}"
    for each in named:
        short = re.fullmatch(r"(\w+)\[(.+)\]", each)
        file, test = SHORT[short[1]] if short else each.split("::")
        assert re.search(rf"def {test}\b", _text(file)), f"{file} has no {test}"
        if short:
            text = "".join(map(_text, EXAMPLES[short[1]]))
            kind = short[2].startswith("kind-")
            wanted = f'"{short[2].removeprefix("kind-")}"' if kind else f'"{short[2]}":'
            assert wanted in text, f"{file} has no example {short[2]}"


def test_every_example_stands_in_the_table() -> None:
    """The conformance set shows nothing that the table does not speak of."""
    text = "".join(_text(file) for files in EXAMPLES.values() for file in files)
    examples = set(re.findall(r'^    "([a-z-]+)": (?:Example)?\(', text, re.MULTILINE))
    said = set(re.findall(r"(?:conformance|refusal)\[([a-z_-]+)\]", DESIGN.read_text("utf-8")))
    assert examples - said == set()
