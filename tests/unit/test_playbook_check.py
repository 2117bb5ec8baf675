"""`edge playbook check`: everything wrong in one run, files and folders, for people and programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli.main import main

BAD = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: x, path: x}
workflow:
  - step: a
    foo: 1
    tool: {kind: python, cod: x, code: "return 1"}
    next: [{step: nowhere}]
  - step: a
    tool: {kind: transform, value: "{{ nope.x | shout }}", valu: 1}
  - tool: {kind: noop, wrong: 1}
  - step: 7x
    tool: {kind: nop}
"""


def test_everything_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also inside a step that has an unknown key, the name of another one, a name that is none, or no name."""
    (tmp_path / "bad.yaml").write_text(BAD, "utf-8")
    assert main(["playbook", "check", str(tmp_path / "bad.yaml")]) == 2
    lines = capsys.readouterr().out.splitlines()
    places = [line.removeprefix(f"{tmp_path}/bad.yaml:").split(" ")[0] for line in lines]
    assert places == [
        "6:5:",
        "7:26:",
        "8:19:",
        "9:5:",
        "10:49:",
        "10:60:",
        "11:5:",
        "11:24:",
        "12:11:",
        "13:18:",
    ], lines
    for word, line in zip(
        [
            "foo",
            "Did you mean 'code'",
            "nowhere",
            "two steps",
            "shout",
            "Did you mean 'value'",
            "no name",
            "wrong",
            "'7x'",
            "Did you mean 'noop'",
        ],
        lines,
        strict=True,
    ):
        assert word in line


def test_folders_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder means all below it, cases too; one JSON object for each file; 2 where one of them is wrong."""
    good = BAD[: BAD.index("  - step: a\n")] + "  - step: a\n    tool: {kind: noop}\n"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "good.yaml").write_text(good, "utf-8")
    (tmp_path / "sub" / "good.test.yaml").write_text(
        "cases: [{case: a, expect: {status: completed}}]", "utf-8"
    )
    assert main(["playbook", "check", str(tmp_path)]) == 0
    assert "1 cases" in capsys.readouterr().out
    (tmp_path / "bad.yaml").write_text(BAD, "utf-8")
    assert main(["playbook", "check", str(tmp_path), "--json"]) == 2
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(each["file"]).name, each["ok"]) for each in said] == [
        ("bad.yaml", False),
        ("good.test.yaml", True),
        ("good.yaml", True),
    ]
    assert said[0]["problems"][0] == {
        "line": 6,
        "column": 5,
        "message": "A step cannot have the key 'foo'.",
        "mend": "Allowed: step, desc, spec, input, loop, tool, set, next.",
    }


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing checked must not look like nothing wrong."""
    assert main(["playbook", "check", str(tmp_path)]) == 2
    assert "holds no playbook" in capsys.readouterr().err
