"""The plug test itself: an honest drive passes it at every cut, one that ignores flushes or tears blocks does not."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from edge.doctor import plug
from edge.doctor.findings import FAIL, OK
from tests.faults.recording_drive import KEPT, Cuts, Done, Drive, build, mounted, read_record

SEED = 20261125
RECORDS = 250
CUTS = 8


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Done], Path]:
    """What a plug test did to a drive, and the empty drive it began on."""
    program = build(tmp_path_factory.mktemp("program"))
    place = tmp_path_factory.mktemp("drive")
    with Drive(program, place) as drive:
        say = os.open(drive.say, os.O_WRONLY)
        try:
            numbers = plug.write_until_cut(
                drive.folder, lambda number: bool(os.write(say, b"told %d\n" % number))
            )
            assert list(itertools.islice(numbers, RECORDS))[-1] == RECORDS
            numbers.close()
        finally:
            os.close(say)
    return read_record(drive.record), drive.base


def grades(
    recorded: tuple[list[Done], Path], place: Path, *, flushes_count: bool = True, ruined_bytes: int = 0
) -> Iterator[tuple[str, str]]:
    """Grade and words of the second half, after cuts at random moments of the writing."""
    done, base = recorded
    chance = Random(SEED)
    images = Cuts(done, base, place, flushes_count=flushes_count)
    told = [at for at, one in enumerate(done) if one.kind == "s"]
    for number, at in enumerate(sorted(chance.sample(range(told[0] + 1, len(done)), CUTS))):
        image = images.cut(at, KEPT[number % len(KEPT)], chance, ruined_bytes)
        with mounted(image, place / "files", "ext4") as sound:
            if not sound or not (place / "files" / plug.FILE_NAME).exists():
                yield FAIL, "lost even the file"
                continue
            finding = plug.judge(plug.look(place / "files", images.told), images.told)
            yield finding.grade, finding.says


def test_a_drive_that_flushes_passes_at_every_cut(recorded: tuple[list[Done], Path], tmp_path: Path) -> None:
    """Whatever it made of what was not flushed: every told record is there."""
    found = list(grades(recorded, tmp_path))
    assert [grade for grade, _ in found] == [OK] * CUTS, found


def test_a_drive_that_ignores_flushes_is_found_out(recorded: tuple[list[Done], Path], tmp_path: Path) -> None:
    """It has lost the last records that it said it had."""
    found = [says for grade, says in grades(recorded, tmp_path, flushes_count=False) if grade == FAIL]
    assert any("lost the last" in says for says in found), found


def test_a_drive_that_tears_blocks_is_told_apart(recorded: tuple[list[Done], Path], tmp_path: Path) -> None:
    """Older records in the block under the last write are gone with it: the end is named."""
    found = [says for grade, says in grades(recorded, tmp_path, ruined_bytes=16 * 1024) if grade == FAIL]
    assert found


def test_the_second_machine_needs_only_a_socket(tmp_path: Path) -> None:
    """The command tells its numbers a line each; killed at any moment, the check of the last one is well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        port = server.getsockname()[1]
        edge = [sys.executable, "-m", "edge.cli.main", "doctor", "--data", str(tmp_path)]
        writing = subprocess.Popen(
            [*edge, "--drive-test", f"127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True
        )
        try:
            line, _ = server.accept()
            with line:
                line.settimeout(60)
                heard = b""
                while heard.count(b"\n") < 50:
                    heard += line.recv(65_536)
                writing.send_signal(signal.SIGKILL)
                while more := line.recv(65_536):
                    heard += more
        finally:
            writing.kill()
            writing.communicate()
    numbers = [int(each) for each in heard.split(b"\n")[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))
    checked = subprocess.run(
        [*edge, "--drive-check", str(numbers[-1])], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked
    assert re.match(rf"ok +drive +all {numbers[-1]} records that were told are there", checked.stdout)
    beyond = subprocess.run(
        [*edge, "--drive-check", str(numbers[-1] + 9)], capture_output=True, text=True, check=False
    )
    assert beyond.returncode == 1
    assert "lost the last" in beyond.stdout
