"""Whatever a courier does with segments: the centre has each event once, and its ledger is rebuilt the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.central.ingest import ALREADY, REJECTED, Central
from edge.central.ledger import PARKED, STORED, Ledger
from edge.central.rebuild import rebuild
from edge.core.events import Event, StepDone
from edge.core.limits import MIB
from edge.security.signing import Signer
from edge.segments.receipt import opened
from edge.segments.sealed import open_sealed
from edge.segments.sealing import Sealing, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.testing.history import write_group

SIGNER: Final = Signer(bytes(range(32)))
STRANGER: Final = Signer(bytes(32))
_SEGMENTS: Final = 6


def history(folder: Path, log_id: bytes | None, seed: int, signer: Signer = SIGNER) -> list[bytes]:
    """Some segments of one log; of two with one `log_id` and other seeds the events differ."""
    journal = Journal(folder / f"journal{seed}", segment_bytes=MIB)
    if log_id is not None:
        object.__setattr__(journal.header, "log_id", log_id)
    sealer = Sealing(folder / f"sealed{seed}", signer, "box-1", BlobStore(folder / "blobs"))
    for number in range(_SEGMENTS):
        for _ in range(3):
            first = journal.next_seq
            write_group(
                journal, [Event(first + n, StepDone(bytes([0x18, 40 + seed])), first) for n in range(2)]
            )
        assert len(list(sealer.seal(journal.folder, journal.last_seq, everything=True))) == 1, number
    journal.close()
    return [path.read_bytes() for path in sealed_paths(folder / f"sealed{seed}")]


def _made() -> Iterator[list[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        own = history(Path(folder), None, 1)
        yield own
        yield history(Path(folder), None, 2, STRANGER)


OWN, STRANGE = _made()


def centre(folder: Path) -> Central:
    ticks = iter(range(1, 10**6))
    made = Central.open(folder / "central", lambda: next(ticks))
    made.boxes.enrol("box-1", SIGNER.public, 1)
    return made


def rebuilt(made: Central, folder: Path) -> list[tuple[object, ...]]:
    rebuild(made.shelf, folder / "again.sqlite")
    again = Ledger(folder / "again.sqlite")
    try:
        return list(again.everything())
    finally:
        again.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_and_any_repeats_give_the_whole_log(data: st.DataObject) -> None:
    """Shuffled, doubled, with restarts between and strangers among them: stored once each, receipt of the end."""
    order = data.draw(st.permutations(range(_SEGMENTS)))
    more = data.draw(st.lists(st.integers(0, _SEGMENTS - 1), max_size=6))
    with tempfile.TemporaryDirectory() as folder:
        made = centre(Path(folder))
        taken: set[int] = set()
        for number in [*more, *order]:
            verdict = made.take(OWN[number], deep=True)
            assert verdict.verdict == (ALREADY if number in taken else verdict.verdict)
            assert verdict.verdict in (STORED, PARKED, ALREADY)
            taken.add(number)
            whole = next((n for n in range(_SEGMENTS) if n not in taken), _SEGMENTS)
            linked = made.ledger.linked(open_sealed(OWN[0]).manifest.log_id)
            assert (linked.number if linked is not None else -1) == whole - 1
            if data.draw(st.booleans()):
                made.close()
                made = Central.open(Path(folder) / "central", lambda: 1)
            if data.draw(st.booleans()):
                assert made.take(STRANGE[number], deep=False).verdict == REJECTED
        last = open_sealed(OWN[-1]).manifest
        receipt = made.receipt(last.log_id)
        assert receipt is not None
        assert len(receipt) < 160
        said = opened(receipt, made.signer.public)
        assert (said.log_id, said.through, said.link) == (last.log_id, last.last_seq, last.link_after)
        assert rebuilt(made, Path(folder)) == made.ledger.everything()
        made.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, _SEGMENTS - 1), st.data())
def test_a_changed_segment_is_never_taken(number: int, data: st.DataObject) -> None:
    """Any byte of it, or any length: rejected, kept aside, and the right one is taken after it."""
    whole = OWN[number]
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        made = centre(Path(folder))
        assert made.take(bytes(changed), deep=True).verdict == REJECTED
        assert made.take(whole[:place], deep=True).verdict == REJECTED
        assert made.ledger.everything() == []
        for each in OWN:
            assert made.take(each, deep=True).verdict == STORED
        made.close()
