"""The process that ships, killed at any moment beside a real box: everything arrives once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from edge.core.errors import Unavailable
from edge.segments.cuts import read_head
from edge.segments.sealing import manifest_of, number_of, sealed_paths
from edge.store import upstream
from edge.sync import box_door
from edge.sync.centre import Enrolment, document, parse
from tests.process.box import PLUS_ONE, Box
from tests.process.centre import Centre
from tests.process.test_service_life import WATCHDOG_US, Ear
from tests.process.test_units import require_namespaces, require_systemd

PATIENCE_S = 60.0


class Share:
    """A centre that imports what is left in a share, and leaves its receipt there."""

    def __init__(self, folder: Path, box: Box) -> None:
        self.data, self.share, self.box = folder / "centre", folder / "share", box
        self.share.mkdir(exist_ok=True)

    def enrol(self) -> None:
        """Let the box send."""
        self.box.ask("seal")
        key = manifest_of(sealed_paths(self.box.settings.sealed_folder)[0]).key.hex()
        enrolment = str(self.data.parent / "enrolment.json")
        self.box.edge("central", "enrol", "testbox", key, "--out", enrolment, "--data", str(self.data))
        self.box.edge("sync", "enrol", enrolment)

    def take_in(self) -> None:
        """Import what lies in the share, whole or not."""
        for place in self.share.glob("noetl-edge-*"):
            self.box.edge("central", "import", str(place), "--data", str(self.data), check=None)


def ship(box: Box, *started_by: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start the process that ships."""
    command = [*started_by, sys.executable, "-m", "edge.sync", "--data", str(box.data)]
    with (box.data.parent / "sync.log").open("ab") as log:
        return subprocess.Popen(command, stderr=log, env=os.environ | environment)


def ship_heard(box: Box) -> subprocess.Popen[bytes]:
    """The same, once it heeds signals: one that ends it earlier would end it by itself."""
    path = box.data.parent / f"ready-{time.monotonic_ns()}"
    ear = Ear(path)
    process = ship(box, **ear.environment)
    ear.until("READY=1")
    ear.close()
    path.unlink()
    return process


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, 1, centre=True, ship_to=str(tmp_path / "share"))
    made.start("runtime")
    made.register(PLUS_ONE)
    made.run("p", {"n": 1})
    yield made
    made.down()


def _until(happened: object, what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, what
        time.sleep(0.05)  # polls files of a process that says nothing to us


def test_killed_at_any_moment_everything_arrives_once(box: Box, tmp_path: Path) -> None:
    """Ten kills at chance moments while a box works: the centre links all that is sealed, the receipt frees it."""
    centre, chance = Share(tmp_path, box), Random(5)
    centre.enrol()
    for n in range(10):
        box.run("p", {"n": n})
        box.ask("seal")
        process = ship(box)
        time.sleep(chance.random() * 1.5)  # the moment is the test
        process.kill()
        process.wait()
        if n % 3 == 2:
            centre.take_in()
    head = read_head(box.settings.sealed_folder)
    assert head is not None
    process = ship_heard(box)
    _until(lambda: len(list(centre.share.glob("*/*.segment"))) == head.number + 1, "not all was left")
    _until(lambda: list(centre.share.glob("*/MANIFEST.json")), "the bundle was not finished")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == 0
    centre.take_in()
    assert "none     every log" in box.edge("central", "gaps", "--data", str(centre.data)).stdout
    process = ship_heard(box)
    _until(lambda: not sealed_paths(box.settings.sealed_folder), "the receipt freed nothing")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == 0
    receipt = upstream.read(box.settings.data)
    assert receipt is not None
    assert receipt.through == head.last_seq
    said = json.loads(box.edge("sync", "status", "--json").stdout)
    assert (said["waiting_segments"], said["gaps"], said["problems"]) == (0, [], [])
    assert said["daemon"]


def test_over_https_with_both_ends_killed(tmp_path: Path) -> None:
    """Eight kills of box's or centre's process at chance moments: every segment is there once, byte for byte."""
    box, centre, chance = Box(tmp_path, 1, centre=True), Centre(tmp_path), Random(7)
    box.start("runtime")
    box.register(PLUS_ONE)
    centre.start()
    enrolment = tmp_path / "enrolment.json"
    enrolment.write_bytes(document(centre.enrolment("testbox")))
    box.edge("sync", "enrol", str(enrolment))
    sealed: dict[int, bytes] = {}
    for n in range(8):
        box.run("p", {"n": n})
        box.ask("seal")
        sealed |= {number_of(path): path.read_bytes() for path in sealed_paths(box.settings.sealed_folder)}
        process = ship(box)
        time.sleep(chance.random() * 1.5)  # the moment is the test
        if n % 2:
            centre.stop(signal.SIGKILL)
            centre.start()
        process.kill()
        process.wait()
    process = ship_heard(box)
    _until(lambda: not sealed_paths(box.settings.sealed_folder), "not all was receipted")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == 0
    head = read_head(box.settings.sealed_folder)
    assert head is not None
    assert centre.kept(head.log_id) == sealed
    assert list(sealed) == list(range(head.number + 1))
    assert json.loads(box.edge("sync", "status", "--json").stdout)["receipted"] == head.last_seq
    assert centre.stop() == 0
    box.down()


def test_it_ships_within_its_unit(tmp_path: Path) -> None:
    """Held as its unit holds it, heard as systemd hears it: ready, alive, what it does, stopping; no log in sight."""
    require_systemd()
    require_namespaces()
    box, centre, ear = Box(tmp_path, 1, centre=True), Centre(tmp_path), Ear(tmp_path / "sync.sock")
    box.start("runtime")
    box.register(PLUS_ONE)
    centre.start()
    enrolment = tmp_path / "enrolment.json"
    enrolment.write_bytes(document(centre.enrolment("testbox")))
    box.edge("sync", "enrol", str(enrolment))
    box.run("p", {"n": 1})
    box.ask("seal")
    held = (sys.executable, "-m", "tests.process.unit_confinement", "edge-sync.service", str(box.data))
    process = ship(box, *held, WATCHDOG_USEC=str(WATCHDOG_US), **ear.environment)
    _until(lambda: not sealed_paths(box.settings.sealed_folder), (tmp_path / "sync.log").read_text())
    ear.until("STATUS=all that is sealed is at the centre")
    ear.until("WATCHDOG=1")
    assert "READY=1" in ear.heard
    seen = Path(f"/proc/{process.pid}/root") / box.data.relative_to("/")
    assert list((seen / "journal").iterdir()) == list((seen / "index").iterdir()) == []
    assert list((box.data / "journal").iterdir())
    process.send_signal(signal.SIGTERM)
    ear.until("STOPPING=1")
    assert process.wait(timeout=PATIENCE_S) == 0
    ear.close()
    assert centre.stop() == 0
    box.down()


def test_a_box_whose_centre_takes_sticks_only_is_left_alone(tmp_path: Path) -> None:
    """Enrolled without an address: ready, then done, with code 0, and `edge sync status` calls it no trouble."""
    box, ear = Box(tmp_path, 1, centre=True), Ear(tmp_path / "sync.sock")
    (box.data / "centre.json").write_bytes(document(Enrolment(bytes(32), "testbox")))
    assert ship(box, **ear.environment).wait(timeout=PATIENCE_S) == 0
    assert ear.queued()[0] == "READY=1"
    ear.close()
    assert "nothing that is sealed" in box.edge("sync", "status").stdout


def test_it_has_the_box_seal_where_that_does_not_by_itself(tmp_path: Path) -> None:
    """Asked by its socket the runtime of a box without `centre` seals all there is; one that is away is named."""
    box = Box(tmp_path, 1)
    box.start("runtime")
    box.register(PLUS_ONE)
    box.run("p", {"n": 1})
    assert box_door.seal(box.settings) == ""
    head = read_head(box.settings.sealed_folder)
    assert head is not None
    assert head.last_seq >= 5
    box.down()
    with pytest.raises(Unavailable, match="No runtime serves"):
        box_door.seal(box.settings)


def test_a_box_whose_key_was_enrolled_ships_without_a_token(tmp_path: Path) -> None:
    """`edge central enrol BOX KEY --url` makes a file with address and authority, and nothing to redeem."""
    box, centre = Box(tmp_path, 1, centre=True), Centre(tmp_path)
    box.start("runtime")
    box.register(PLUS_ONE)
    box.ask("seal")
    centre.start()
    path = tmp_path / "enrolment.json"
    key = manifest_of(sealed_paths(box.settings.sealed_folder)[0]).key.hex()
    where = ("--out", str(path), "--url", centre.url, "--data", str(centre.data))
    box.edge("central", "enrol", "testbox", key, *where)
    made = parse(path.read_bytes(), "here")
    assert (made.token, made.url) == ("", centre.url)
    assert "BEGIN CERTIFICATE" in made.authority
    box.edge("sync", "enrol", str(path))
    box.edge("sync", "push")
    assert json.loads(box.edge("sync", "status", "--json").stdout)["receipted"] > 0
    assert centre.stop() == 0
    box.down()


def test_a_box_without_a_centre_is_told_so(box: Box) -> None:
    """Not enrolled: it does not start, with code 2 and the mend, so that systemd leaves it to a person."""
    process = ship(box)
    assert process.wait(timeout=PATIENCE_S) == 2
    assert "edge central enrol" in (box.data.parent / "sync.log").read_text()
