"""The vitals playbook and its sender on real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.cli.client import RuntimeClient
from edge.core.codec import ARROW, CBOR, decode
from edge.vitals.samples import FIGURES, Sample
from edge.vitals.window import stream_of
from tests.process.box import EDGE, Box

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "library" / "vitals.yaml"
QUIET = dict.fromkeys(FIGURES, 1.0)


def _window(rows: int, **figures: float | None) -> bytes:
    values = {**QUIET, **figures}
    return stream_of([Sample(1_795_000_000_000 + 50 * at, tuple(values.values())) for at in range(rows)])


def _verdict_of_a_run(tmp_path: Path, payload: bytes) -> dict[str, Any]:
    """What `edge run` answers for one window."""
    path = tmp_path / "window.arrow"
    path.write_bytes(payload)
    done = subprocess.run(
        [*EDGE, "run", str(PLAYBOOK), "--json", "--input", f"@{path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    whole = json.loads(done.stdout)
    assert whole["status"] == "completed"
    return dict(whole["result"])


def _verdict(box: Box, payload: bytes) -> dict[str, Any]:
    """What a running box answers for one window."""
    box.register(PLAYBOOK.read_text("utf-8"))
    with RuntimeClient(box.settings) as runtime:
        runtime.submit("vitals", payload, ARROW, None)
        status, content_type, answer = runtime.answer()
    document = decode(answer) if content_type == CBOR else json.loads(answer)
    assert status == "completed", document
    return dict(document["result"])


def test_a_quiet_window_is_ok(tmp_path: Path) -> None:
    """Every figure is there with its mean, its maximum and its limit; from a file on the command line."""
    verdict = _verdict_of_a_run(tmp_path, _window(64))
    assert (verdict["ok"], verdict["broken"], verdict["missing"]) == (True, [], [])
    assert (verdict["rows"], verdict["span_ms"]) == (64, 63 * 50)
    assert [figure["name"] for figure in verdict["figures"]] == list(FIGURES)
    assert all(figure["mean"] == figure["max"] == 1.0 for figure in verdict["figures"])


def test_a_verdict_names_what_is_over_and_what_is_missing(shared_box: Box) -> None:
    """A broken limit makes it not ok; a sensor the machine lacks stays null and is named."""
    verdict = _verdict(shared_box, _window(64, cpu_temp_c=None, memory_used_pct=99.5, load_1m=16.0))
    assert verdict["ok"] is False
    assert verdict["broken"] == ["memory_used_pct"]
    assert verdict["missing"] == ["cpu_temp_c"]
    assert verdict["figures"][0] == {
        "name": "cpu_temp_c",
        "max": None,
        "mean": None,
        "limit": 80,
        "over": False,
    }


def test_one_spike_breaks_no_limit(shared_box: Box) -> None:
    """Limits hold for the mean of five readings, not for each."""
    rows = [Sample(1_795_000_000_000 + 50 * at, tuple(QUIET.values())) for at in range(64)]
    rows[40] = Sample(rows[40].at_ms, (200.0, *rows[40].figures[1:]))
    verdict = _verdict(shared_box, stream_of(rows))
    assert verdict["ok"] is True
    assert verdict["figures"][0]["max"] == pytest.approx((200.0 + 4) / 5)


@pytest.mark.parametrize("rows", [0, 31])
def test_a_window_that_says_too_little_gets_no_verdict(shared_box: Box, rows: int) -> None:
    """The other arc answers, in a sentence."""
    verdict = _verdict(shared_box, _window(rows))
    assert verdict["ok"] is False
    assert verdict["problem"] == f"The window has {rows} rows; a verdict needs 32."


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A box on the embedded broker."""
    broker = subprocess.Popen(
        [sys.executable, "-m", "gateway.embedded_broker", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert broker.stdout is not None
    box = Box(tmp_path, int(broker.stdout.readline().rpartition(":")[2]))
    try:
        box.up()
        yield box
    finally:
        box.down()
        broker.terminate()
        broker.wait(timeout=20)
        broker.stdout.close()


def test_this_machines_own_readings_get_a_verdict(box: Box) -> None:
    """`edge vitals` samples 64 rows, is receipted and judged, and the log is whole afterwards."""
    box.edge("playbook", "register", str(PLAYBOOK))
    window = json.loads(box.edge("vitals", "--json").stdout)
    assert window["status"] == "completed"
    assert window["rows"] == window["result"]["rows"] == 64
    assert window["receipt"]["execution_id"] == window["execution_id"]
    missing = set(window["result"]["missing"])
    assert missing <= {"cpu_temp_c", *(name for name in FIGURES if name.startswith(("disk", "net")))}
    found = json.loads(box.edge("show", window["execution_id"], "--json").stdout)
    assert found["principal"] == "vitals"
    assert box.verify().whole


def test_an_unknown_playbook_is_refused_with_the_mend(box: Box) -> None:
    """Before it is registered the sender ends with 2 and one sentence."""
    done = box.edge("vitals", check=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "edge playbook register" in done.stderr
