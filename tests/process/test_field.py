"""The field script: from boxes by ssh and from sticks to the centre and back; what stands for ssh runs locally."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.segments.sealing import manifest_of, sealed_paths
from edge.store import upstream
from tests.process.box import EDGE, PLUS_ONE, Box

FIELD = Path(__file__).parents[2] / "scripts" / "field"
#: What stands for ssh: the address says what becomes of the command.
SSH = """#!/bin/sh
case "$1" in
  away) echo "ssh: connect to host away port 22: No route to host" >&2; exit 255 ;;
  cut) sh -c "$2" | head -c 1500; exit 255 ;;
  *) exec sh -c "$2" ;;
esac
"""


class Field:
    """A technician's laptop: a list of boxes, a folder of logs, a centre."""

    def __init__(self, folder: Path, box: Box) -> None:
        self.folder, self.box = folder, box
        self.logs, self.centre = folder / "logs", folder / "centre"
        (folder / "ssh").write_text(SSH)
        self.list = folder / "boxes"
        self.visit("pump7")

    def visit(self, *addresses: str) -> None:
        """The boxes on the list: all are the one that there is."""
        lines = [f"{address} {self.box.data}  # in the cellar" for address in addresses]
        self.list.write_text("\n".join(["# north side", *lines, ""]))

    def __call__(self, *words: str, check: int = 0) -> str:
        """Run the script; what it said."""
        environment = {
            **os.environ,
            "EDGE_FIELD_SSH": f"sh {self.folder / 'ssh'}",
            "EDGE_FIELD_EDGE": " ".join(EDGE),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            [sys.executable, str(FIELD), *words], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def enrol(self) -> None:
        """Let the box send, and believe the centre."""
        key = manifest_of(sealed_paths(self.box.settings.sealed_folder)[0]).key.hex()
        words = ["enrol", "testbox", key, "--out", str(self.folder / "e.json"), "--data", str(self.centre)]
        self.box.edge("central", *words)
        self.box.edge("sync", "enrol", str(self.folder / "e.json"))


@pytest.fixture
def field(tmp_path: Path) -> Field:
    """A box that worked, was sealed, and is switched off."""
    box = Box(tmp_path, 1, centre=True)
    box.start("runtime")
    box.register(PLUS_ONE)
    for n in range(3):
        box.run("p", {"n": n})
        box.ask("seal")
    box.down()
    return Field(tmp_path, box)


def test_from_many_boxes_to_the_centre_and_back(field: Field) -> None:
    """Collected, checked, delivered, receipted, and the box lets go; one that does not answer is named, no more."""
    field.visit("pump7", "away")
    said = field("collect", "--boxes", str(field.list), "--into", str(field.logs), "--dry-run")
    assert "would run" in said
    assert not field.logs.exists()
    said = field("collect", "--boxes", str(field.list), "--into", str(field.logs), check=1)
    assert "No route to host" in said
    assert "1 did not work: away" in said
    field.visit("pump7")
    assert "0 files" in field("collect", "--boxes", str(field.list), "--into", str(field.logs))
    assert "whole: events 1 to" in field("verify", str(field.logs))
    assert "No box of this centre" in field(
        "deliver", str(field.logs), "--centre", str(field.centre), check=1
    )
    field.enrol()
    waiting = field("missing", "--boxes", str(field.list), "--centre", str(field.centre))
    assert "segments" in waiting
    assert "receipt up to event 0" in waiting
    assert "receipt" in field("deliver", str(field.logs), "--centre", str(field.centre))
    assert len(sealed_paths(field.box.settings.sealed_folder)) >= 3
    assert "left the queue" in field("receipts", str(field.logs), "--boxes", str(field.list))
    receipt = upstream.read(field.box.data)
    assert receipt is not None
    said = field("missing", "--boxes", str(field.list))
    assert f"nothing that is sealed is missing; receipt up to event {receipt.through}" in said
    assert "nothing to carry" in field("collect", "--boxes", str(field.list), "--into", str(field.logs))


def test_a_line_that_breaks_off_is_named_and_goes_on(field: Field) -> None:
    """What came before stays; the next visit brings the rest, and nothing of the box was changed."""
    field.visit("cut")
    assert "FAILED" in field("collect", "--boxes", str(field.list), "--into", str(field.logs), check=1)
    field.visit("pump7")
    assert "files" in field("collect", "--boxes", str(field.list), "--into", str(field.logs))
    assert "whole" in field("verify", str(field.logs))
    assert upstream.read(field.box.data) is None


def test_sticks_are_gathered(field: Field, tmp_path: Path) -> None:
    """A stick's bundle is copied once; one that was pulled out too early is named; an empty place is too."""
    stick = tmp_path / "stick"
    stick.mkdir()
    said = field.box.edge("bundle", "export", str(stick), "--json", "--same-drive").stdout
    place = Path(json.loads(said)["folder"])
    assert "files" in field("gather", "--into", str(field.logs), str(stick))
    assert "0 files" in field("gather", "--into", str(field.logs), str(stick))
    assert "whole" in field("verify", str(field.logs))
    (place / "MANIFEST.json").unlink()
    assert "was not finished" in field("gather", "--into", str(field.logs), str(stick), check=1)
    assert "no bundle is there" in field(
        "gather", "--into", str(field.logs), str(tmp_path / "boxes"), check=1
    )
