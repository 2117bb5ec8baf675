"""The way to the centre under faults: lines cut inside bodies, a server killed at its verdicts, full drives, repeats,
shuffles, clones, flipped bits, wrong keys, a key changed inside the log, a clock of 1970. Nothing lost, nothing
doubled, no silent gap, at most 2 % of the bytes sent twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.central.ingest import Central
from edge.central.ledger import PARKED, STORED, Ledger
from edge.central.rebuild import rebuild
from edge.core.clock import Reading
from edge.core.codec import encode
from edge.core.errors import StorageFailed, Unavailable
from edge.core.events import Event, StepDone
from edge.core.limits import MIB
from edge.core.settings import Settings
from edge.security.signing import Signer
from edge.segments.receipt import opened
from edge.segments.sealed import open_sealed
from edge.segments.sealing import Sealing, sealed_paths
from edge.segments.verdicts import ALREADY, ARRIVED, FORK, REJECTED
from edge.store import upstream
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.sync import centre as box_centre
from edge.sync.budget import Budget
from edge.sync.centre import Enrolment
from edge.sync.https import HttpsTransport
from edge.sync.spare import SPARE_BYTES
from edge.sync.transport import Outgoing, Parcel
from edge.testing.history import write_group
from edge.testing.transport_conformance import SIGNER, nothing
from tests.faults.cutting_proxy import CuttingProxy
from tests.process.centre import Centre
from tests.unit.shipping_rig import Shipping

BOX = "pump-7"
OLD, NEW, STRANGER = Signer(b"\1" * 32), Signer(b"\2" * 32), Signer(b"\3" * 32)
SEGMENTS = 40
PARCEL_BYTES = 48_000
CUTS_SHARE = 0.3
WASTE_SHARE_MAX = 0.02


class Clock1970:
    """A box that woke up without a battery."""

    def read(self) -> Reading:
        return Reading(1, 0, 0)


def grown(
    folder: Path, signer: Signer, segments: int, chance: random.Random, events: int = 3
) -> list[Outgoing]:
    """Segments more of the log in a folder, of some 9 KB that do not compress."""
    known = len(sealed_paths(folder / "sealed"))
    journal = Journal(folder / "journal", segment_bytes=MIB)
    blobs = BlobStore(folder / "blobs")
    sealing = Sealing(folder / "sealed", signer, BOX, blobs, lambda: upstream.read(folder))
    for _ in range(segments):
        body = [StepDone(encode(chance.randbytes(3_000))) for _ in range(events)]
        write_group(journal, [Event(journal.next_seq + n, each, 1) for n, each in enumerate(body)])
        list(sealing.seal(journal.folder, journal.last_seq, everything=True))
    journal.close()
    return [Outgoing.of(path) for path in sealed_paths(folder / "sealed")[known:]]


class Line:
    """A box that sends by a bad line to a server that is struck."""

    def __init__(self, folder: Path, chance: random.Random, faults: Sequence[str]) -> None:
        self.chance, self._faults = chance, list(faults)
        self.centre = Centre(folder, "--no-tls")
        for signer in (OLD, NEW):
            self.centre.boxes.enrol(BOX, signer.public, 1)
        self.kills = self.refusals = 0
        self.repeats: set[str] = set()
        self._start()
        self.proxy = CuttingProxy(lambda: self.centre.port, self._cut, self._taken)
        url = f"http://127.0.0.1:{self.proxy.port}"
        self.transport = HttpsTransport(Enrolment(self.centre.key, BOX, url), NEW, Clock1970())

    def _start(self) -> None:
        fault = self._faults.pop(0) if self._faults else "none"
        self.centre.command = ("-m", "tests.faults.killed_centre", fault)
        self.centre.start()

    def _cut(self, size_bytes: int) -> int | None:
        return self.chance.randrange(size_bytes) if self.chance.random() < CUTS_SHARE else None

    def _taken(self, target: str, size_bytes: int) -> None:
        """Wait until the server has written down what came before the cut."""
        part = self.centre.data / "uploads" / BOX / f"{target.rpartition('/')[2]}.part"
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s and (not part.exists() or part.stat().st_size < size_bytes):
            threading.Event().wait(0.005)

    def send(self, segments: Sequence[Outgoing]) -> list[str]:
        """One parcel, once; the server is started again where it was killed."""
        try:
            made = self.transport.send(Parcel(segments), nothing)
            return [each.verdict for each in made.verdicts]
        except Unavailable as error:
            self.mend(error)
            return []

    def mend(self, error: Unavailable) -> None:
        """Count what happened, and start the server again where it was killed."""
        self.refusals += error.problem_code.startswith("storage")
        process = self.centre.process
        assert process is not None
        if "could not be reached" not in error.message:
            return
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            return  # the line was cut
        assert process.stdout is not None
        process.stdout.close()
        self.kills += 1
        self._start()

    def repeat(self, segments: Sequence[Outgoing]) -> list[str]:
        """The same, and its bytes are not counted as sent twice by the product."""
        self.repeats.add(Parcel(segments).digest.hex())
        return self.send(segments)

    def arrived_bytes(self) -> int:
        """Bytes of bodies that came through, without the repeats that were meant."""
        return sum(
            size
            for target, size in self.proxy.arrived.items()
            if target.rpartition("/")[2] not in self.repeats
        )

    def close(self) -> None:
        self.transport.close()
        self.proxy.close()
        assert self.centre.stop() == 0


def deliver(
    line: Line, segments: Sequence[Outgoing], bad: Sequence[Outgoing], cloned: Sequence[Outgoing]
) -> None:
    """Send all in one shuffled order until the centre has it, with repeats and what must not be taken between."""
    order = list(segments)
    line.chance.shuffle(order)
    done: list[Outgoing] = []
    for _ in range(60 * len(order)):
        try:
            state = line.transport.state(segments[0].manifest.log_id)
        except Unavailable as error:
            line.mend(error)
            continue
        missing = [each for each in order if not state.has(each.manifest)]
        if not missing:
            return
        parcel, size_bytes = [], 0
        for each in missing:
            size_bytes += len(each.data)
            if parcel and size_bytes > PARCEL_BYTES:
                break
            parcel.append(each)
        verdicts = line.send(parcel)
        assert set(verdicts) <= set(ARRIVED)
        done += parcel if verdicts else []
        if done and line.chance.random() < 0.2:
            assert set(line.repeat(line.chance.sample(done, min(3, len(done))))) <= {ALREADY}
        if line.chance.random() < 0.2:
            assert set(line.repeat([line.chance.choice(bad)])) <= {REJECTED}
        if state.through >= cloned[-1].manifest.last_seq:
            assert set(line.repeat([line.chance.choice(cloned)])) <= {FORK, ALREADY}
    raise AssertionError("the log did not arrive")


def damaged(segment: Outgoing, chance: random.Random) -> Outgoing:
    """The same with one bit flipped anywhere."""
    made = Outgoing(segment.data)
    changed = bytearray(segment.data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    made.data = bytes(changed)
    return made


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.faults_full) for n in range(2, 12))])
def test_nothing_is_lost_or_doubled_whatever_happens(tmp_path: Path, seed: int) -> None:
    """All faults at once, in an order that the seed gives."""
    chance = random.Random(seed)
    log = tmp_path / "log"
    segments = grown(log, OLD, SEGMENTS // 2, chance)
    shutil.copytree(log, tmp_path / "clone")
    segments += grown(log, NEW, SEGMENTS // 2, chance)
    cloned = grown(tmp_path / "clone", OLD, 2, chance)
    bad = [damaged(each, chance) for each in chance.sample(segments, 6)]
    bad += grown(tmp_path / "strange", STRANGER, 1, chance)
    faults = [
        f"kill:{chance.randint(1, 30)}",
        f"full:{chance.randint(2, 12)}",
        f"kill:{chance.randint(1, 30)}",
    ]
    line = Line(tmp_path, chance, [faults[0], faults[1], faults[2]] if seed % 2 else faults[::-1])
    began_s = time.monotonic()
    try:
        deliver(line, segments, bad, cloned)
        state = line.transport.state(segments[0].manifest.log_id)
    finally:
        line.close()
    last = segments[-1].manifest
    assert (state.through, state.link) == (last.last_seq, last.link_after)
    assert opened(state.receipt, line.centre.key).through == last.last_seq
    require_equal(line.centre, segments, tmp_path)
    wanted = sum(len(each.data) for each in segments)
    waste = line.arrived_bytes() / wanted - 1
    assert waste <= WASTE_SHARE_MAX, f"{waste:.1%} sent twice, {line.proxy.cuts} cuts, {line.kills} kills"
    assert line.proxy.cuts
    print(
        f"\nseed {seed}: {wanted} bytes, {waste:.2%} twice, {line.proxy.cuts} cuts, {line.kills} kills, "
        f"{line.refusals} refusals for a full drive, {time.monotonic() - began_s:.1f} s"
    )


def require_equal(centre: Centre, segments: Sequence[Outgoing], folder: Path) -> None:
    """Each segment is there once, byte for byte, linked; the chain holds from event to event; rebuilt the same."""
    log_id = segments[0].manifest.log_id
    kept = centre.kept(log_id)
    assert kept == {each.manifest.number: each.data for each in segments}
    link, seq = b"", 1
    for number in sorted(kept):
        sealed = open_sealed(kept[number])
        assert not link or sealed.manifest.link_before == link
        for each in sealed.groups():
            assert each.group.first_seq == seq
            seq, link = each.group.last_seq + 1, each.link
    assert seq == segments[-1].manifest.last_seq + 1
    central = Central.open(centre.data, time.time_ns)
    live = central.ledger.everything()
    assert {str(row[4]) for row in live if row[0] == "segment" and row[1] == log_id} <= {STORED, FORK}
    assert not list(central.ledger.segments(log_id, PARKED))
    rebuild(central.shelf, folder / "again.sqlite")
    central.close()
    again = Ledger(folder / "again.sqlite")
    assert again.everything() == live
    again.close()


@pytest.mark.parametrize(
    "left_kb", [4, *(pytest.param(n, marks=pytest.mark.faults_full) for n in range(8, 80, 8))]
)
def test_the_centres_drive_is_full(tmp_path: Path, drive: Path, left_kb: int) -> None:
    """Taking in stops with a reason, ledger included; with room again the same takes all, and nothing twice."""
    segments = grown(tmp_path / "log", OLD, 8, random.Random(7))
    central = Central.open(drive / "centre", time.time_ns)
    central.boxes.enrol(BOX, OLD.public, 1)
    filler = drive / "filler"
    free_bytes = shutil.disk_usage(drive).free
    filler.write_bytes(bytes(max(0, free_bytes - left_kb * 1_024)))
    taken = until_full(central, segments)
    assert taken < len(segments)
    receipt = central.receipt(segments[0].manifest.log_id)
    through = opened(receipt, central.signer.public).through if receipt is not None else 0
    assert through == (segments[taken - 1].manifest.last_seq if taken else 0)
    filler.unlink()
    verdicts = [central.take(each.data, deep=True).verdict for each in segments]
    assert verdicts[:taken] == [ALREADY] * taken
    assert set(verdicts) <= {STORED, ALREADY}
    linked = central.ledger.linked(segments[0].manifest.log_id)
    assert linked is not None
    assert linked.last_seq == segments[-1].manifest.last_seq
    central.close()


def until_full(central: Central, segments: Sequence[Outgoing]) -> int:
    """How many were taken before the drive was full."""
    for taken, each in enumerate(segments):
        try:
            central.take(each.data, deep=True)
        except StorageFailed:
            return taken
    return len(segments)


@pytest.fixture
def drive(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A small drive of its own."""
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("only root may mount")
    at = tmp_path / "drive"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_the_boxs_drive_is_full(tmp_path: Path, drive: Path) -> None:
    """A receipt that cannot be written down takes nothing out of the queue; with room again the same one does."""
    settings = Settings(data=drive / "box", box=BOX)
    segments = grown(settings.data, OLD, 4, random.Random(7))
    central = Central.open(tmp_path / "centre", time.time_ns)
    central.boxes.enrol(BOX, OLD.public, 1)
    for each in segments:
        assert central.take(each.data, deep=True).verdict == STORED
    receipt = central.receipt(segments[0].manifest.log_id)
    assert receipt is not None
    box_centre.enrol(settings, Enrolment(central.signer.public, BOX))
    central.close()
    filler = drive / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(512)):
            pass
    with pytest.raises(StorageFailed, match="could not be written"):
        box_centre.take_receipt(settings, receipt)
    assert len(sealed_paths(settings.sealed_folder)) == 4
    filler.unlink()
    said, freed = box_centre.take_receipt(settings, receipt)
    assert (said.through, freed) == (segments[-1].manifest.last_seq, 4)


def test_a_box_whose_drive_is_full_gets_out_of_it(drive: Path, tmp_path: Path) -> None:
    """Not a block is left: the room that sync held takes the receipt, by which the box may make room again."""
    shipping = Shipping(drive, Budget(day_bytes=1_000_000))
    segments = shipping.grow(4)
    shipping.restart()
    filler = drive / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(512)):
            pass
    central = shipping.way.central
    shipping.way.central = Central.open(tmp_path / "elsewhere", lambda: shipping.clock.now.wall_ns)
    shipping.way.central.boxes.enrol(shipping.settings.box, SIGNER.public, 0)
    shipping.way.central.signer = central.signer
    turns = shipping.ship()
    assert turns[-1].said == "all that is sealed is at the centre"
    assert any("room that was held" in turn.said for turn in turns)
    known = upstream.read(shipping.settings.data)
    assert known is not None
    assert known.through == segments[-1].manifest.last_seq
    filler.unlink()
    shipping.restart()
    assert (shipping.settings.data / box_centre.FOLDER / "spare").stat().st_blocks * 512 >= SPARE_BYTES
