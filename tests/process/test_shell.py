"""The shell kind with a real launcher: programs, their bounds, their end, and what they cannot do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.access import Access
from edge.core.errors import ToolFailed
from edge.core.limits import PROGRAM_OUTPUT_BYTES_MAX
from edge.testing.plain import playbook
from edge.tools.registry import tool
from edge.worker import programs
from edge.worker.launcher import fork_launcher
from playbooks.evaluate import render
from playbooks.shape import Task
from tests.process.box import Box

pytestmark = [pytest.mark.forks, pytest.mark.sandbox]

SH, CAT = "/bin/sh", "/bin/cat"


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[None]:
    """A launcher that may run sh and cat, and write into one folder."""
    (tmp_path / "out").mkdir()
    access = Access(programs=(SH, CAT, "/nowhere/x"), files=((str(tmp_path / "out"), "write"),))
    door = fork_launcher(access, 64)
    programs.use(door)
    yield
    door.close()


class Lent:
    execution_id = step = idempotency_key = "e"
    effect = "write"

    def __init__(self, task: Task, scope: dict[str, Any]) -> None:
        self.access, self._scope = task.access, scope

    def render(self, tree: Any, extra: Any = None) -> Any:
        return render(tree, self._scope)

    def run_program(self, *given: Any) -> Any:
        return programs.run_program(*given)


def compiled(cmd: list[Any], granted: tuple[str, ...] = (SH, CAT, "/nowhere/x"), **keys: Any) -> Task:
    spec = {"policy": {"access": {"programs": list(granted)}}}
    step = {"step": "s", "input": {"x": 1}, "spec": spec, "tool": {"kind": "shell", "cmd": cmd, **keys}}
    return playbook([step]).steps[0].tasks[0]


def run(cmd: list[Any], inputs: dict[str, Any] | None = None, **keys: Any) -> Any:
    task = compiled(cmd, **keys)
    return tool("shell").run(task.config, inputs or {}, Lent(task, inputs or {}))


def refused(cmd: list[Any], inputs: dict[str, Any] | None = None, **keys: Any) -> ToolFailed:
    with pytest.raises(ToolFailed) as caught:
        run(cmd, inputs, **keys)
    return caught.value


def sh(text: str, *arguments: Any) -> list[Any]:
    return [SH, "-c", text, "sh", *arguments]


@pytest.mark.usefixtures("launcher")
def test_a_program_and_what_it_says() -> None:
    """Exit code and both outputs, as NoETL's tool gives them; a short name is the granted program's."""
    assert run(sh("echo out; echo err >&2")) == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n"}
    assert run(["sh", "-c", "echo x"])["stdout"] == "x\n"


@pytest.mark.usefixtures("launcher")
def test_arguments_are_never_read_by_a_shell() -> None:
    """Whatever a value holds, it is one argument."""
    evil = '$(id); "`id`" \n; rm -rf x'
    assert run(sh('printf %s "$1" "$2"', "{{ x }}", 5), {"x": evil})["stdout"] == f"{evil}5"


@pytest.mark.usefixtures("launcher")
def test_environment_and_input() -> None:
    """The environment holds what is named and nothing else; stdin is what was given, whole."""
    got = run(sh("export -p; echo $A"), {"x": 7}, env={"A": "{{ x }}", "B": None})
    assert got["stdout"].splitlines()[-1] == "7"
    assert "EDGE" not in got["stdout"]
    assert "PATH=/" not in got["stdout"].replace("PWD", "")
    big = "ü" * 200_000
    assert run([CAT], {"x": big}, stdin="{{ x }}")["stdout"] == big
    assert run(sh("exit 0"), {"x": big}, stdin="{{ x }}")["exit_code"] == 0


@pytest.mark.usefixtures("launcher")
def test_json() -> None:
    """Output that is JSON becomes `data` where it is asked for."""
    assert run(sh("echo '{\"a\": [1]}'"), **{"as": "json"})["data"] == {"a": [1]}
    assert refused(sh("echo nope"), **{"as": "json"}).problem_code == "response_invalid"


@pytest.mark.usefixtures("launcher")
def test_a_program_that_fails_keeps_its_words() -> None:
    """An exit code that is not 0 fails with both outputs; a signal says its name."""
    error = refused(sh("echo half; echo why >&2; exit 3"))
    assert error.problem_code == "exit_code"
    assert error.details["shell"] == {"exit_code": 3, "stdout": "half\n", "stderr": "why\n"}
    assert refused(["/nowhere/x"]).problem_code == "program_failed"


@pytest.mark.usefixtures("launcher")
def test_time_ends_everything_it_started(tmp_path: Path) -> None:
    """When its time is up, the program and all its children are dead when the answer comes."""
    note = tmp_path / "out" / "pid"
    error = refused(
        sh('(echo $$ > "$1"; while :; do :; done) & while :; do :; done', str(note)), timeout="300ms"
    )
    assert (error.problem_code, error.details["retryable"]) == ("timeout", True)
    group = int(note.read_text())
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


@pytest.mark.usefixtures("launcher")
def test_nothing_outlives_a_run(tmp_path: Path) -> None:
    """A child left in the background ends with the run, though it holds the output open."""
    note = tmp_path / "out" / "pid"
    got = run(sh('(while :; do :; done) & echo $! > "$1"; echo done', str(note)))
    assert got["stdout"] == "done\n"
    assert not Path(f"/proc/{note.read_text().strip()}").exists()


@pytest.mark.usefixtures("launcher")
def test_output_is_bounded() -> None:
    """A program that does not stop writing is stopped."""
    assert (
        refused(sh("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")).problem_code
        == "output_too_large"
    )
    assert PROGRAM_OUTPUT_BYTES_MAX == 1 << 20


ESCAPES = {
    "another program": "/bin/ls /",
    "reading": "read x < /etc/passwd",
    "writing": "echo x > /tmp/edge-shell-escape",
    "the loader's help": "/bin/sh -c '/bin/true'",
    "signalling us": "kill -9 $1",
}


@pytest.mark.usefixtures("launcher")
@pytest.mark.parametrize("name", ESCAPES)
def test_what_a_program_cannot_do(name: str) -> None:
    """Other programs, files and processes are shut, whatever the granted program tries."""
    error = refused(sh(ESCAPES[name], os.getpid()))
    assert error.problem_code == "exit_code"
    assert not Path("/tmp/edge-shell-escape").exists()


def test_when_the_worker_goes_its_programs_go(tmp_path: Path) -> None:
    """A worker killed in the middle of a run leaves no process behind."""
    note = tmp_path / "pid"
    access = Access(programs=(SH,), files=((str(tmp_path), "write"),))
    pid = os.fork()
    if pid == 0:
        try:
            programs.use(fork_launcher(access, 64))
            programs.run_program(sh('echo $$ > "$1"; while :; do :; done', str(note)), {}, b"", 60_000)
        finally:
            os._exit(0)
    deadline_s = time.monotonic() + 20
    while not (note.exists() and note.read_text().strip()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while Path(f"/proc/{note.read_text().strip()}").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("cmd", "inputs", "keys", "code"),
    [
        (["/bin/sh", "{{ x }}"], {"x": [1]}, {}, "request_invalid"),
        (["/bin/sh", "{{ x }}"], {"x": "a\0b"}, {}, "request_invalid"),
        (["/bin/sh"], {"x": 1}, {"env": "{{ x }}"}, "request_invalid"),
        (["/bin/sh"], {"x": {"A=B": "1"}}, {"env": "{{ x }}"}, "request_invalid"),
        (["/bin/sh"], {"x": {"a": 1}}, {"stdin": "{{ x }}"}, "request_invalid"),
    ],
)
def test_what_cannot_be_run(cmd: list[Any], inputs: dict[str, Any], keys: dict[str, Any], code: str) -> None:
    """Arguments, names and input that no program can have are refused before it starts."""
    assert refused(cmd, inputs, **keys).problem_code == code


def test_shell_is_a_write() -> None:
    """A program changes the world unless the playbook says that it only asks."""
    assert compiled([SH]).effect == "write"
    assert compiled([SH], spec={"effect": "read"}).effect == "read"


def test_on_a_box(tmp_path: Path) -> None:
    """A step runs its granted program in a worker that itself may start none."""
    box = Box(tmp_path, 1)
    source = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: s, path: s}
workflow:
  - step: run
    spec: {policy: {access: {programs: [/bin/sh]}}}
    input: {n: 20}
    tool:
      - {name: say, kind: shell, cmd: [sh, -c, 'echo $(($1 + 1))', sh, "{{ n }}"], as: json}
      - {name: more, kind: transform, value: "{{ say.data * 2 }}"}
"""
    try:
        box.start("runtime")
        box.register(source)
        answer = box.run("s")
    finally:
        box.down()
    assert answer.get("result") == 42, answer
