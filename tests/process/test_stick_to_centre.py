"""The whole way without a network: a box, a stick, a centre, a receipt, and only then pruning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.segments.cuts import Cuts
from edge.segments.sealing import sealed_paths
from edge.store import upstream
from edge.sync.bundle import MANIFEST
from tests.process.box import PLUS_ONE, Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, 1, centre=True)
    made.start("runtime")
    made.register(PLUS_ONE)
    for n in range(5):
        assert made.run("p", {"n": n})["result"] == n + 1
    yield made
    made.down()


def export(box: Box, stick: Path) -> Path:
    stick.mkdir(exist_ok=True)
    return Path(
        json.loads(box.edge("bundle", "export", str(stick), "--json", "--same-drive").stdout)["folder"]
    )


def central(box: Box, *words: str, check: int = 0) -> str:
    """`edge central` beside the box's own folder; what it said."""
    done = box.edge("central", *words, "--data", str(box.data.parent / "centre"), check=check)
    return done.stdout + done.stderr


def test_from_the_box_to_the_centre_and_back(box: Box, tmp_path: Path) -> None:
    """Unknown, enrolled, taken, receipted; a second visit adds what is new; the receipt of another box is refused."""
    place = export(box, tmp_path / "stick")
    key = json.loads((place / MANIFEST).read_text())["key"]
    refused = central(box, "import", str(place), check=1)
    assert f"edge central enrol testbox {key}" in refused
    enrolment = tmp_path / "testbox.json"
    assert "enrolled testbox" in central(box, "enrol", "testbox", key, "--out", str(enrolment))
    assert "receipt  up to event" in central(box, "import", str(place))
    assert "1 already" in central(box, "import", str(place))
    assert "enrolled with no centre" in box.edge("sync", "receipt", str(place / "RECEIPT"), check=2).stderr
    assert "enrolled with the centre" in box.edge("sync", "enrol", str(enrolment)).stdout
    assert "has nothing yet" in box.edge("sync", "status").stdout
    assert "1 segment left the queue" in box.edge("sync", "receipt", str(place / "RECEIPT")).stdout
    assert sealed_paths(box.settings.sealed_folder) == []
    receipt = upstream.read(box.settings.data)
    assert receipt is not None
    assert box.run("p", {"n": 7})["result"] == 8
    second = export(box, tmp_path / "stick2")
    assert "receipt  up to event" in central(box, "import", str(second))
    scanned = box.edge("receipt", "show", str(second / "RECEIPT"), "--text").stdout
    assert scanned.startswith("EDGE1:")
    box.edge("sync", "receipt", scanned.lower())
    assert "by the centre of this box" in box.edge("receipt", "show", "--qr").stdout
    later = upstream.read(box.settings.data)
    assert later is not None
    assert later.through > receipt.through
    assert "none     every log" in central(box, "gaps")
    assert "from 2 segments" in central(box, "rebuild")
    assert "1 already" in central(box, "import", str(second))
    assert key in central(box, "boxes")
    changed = bytearray((second / "RECEIPT").read_bytes())
    changed[70] ^= 1
    (second / "RECEIPT").write_bytes(changed)
    assert (
        "not signed by this box's centre"
        in box.edge("sync", "receipt", str(second / "RECEIPT"), check=1).stderr
    )


def test_what_is_missing_is_named(box: Box, tmp_path: Path) -> None:
    """The second stick comes first: its events are parked, and the missing ones are named until they come."""
    first = export(box, tmp_path / "stick")
    assert box.run("p", {"n": 7})["result"] == 8
    both = export(box, tmp_path / "stick2")
    key = json.loads((first / MANIFEST).read_text())["key"]
    central(box, "enrol", "testbox", key)
    sealed_paths(both)[0].unlink()
    said = central(box, "import", str(both), check=1)
    assert "1 parked" in said
    assert "000000000000.segment is absent" in said
    assert "events 1 to" in central(box, "gaps", check=1)
    central(box, "import", str(first))
    assert "none     every log" in central(box, "gaps")


def test_a_lost_queue_and_a_segment_that_rots_at_the_centre(box: Box, tmp_path: Path) -> None:
    """What was never delivered is sealed again as it was; what was, for who asks: the centre has it whole again."""
    key = json.loads((export(box, tmp_path / "stick") / MANIFEST).read_text())["key"]
    enrolment = tmp_path / "testbox.json"
    central(box, "enrol", "testbox", key, "--out", str(enrolment))
    box.edge("sync", "enrol", str(enrolment))
    assert box.run("p", {"n": 7})["result"] == 8
    first = export(box, tmp_path / "stick")
    files = {path.name: path.read_bytes() for path in sealed_paths(first)}
    assert len(files) == 2
    central(box, "import", str(first))
    shutil.rmtree(box.settings.sealed_folder)
    assert "neither at the centre nor in the queue" in box.edge("sync", "status", check=1).stdout
    again = export(box, tmp_path / "stick2")
    assert {path.name: path.read_bytes() for path in sealed_paths(again)} == files
    assert "2 already" in central(box, "import", str(again))
    box.edge("sync", "receipt", str(again / "RECEIPT"))
    assert sealed_paths(box.settings.sealed_folder) == []
    rotten = min((box.data.parent / "centre" / "segments").glob("*/*.segment"))
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"?")
    assert "edge bundle export FOLDER --all on the box" in central(box, "audit", check=1)
    (tmp_path / "stick3").mkdir()
    box.edge("bundle", "export", str(tmp_path / "stick3"), "--same-drive", "--all")
    (third,) = (tmp_path / "stick3").iterdir()
    assert {path.name: path.read_bytes() for path in sealed_paths(third)} == files
    box.edge("bundle", "verify", str(third))
    said = box.edge("bundle", "import", str(third), "--data", str(box.data.parent / "centre")).stdout
    assert "2 already" in said
    central(box, "audit")
    assert sealed_paths(box.settings.sealed_folder) == []
    Cuts(box.settings.sealed_folder).path.unlink()
    (tmp_path / "stick4").mkdir()
    assert box.run("p", {"n": 1})["result"] == 2
    said = box.edge("bundle", "export", str(tmp_path / "stick4"), "--same-drive", "--all", check=1).stdout
    assert "lacking  events 1 to " in said
    assert "is not known any more" in said
