"""A box is let in by a file, sends all it has to a real server, and is told so; stopped anywhere it can go on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.segments.sealing import sealed_paths
from edge.store import upstream
from edge.sync import centre as box_centre
from edge.sync.centre import Enrolment
from tests.process.box import PLUS_ONE, Box
from tests.process.centre import Centre


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, 1, centre=True)
    made.start("runtime")
    made.register(PLUS_ONE)
    for n in range(3):
        assert made.run("p", {"n": n})["result"] == n + 1
    yield made
    made.down()


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    made = Centre(tmp_path)
    made.start()
    yield made
    made.stop()


def test_from_enrolment_to_receipt(box: Box, centre: Centre, tmp_path: Path) -> None:
    """Enrolled by a file, once; what would be sent is told; sent, receipted, out of the queue."""
    file = tmp_path / "pump.json"
    words = (
        "central",
        "enrol",
        "testbox",
        "--data",
        str(centre.data),
        "--url",
        centre.url,
        "--out",
        str(file),
    )
    assert "good once, for 30 days" in box.edge(*words).stdout
    assert file.stat().st_mode & 0o077 == 0
    assert "was enrolled with no centre" in box.edge("sync", "push", check=2).stderr
    assert "enrolled with the centre" in box.edge("sync", "enrol", str(file)).stdout
    assert "token" not in next(box.settings.data.rglob("centre.json")).read_text()
    assert "nothing  is sealed yet" in box.edge("sync", "push", "--dry-run").stdout
    sent = json.loads(box.edge("sync", "push", "--json").stdout)
    assert sent["problems"] == []
    assert sent["verdicts"] == {"stored": 1}
    receipt = upstream.read(box.settings.data)
    assert receipt is not None
    assert receipt.through == sent["through"]
    assert sealed_paths(box.settings.sealed_folder) == []
    assert box.run("p", {"n": 7})["result"] == 8
    said = box.edge("sync", "push").stdout
    assert "1 stored" in said
    assert "receipt  the centre has every event up to" in said
    assert len(centre.kept(receipt.log_id)) == 2
    would = json.loads(box.edge("sync", "push", "--dry-run", "--json").stdout)
    assert (would["segments"], would["bytes"]) == (0, 0)


def test_an_enrolment_for_another_box_is_refused(box: Box, centre: Centre, tmp_path: Path) -> None:
    """Before its token is spent, so that the right box still can use it."""
    file = tmp_path / "other.json"
    file.write_bytes(box_centre.document(centre.enrolment("other")))
    refused = box.edge("sync", "enrol", str(file), check=2).stderr
    assert "The enrolment is for box other, and this is testbox" in refused


def test_ctrl_c_says_that_it_goes_on(box: Box, centre: Centre) -> None:
    """A centre that takes the connection and never answers: Ctrl-C ends the command with a plain sentence."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        box_centre.enrol(box.settings, Enrolment(centre.key, "testbox", url))
        # Where the tests run in the background, SIGINT is ignored, and whoever they start would inherit that.
        code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code += "from edge.cli.main import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "sync", "push", "--data", str(box.settings.data)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on where it stopped" in said
