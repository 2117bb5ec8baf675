"""`edge up` as a process: what it starts ends with it, a password stays one, and damage is named."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.cli.client import RuntimeClient
from edge.core.errors import Unavailable
from edge.core.settings import load_settings
from edge.sync.centre import Enrolment, document
from tests.process.box import EDGE, START_S, alive


@contextmanager
def up(data: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A running `edge up` on a free port; killed at the end where it still runs."""
    environment = {**os.environ, "EDGE_DATA": str(data), **variables}
    process = subprocess.Popen(
        [*EDGE, "up", "--port", "0", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)
        assert process.stdout is not None
        process.stdout.close()


def pids_of(data: Path) -> list[int]:
    """The runtime and its children, once it answers."""
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            with RuntimeClient(load_settings(data)) as runtime:
                status = runtime.call("status")
                return [status["pid"], status["zygote_pid"], *status["worker_pids"]]
        except Unavailable:
            assert time.monotonic() < deadline_s, "the runtime does not answer"
            time.sleep(0.02)  # polls a process that has no way to say when it listens


def gone(pids: list[int]) -> bool:
    """Whether all of these end soon."""
    deadline_s = time.monotonic() + 15
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)  # polls for the end of processes that are not our children
    return True


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_supervisor_takes_its_processes_with_it(tmp_path: Path) -> None:
    """After `kill -9` of `edge up` no broker, gateway, runtime or worker is left, and the next one starts."""
    with up(tmp_path / "d") as first:
        pids = pids_of(tmp_path / "d") + children_of(first.pid)
        assert len(children_of(first.pid)) == 3
        first.kill()
        first.wait()
        assert gone(pids)
    with up(tmp_path / "d"):
        assert pids_of(tmp_path / "d")


def test_an_enrolled_box_ships_too(tmp_path: Path) -> None:
    """Beside broker, runtime and gateway runs the process that ships, where there is a centre to ship to."""
    (tmp_path / "d").mkdir()
    enrolment = Enrolment(bytes(32), "box", "https://127.0.0.1:1")
    (tmp_path / "d" / "centre.json").write_bytes(document(enrolment))
    with up(tmp_path / "d") as process:
        pids_of(tmp_path / "d")
        words = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(process.pid)]
        assert sum(b"edge.sync" in line for line in words) == 1


def test_a_hangup_stops_it_in_order(tmp_path: Path) -> None:
    """When the terminal goes, all processes are stopped as by SIGTERM, and its note of the broker is gone."""
    data = tmp_path / "d"
    with up(data) as process:
        pids = pids_of(data) + children_of(process.pid)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 0
        assert gone(pids)
    assert not (data / "run" / "broker").exists()


def test_the_brokers_password_is_told_to_nobody(tmp_path: Path) -> None:
    """It stands in no process's arguments, in no line printed, and in no file others may read."""
    data = tmp_path / "d"
    with up(data, EDGE_BROKER="mqtt://bob:sekrit@127.0.0.1:1") as process:
        pids = [process.pid, *children_of(process.pid), *pids_of(data), *children_of(process.pid)]
        arguments = [Path(f"/proc/{pid}/cmdline").read_text() for pid in set(pids)]
        assert not any("sekrit" in each for each in arguments)
        assert (data / "run" / "broker").stat().st_mode & 0o077 == 0
        assert process.stdout is not None
        assert "sekrit" not in process.stdout.readline()


def test_a_missing_journal_is_not_begun_anew(tmp_path: Path) -> None:
    """With the journal gone and the index there `edge up` ends and says so; put back, the box goes on."""
    data = tmp_path / "d"
    with up(data):
        pids_of(data)
        subprocess.run(
            [*EDGE, "playbook", "register", "playbooks/library/hello.yaml", "--data", str(data)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    (data / "journal").rename(tmp_path / "away")
    with up(data) as process:
        assert process.wait(timeout=START_S) == 2
        assert process.stdout is not None
        assert "Put it back" in process.stdout.read()
    assert not (data / "journal").exists(), "nothing was begun in its place"
    (tmp_path / "away").rename(data / "journal")
    with up(data):
        assert pids_of(data)


@pytest.mark.parametrize("how", ["overwritten", "short"])
def test_a_damaged_index_does_not_start_over_and_over(tmp_path: Path, how: str) -> None:
    """A box whose index is damaged makes it again from the journal, keeps the damaged one, and loses nothing."""
    data = tmp_path / "d"
    with up(data):
        pids_of(data)
        subprocess.run(
            [*EDGE, "playbook", "register", "playbooks/library/hello.yaml", "--data", str(data)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    path = data / "index" / "data.mdb"
    if how == "short":
        os.truncate(path, 20_000)
    else:
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * (path.stat().st_size - 8192))
    with up(data):
        pids_of(data)
        listed = subprocess.run(
            [*EDGE, "playbook", "list", "--data", str(data)], check=True, capture_output=True, text=True
        )
        assert "hello" in listed.stdout
    assert list(data.glob("damaged-*/index/data.mdb"))


def test_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    """SIGINT stops all processes and the exit code is 0."""
    with up(tmp_path / "d") as process:
        pids = pids_of(tmp_path / "d")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert gone(pids)
