"""The command line where names, locales and terminals are odd: a sentence or a result, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli.main import main

EDGE = [sys.executable, "-m", "edge.cli.main"]
NAMED = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: "Łukasz", path: t}
workflow:
  - {step: a, tool: {kind: noop}}
"""
#: A terminal of ASCII, and Python not allowed to make anything better of it.
ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def edge(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    return subprocess.run(
        [*EDGE, *arguments], capture_output=True, env={**kept, **environment}, timeout=60, check=False
    )


def test_an_input_is_taken_as_typed_whatever_the_locale() -> None:
    """UTF-8 on an ASCII terminal is UTF-8; what is none is refused in a sentence."""
    from edge.cli.inputs import read_input

    given = '{"name": "Łukasz ☃"}'
    as_python_has_it = given.encode().decode("ascii", "surrogateescape")
    assert read_input(os.fsdecode(given.encode()))[0] == given.encode()
    done = edge("request", "hello", "--input", '{"a": "☃"'.encode(), **ASCII)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    done = edge("request", "hello", "--input", b"\xff\xfd")
    assert (done.returncode, b"not UTF-8 at byte 0" in done.stderr) == (2, True), done.stderr
    assert as_python_has_it != given


def test_signs_that_a_terminal_lacks_are_shown_by_number(tmp_path: Path) -> None:
    """What an ASCII terminal cannot show is there all the same, and nothing fails for it."""
    path = tmp_path / "Łukasz.yaml"
    path.write_text(NAMED)
    done = edge("playbook", "check", os.fsencode(path), **ASCII)
    assert done.returncode == 0, done.stderr
    assert b"\\udcc5\\udc81ukasz.yaml: ok" in done.stdout
    done = edge("playbook", "reference", **ASCII)
    assert (done.returncode, b"\\u2020" in done.stdout) == (0, True), done.stderr


def test_a_file_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    """Names of files are bytes; one that is no UTF-8 is said like any other."""
    done = edge("playbook", "check", os.fsencode(tmp_path) + b"/\xff.yaml")
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["playbook", "check", ""], ["playbook", "test", ""], ["playbook", "graph", ""], ["run", ""]],
    ids=" ".join,
)
def test_an_empty_files_name_is_not_the_folder_one_is_in(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that a script forgot to set is refused, where it would check the whole tree below."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "a file's name cannot be empty" in capsys.readouterr().err


def test_what_a_command_cannot_read_or_write_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data folder that is a file, a playbook that is not there, a file that is empty."""
    file = tmp_path / "file"
    file.write_text("")
    assert main(["log", "stat", "--data", str(file)]) == 2
    assert f"{file} is no folder. Name a folder with --data." in capsys.readouterr().err
    assert main(["playbook", "test", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml cannot be read: No such file" in capsys.readouterr().err
    assert main(["playbook", "check", str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().out.count("no.yaml") == 1
    cases = tmp_path / "a.test.yaml"
    cases.write_text("# nothing yet\n")
    assert main(["playbook", "check", str(cases)]) == 2
    assert "cases with `cases:`" in capsys.readouterr().out


def test_an_input_without_a_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`edge playbook test --input` alone would be passed over in silence: each case has its own."""
    assert main(["playbook", "test", str(tmp_path), "--input", "{}"]) == 2
    assert "--record" in capsys.readouterr().err


def test_an_interrupt_while_the_command_is_loaded_is_no_traceback() -> None:
    """Ctrl-C in the first moment, when only modules are read, ends it as later: quietly, with 130."""
    held = "import os, signal, sys, importlib; import edge.cli.main as cli; real = cli.import_module\n"
    held += "def late(name):\n    os.kill(os.getpid(), signal.SIGINT)\n    return real(name)\n"
    held += "cli.import_module = late\nsys.exit(cli.main(['log', 'stat']))"
    done = subprocess.run([sys.executable, "-c", held], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
