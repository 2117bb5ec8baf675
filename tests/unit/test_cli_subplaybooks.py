"""Which playbooks a playbook runs, and where their files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.cli.main import main
from edge.cli.subplaybooks import found_below, paths_called
from edge.core.errors import PlaybookInvalid
from edge.testing.plain import playbook


def file(folder: Path, name: str, path: str, *calls: str, code: str | None = None) -> Path:
    steps: list[dict[str, Any]] = [
        {"step": f"s{place}", "tool": {"kind": "playbook", "path": called}}
        for place, called in enumerate(calls)
    ]
    steps = steps or [{"step": "s", "tool": {"kind": "transform", "value": code or 1}}]
    lines = ["apiVersion: noetl.io/v2", "kind: Playbook", "metadata:", f"  name: {name}", f"  path: {path}"]
    target = folder / f"{name}.yaml"
    target.write_text("\n".join([*lines, f"workflow: {json.dumps(steps)}", ""]))
    return target


def test_paths_written_out_are_known_and_templates_are_not() -> None:
    """Only what stands in the file can be looked for."""
    steps = [
        {"step": "a", "tool": {"kind": "playbook", "path": "lib/b"}, "next": ["c"]},
        {"step": "c", "tool": {"kind": "playbook", "path": "lib/{{ workload.x }}"}},
    ]
    assert paths_called(playbook(steps)) == ["lib/b"]


def test_playbooks_beside_a_file_are_found_with_those_they_run(tmp_path: Path) -> None:
    """By their path, not their file's name; circles end; what no file has is said."""
    file(tmp_path, "one", "lib/b", "lib/c", "lib/absent")
    file(tmp_path, "two", "lib/c", "lib/b", "t")
    (tmp_path / "broken.yaml").write_text("lib/b: [")
    parent = playbook([{"step": "a", "tool": {"kind": "playbook", "path": "lib/b"}}])
    found, missing = found_below(parent, tmp_path, ())
    assert sorted(each.path for each in found) == ["lib/b", "lib/c"]
    assert missing == ["lib/absent"]


def test_a_named_file_is_found_anywhere(tmp_path: Path) -> None:
    """`--with` names a file that stands elsewhere."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    named = file(folder, "one", "lib/b")
    found, missing = found_below(
        playbook([{"step": "a", "tool": {"kind": "playbook", "path": "lib/b"}}]), tmp_path, (named,)
    )
    assert ([each.path for each in found], missing) == (["lib/b"], [])


def test_a_broken_playbook_that_is_needed_is_refused(tmp_path: Path) -> None:
    """The file with the path that is looked for does not compile: its problems are told, not that it is missing."""
    file(tmp_path, "one", "lib/b", code="{{ (")
    with pytest.raises(PlaybookInvalid, match=r"one\.yaml"):
        found_below(playbook([{"step": "a", "tool": {"kind": "playbook", "path": "lib/b"}}]), tmp_path, ())


def test_check_says_what_it_does_not_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A playbook no file beside it has is a note: the box may have it by then."""
    parent = file(tmp_path, "parent", "p", "lib/absent")
    assert main(["playbook", "check", str(parent)]) == 0
    assert "'lib/absent'" in capsys.readouterr().out
