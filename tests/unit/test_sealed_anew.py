"""A box that lost its queue, or is asked for what it delivered, seals the same events again: perhaps under other ids.

The centre takes that for what it is, and a damaged file for a reason to take it in.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge.central.ingest import ALREADY, REJECTED
from edge.central.ledger import FORK, PARKED, STORED, Ledger
from edge.central.rebuild import rebuild
from edge.cli.main import main
from edge.core.errors import Misconfigured
from edge.segments import sealing
from edge.segments.sealed import open_sealed, sealed_bytes
from edge.segments.sealing import Sealing, sealed_paths
from edge.segments.verdicts import LEFT
from edge.store.blobs import BlobStore
from edge.sync import bundle
from edge.sync.folder import FolderTransport
from edge.sync.transport import Outgoing, Parcel
from tests.unit.central_rig import Centre, Pump, signer_of


def by_another_release(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every segment so far as a box seals it again after an update."""
    away = pump.folder / "away"
    (pump.folder / "sealed").rename(away)
    with monkeypatch.context() as patched:
        patched.setattr(sealing, "VERSION", "9.9.9")
        made = Sealing(
            pump.folder / "sealed", signer_of(pump.box), pump.box, BlobStore(pump.folder / "blobs")
        )
        anew = [data for _, data in made.seal_delivered(pump.journal.folder)]
    shutil.rmtree(pump.folder / "sealed")
    away.rename(pump.folder / "sealed")
    return anew


def rebuilt(centre: Centre, place: Path) -> list[tuple[object, ...]]:
    rebuild(centre.central.shelf, place)
    ledger = Ledger(place)
    try:
        return ledger.everything()
    finally:
        ledger.close()


def test_the_same_events_under_another_id_are_no_other_history(
    centre: Centre, pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some had come, all come again: those are here already, the others go on after them; nothing is kept twice."""
    old = pump.sealed(4)
    anew = by_another_release(pump, monkeypatch)
    assert {open_sealed(each).id for each in old}.isdisjoint(open_sealed(each).id for each in anew)
    assert centre.take(old[:2]) == [STORED, STORED]
    assert centre.take(anew) == [ALREADY, ALREADY, STORED, STORED]
    assert centre.take(old) == [ALREADY] * 4
    assert [path.read_bytes() for path in centre.central.shelf.segments()] == [*old[:2], *anew[2:]]
    assert rebuilt(centre, tmp_path / "again.sqlite") == centre.central.ledger.everything()
    assert main(["central", "audit", "--data", str(centre.data)]) == 0


def test_a_parked_one_and_its_double(
    centre: Centre, pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wait for the one before them: one is linked when that comes, the other goes, and no fork is told."""
    old = pump.sealed(3)
    anew = by_another_release(pump, monkeypatch)
    assert centre.take([old[1], anew[1], anew[0], old[2]]) == [PARKED, PARKED, STORED, STORED]
    log_id = open_sealed(old[0]).manifest.log_id
    assert list(centre.central.ledger.segments(log_id, FORK)) == []
    assert len(list(centre.central.shelf.segments())) == 3
    assert rebuilt(centre, tmp_path / "again.sqlite") == centre.central.ledger.everything()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_damaged_file_is_made_good_by_one_that_was_sealed_again(
    centre: Centre, pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    """It takes the damaged one's place in shelf, ledger and tables, and what comes later goes on after it."""
    old = pump.sealed(3)
    centre.take(old)
    path = list(centre.central.shelf.segments())[number]
    path.unlink() if what == "gone" else path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    centre.compact()
    events = centre.ask("SELECT count(*) FROM events")
    assert main(["central", "audit", "--data", str(centre.data)]) == 1
    anew = by_another_release(pump, monkeypatch)
    assert centre.take(anew) == [ALREADY] * 3
    held = [path.read_bytes() for path in centre.central.shelf.segments()]
    assert held == [*old[:number], anew[number], *old[number + 1 :]]
    assert centre.compact().quarantined == ()
    assert centre.ask("SELECT count(*) FROM events") > events
    assert main(["central", "audit", "--data", str(centre.data)]) == 0
    assert centre.take([*pump.sealed(1), anew[number]]) == [STORED, ALREADY]
    assert rebuilt(centre, tmp_path / "again.sqlite") == centre.central.ledger.everything()


def test_who_only_says_that_it_is_the_same_is_not_believed(centre: Centre, pump: Pump) -> None:
    """A manifest with the numbers and links of a segment, signed by the box, and other events in it."""
    old = pump.sealed(2)
    centre.take(old)
    said = open_sealed(old[1]).manifest
    fields = ("number", "first_seq", "last_seq", "events", "link_before", "link_after", "previous")
    first = open_sealed(old[0])
    raw = replace(first.manifest, **{name: getattr(said, name) for name in fields}).encode()
    lie = sealed_bytes(raw, signer_of(pump.box).sign(raw), first.body)
    next(iter(list(centre.central.shelf.segments())[1:])).unlink()
    assert centre.take([lie]) == [REJECTED]
    assert len(list(centre.central.shelf.segments())) == 1


def test_a_parked_file_that_rotted_is_as_if_it_had_not_come(centre: Centre, pump: Pump) -> None:
    """The box still has it, since nothing receipted it: it comes again, and then the log goes on."""
    parts = pump.sealed(3)
    assert centre.take([parts[1]]) == [PARKED]
    (path,) = centre.central.shelf.segments()
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert centre.take([parts[0], parts[2]]) == [STORED, PARKED]
    assert centre.take([parts[1]]) == [STORED]
    log_id = open_sealed(parts[0]).manifest.log_id
    linked = centre.central.ledger.linked(log_id)
    assert linked is not None
    assert linked.number == 2


def test_a_stick_keeps_the_segment_that_lies_on_it(
    pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same events sealed by another release are there already; other events are never written over."""
    old = pump.sealed(2)
    place = tmp_path / "stick" / bundle.folder_name(pump.box, pump.journal.log_id)
    (place / bundle.BLOBS).mkdir(parents=True)
    for path in sealed_paths(pump.folder / "sealed"):
        shutil.copy(path, place)
    anew = by_another_release(pump, monkeypatch)
    pairs = [(open_sealed(data).manifest, data) for data in anew]
    assert bundle.add_again(pairs, place) == sealed_paths(place)
    assert [path.read_bytes() for path in sealed_paths(place)] == old
    carrier = FolderTransport(tmp_path / "stick", pump.box, pump.journal.log_id)
    sent = Parcel([Outgoing(data) for data in anew])
    assert [each.verdict for each in carrier.send(sent, lambda size_bytes: None).verdicts] == [ALREADY] * 2
    sealed_paths(place)[1].write_bytes(old[1][:-1])
    assert [each.verdict for each in carrier.send(sent, lambda size_bytes: None).verdicts] == [ALREADY, LEFT]
    assert sealed_paths(place)[1].read_bytes() == anew[1]
    with pytest.raises(Misconfigured, match="of another history"):
        bundle.add_again([(open_sealed(anew[1]).manifest, anew[1])], _swapped(place))


def _swapped(place: Path) -> Path:
    """The bundle with its segments under one another's names."""
    first, second = sealed_paths(place)
    first.rename(place / "kept")
    second.rename(first)
    (place / "kept").rename(second)
    return place
