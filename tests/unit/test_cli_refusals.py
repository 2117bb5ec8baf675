"""What the command line refuses before it touches anything, and with which exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.main import main
from edge.core.errors import Misconfigured, RequestRefused
from edge.core.settings import load_settings
from gateway.topics import request_topic


@pytest.mark.parametrize("last", ["0", "-5", "many"])
def test_a_count_must_be_above_zero(last: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--last` with no number above 0 is a usage error."""
    with pytest.raises(SystemExit) as ended:
        main(["log", "show", "--last", last])
    assert ended.value.code == 2
    assert "above 0" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_must_be_one(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--port` with what is no port is a usage error that says what is."""
    with pytest.raises(SystemExit) as ended:
        main(["up", "--port", port])
    assert ended.value.code == 2
    assert "0 to 65535" in capsys.readouterr().err


def test_a_time_limit_must_be_above_zero() -> None:
    """A request with a time limit below 0 is never sent."""
    with pytest.raises(SystemExit) as ended:
        main(["request", "hello", "--timeout", "-1"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("principal", "playbook"), [("x/y", "hello"), ("a", "a b/+/#"), ("", "hello"), ("a", "")]
)
def test_names_that_cannot_be_in_a_topic_are_refused(principal: str, playbook: str) -> None:
    """A principal is one level and a path has no wildcards: said at once, not after a minute of silence."""
    with pytest.raises(RequestRefused):
        request_topic("box", principal, playbook)


def test_a_data_folder_too_long_for_its_socket_is_refused(tmp_path: Path) -> None:
    """A unix socket's path may have 107 bytes; the refusal says so instead of failing later."""
    with pytest.raises(Misconfigured, match="too long"):
        load_settings(tmp_path / ("l" * 120))


def test_a_folder_without_a_log_is_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`edge log show` on a folder that holds no log exits with 2 and makes nothing there."""
    assert main(["log", "show", "--data", str(tmp_path / "none")]) == 2
    assert "There is no log" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_every_problem_of_a_playbook_stands_on_its_own_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`edge run` on a wrong file prints `file:line:column` lines, as editors read them, and exits with 2."""
    path = tmp_path / "wrong.yaml"
    path.write_text("apiVersion: noetl.io/v2\nkind: Playbok\nextra: 1\n")
    assert main(["run", str(path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) > 1
    assert all(line.startswith(f"{path}:") for line in lines)
