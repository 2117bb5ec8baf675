"""`edge playbook register` on a running box: what is registered, what is passed over, what stops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.main import main
from tests.process.box import Box

PLAYBOOK = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: r/p}
workflow:
  - {step: a, tool: {kind: noop}}
  - {step: b, tool: {kind: noop}}
"""


def test_a_whole_folder_is_registered(
    quiet_box: Box, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of cases are passed over with a line; a warning stops nothing, and where one file is wrong nothing is."""
    (tmp_path / "p.yaml").write_text(PLAYBOOK, "utf-8")
    (tmp_path / "p.test.yaml").write_text("cases: [{case: a, expect: {status: completed}}]", "utf-8")
    (tmp_path / "wrong.yaml").write_text(PLAYBOOK.replace("noop", "nop"), "utf-8")
    data = ["--data", str(quiet_box.settings.data)]
    command = ["playbook", "register", *data, str(tmp_path / "p.test.yaml"), str(tmp_path / "p.yaml")]
    assert main([*command, str(tmp_path / "wrong.yaml")]) == 2
    assert main(["playbook", "list", *data]) == 0
    assert "r/p " not in capsys.readouterr().out
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"{tmp_path}/p.test.yaml: skipped, a file of cases (edge playbook test)" in said.out
    assert "r/p registered" in said.out
    assert f"{tmp_path}/p.yaml:6:12: warning: No arc leads to step b" in said.err
