"""`edge run` and `edge playbook test` leave nothing behind: no process, no folder, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.cli.scratch import scratch, sweep
from edge.core.settings import load_settings
from tests.process.box import EDGE, START_S, alive

BUSY = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: busy, path: t/busy}
workflow:
  - step: work
    tool: {kind: python, code: "import time\\ntime.sleep(600)\\nresult = 1"}
"""
CASES = "cases:\n  - {case: it never ends, expect: {status: completed}}\n"
#: A command, and how many processes it has at work: runtime, zygote, two workers; a rehearsal warms none.
RUN, TEST = (("run",), 4), (("playbook", "test"), 3)


@contextmanager
def working(folder: Path, arguments: tuple[str, ...], processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose block never ends, once its processes are at work; killed at the end."""
    (folder / "p.yaml").write_text(BUSY)
    (folder / "p.test.yaml").write_text(CASES)
    process = subprocess.Popen(
        [*EDGE, *arguments, str(folder / "p.yaml")],
        env={**os.environ, "TMPDIR": str(folder), "EDGE_DATA": str(folder / "d")},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + START_S
        while len(at_work(folder)) < processes:
            assert time.monotonic() < deadline_s, "its processes do not start"
            time.sleep(0.05)  # polls for processes that are not our children
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in at_work(folder):  # only where the test fails
            os.kill(pid, signal.SIGKILL)


def at_work(folder: Path) -> list[int]:
    """Every process with a scratch folder below this one among its arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if f"--data\0{folder}/edge-".encode() in words:
            found.append(int(path.parent.name))
    return [pid for pid in found if alive(pid)]


def ended(folder: Path) -> bool:
    deadline_s = time.monotonic() + 15
    while at_work(folder):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)  # polls for the end of processes that are not our children
    return True


def folders(below: Path) -> list[Path]:
    return sorted(below.glob("edge-*"))


@pytest.mark.parametrize(("arguments", "processes"), [RUN, TEST], ids=["run", "test"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_told_to_end(
    tmp_path: Path, arguments: tuple[str, ...], processes: int, number: signal.Signals
) -> None:
    """A signal that ends the command ends its processes and removes its folders first; the code says which."""
    with working(tmp_path, arguments, processes) as process:
        (made,) = folders(tmp_path)
        cache = load_settings(made).cache_folder
        assert cache.exists()
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
        assert at_work(tmp_path) == []
        assert folders(tmp_path) == []
        assert not cache.exists()


@pytest.mark.parametrize(("arguments", "processes"), [RUN, TEST], ids=["run", "test"])
def test_killed(
    tmp_path: Path, arguments: tuple[str, ...], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `kill -9` its processes end by themselves, and the next command removes what they left."""
    with working(tmp_path, arguments, processes) as process:
        (made,) = folders(tmp_path)
        cache = load_settings(made).cache_folder
        process.kill()
        assert ended(tmp_path)
        assert made.exists()
        assert cache.exists()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        deadline_s = time.monotonic() + 15
        while folders(tmp_path):
            # A process that ends lets go of its memory, by which we saw it, before it lets go of the lock.
            assert time.monotonic() < deadline_s
            sweep()
        assert not cache.exists()


def test_a_command_that_was_told_to_ignore_a_hangup_does(tmp_path: Path) -> None:
    """Under `nohup` the end of the terminal ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with working(tmp_path, *RUN) as process:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_sweep_leaves_what_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder somebody works in stays, one without a lock of ours stays, and so does what a link names."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stranger = tmp_path / "edge-run-stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("years of work")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "scratch.lock").touch()
    (tmp_path / "edge-run-link").symlink_to(elsewhere)
    with scratch("edge-run-") as made:
        sweep()
        assert made.settings.data.exists()
    assert not made.settings.data.exists()
    assert (stranger / "thesis.txt").exists()
    assert (elsewhere / "scratch.lock").exists()
