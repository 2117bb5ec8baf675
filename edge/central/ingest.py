"""Taking in segments: each gets a verdict, in whatever order and however often they come.

    stored     joins the beginning of its log; the receipt speaks of it
    already    was here
    parked     whole, but one before it is not here yet
    fork       of another history than what is here: kept, and a person must look
    rejected   changed, cut, of an unknown box or by a revoked key: kept aside, nothing of it is believed

A segment is durable under its name before the ledger names it, and the ledger's change is committed before the
verdict is told. Killed anywhere, the same again ends the same. Called by the import of bundles and by the server.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge.central.boxes import Boxes
from edge.central.ledger import FORK, PARKED, STORED, Entry, Ledger, Linked
from edge.central.shelf import Shelf
from edge.core.errors import Misconfigured, SegmentRejected, Unavailable
from edge.core.records import record
from edge.security.signing import SEED_BYTES, Signer
from edge.segments import verdicts
from edge.segments.manifest import Manifest
from edge.segments.receipt import CentreReceipt, signed
from edge.segments.sealed import Sealed, open_sealed
from edge.store.key_file import read_or_make_key

ALREADY, REJECTED = verdicts.ALREADY, verdicts.REJECTED


@record
class Verdict:
    """What became of one segment; `reason` says why where it was not taken."""

    verdict: str
    log_id: bytes = b""
    number: int = 0
    reason: str = ""


@dataclass(slots=True)
class Central:
    """A centre's data folder, opened for taking in. One process at a time."""

    shelf: Shelf
    ledger: Ledger
    boxes: Boxes
    signer: Signer
    now_ns: Callable[[], int]
    lock: BinaryIO | None = None

    @classmethod
    def open(cls, data: Path, now_ns: Callable[[], int], *, taking: bool = False) -> Central:
        """Open or begin a centre; alone where it is for `taking` in. Misconfigured, StorageFailed, Unavailable."""
        if (data / "journal").is_dir() and not (data / "segments").is_dir():
            raise Misconfigured(
                f"{data} is a box's data folder, not a centre's.",
                mend="Name the centre's folder with --data.",
            )
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o750)
        except (FileExistsError, NotADirectoryError) as error:
            raise Misconfigured(
                f"{data} is no folder.", mend="Name the centre's folder with --data."
            ) from error
        lock = held(data) if taking else None
        signer = Signer(read_or_make_key(data / "central.key", SEED_BYTES))
        return cls(Shelf(data), Ledger(data / "ledger.sqlite"), Boxes(data / "boxes"), signer, now_ns, lock)

    def take(self, data: bytes, *, deep: bool) -> Verdict:
        """One segment's bytes. `deep`: every event is looked at before the verdict, else at compaction."""
        return self.take_all([data], deep=deep)[0]

    def take_all(self, parts: Sequence[bytes], *, deep: bool) -> list[Verdict]:
        """Several segments' bytes, in order, in one change of the ledger. StorageFailed: then none is in it."""
        looked = [self._look(data, deep=deep) for data in parts]
        if all(isinstance(each, Verdict) for each in looked):
            return [each for each in looked if isinstance(each, Verdict)]
        with self.ledger.change():
            return [
                each if isinstance(each, Verdict) else self._place(each, data)
                for each, data in zip(looked, parts, strict=True)
            ]

    def _look(self, data: bytes, *, deep: bool) -> Sealed | Verdict:
        """A segment that may be taken in, or why not."""
        try:
            sealed = open_sealed(data)
            self._require_known(sealed)
            if deep:
                sealed.check()
        except SegmentRejected as error:
            self.shelf.refuse(self.now_ns(), REJECTED, data)
            return Verdict(REJECTED, reason=str(error))
        return sealed

    def _place(self, sealed: Sealed, data: bytes) -> Verdict:
        """Keep a segment where it belongs. Inside a change."""
        said = sealed.manifest
        known = self.ledger.has(said.log_id, said.number, sealed.id)
        if known is not None:
            # Its file may have rotted or gone since: what comes again puts it right.
            self.shelf.put(said.log_id, said.number, sealed.id, data, fork=known == FORK)
            if known == FORK:
                why = f"Segment {said.number} is of another history, and was kept aside before."
                return Verdict(FORK, said.log_id, said.number, why)
            return Verdict(ALREADY, said.log_id, said.number)
        if (ours := sealed_anew(self.ledger, self.shelf, said)) is not None:
            return self._keep_ours(ours, sealed, data)
        state, reason = place_of(said, self.ledger.linked(said.log_id))
        self.shelf.put(said.log_id, said.number, sealed.id, data, fork=state == FORK)
        note(self.ledger, sealed, state, len(data))
        if state == STORED:
            self._link_parked(said.log_id)
        return Verdict(state, said.log_id, said.number, reason)

    def _keep_ours(self, ours: Entry, sealed: Sealed, data: bytes) -> Verdict:
        """Of two with the same events the first stays; where its file is damaged what comes takes its place."""
        said = sealed.manifest
        try:
            sealed.check()
        except SegmentRejected as error:
            self.shelf.refuse(self.now_ns(), REJECTED, data)
            return Verdict(REJECTED, reason=str(error))
        if self.shelf.read(ours.log_id, ours.number, ours.id) is None:
            self.shelf.put(said.log_id, said.number, sealed.id, data, fork=False, instead_of=ours.id)
            self.ledger.exchange(ours, sealed.id, said, len(data))
        return Verdict(ALREADY, said.log_id, said.number)

    def _require_known(self, sealed: Sealed) -> None:
        said = sealed.manifest
        owner = self.boxes.of_key(said.key)
        if owner is None:
            raise SegmentRejected(
                f"No box of this centre has the key that signed segment {said.number} of {said.box}.",
                mend=f"If it is yours: edge central enrol {said.box} {said.key.hex()}",
            )
        box, key = owner
        if box.box != said.box:
            raise SegmentRejected(
                f"Segment {said.number} says that it is of box {said.box}, and its key is box {box.box}'s.",
                mend=f"Was the box renamed? Give it the name {box.box} again (box in its edge.toml).",
            )
        if key.revoked_ns and self.ledger.has(said.log_id, said.number, sealed.id) is None:
            raise SegmentRejected(
                f"The key of box {box.box} that signed segment {said.number} was revoked.",
                mend="What it had sent before is here still. Give the box a new key, and enrol that.",
            )

    def _link_parked(self, log_id: bytes) -> None:
        """Link what waited for the segment that has just come."""
        while (linked := self.ledger.linked(log_id)) is not None:
            due = linked.number + 1
            waiting = list(self.ledger.segments(log_id, PARKED, due, due))
            if not waiting:
                return
            for each in waiting:
                self._link_one(each)

    def _link_one(self, parked: Entry) -> None:
        sealed = self.shelf.read(parked.log_id, parked.number, parked.id)
        if sealed is None or sealed_anew(self.ledger, self.shelf, sealed.manifest) is not None:
            # Rotten, or a second one of the same events: as if it had not come.
            self.shelf.drop(parked.log_id, parked.number, parked.id)
            self.ledger.forget(parked)
            return
        state, _ = place_of(sealed.manifest, self.ledger.linked(parked.log_id))
        note(self.ledger, sealed, state, parked.bytes)

    def receipt(self, log_id: bytes) -> bytes | None:
        """What a box may show for it that its log is here, signed; None where nothing of it is linked."""
        linked = self.ledger.linked(log_id)
        if linked is None:
            return None
        made = CentreReceipt(log_id, linked.last_seq, linked.link, self.now_ns())
        return signed(made, self.signer)

    def close(self) -> None:
        """Close the ledger, and let others take in."""
        self.ledger.close()
        if self.lock is not None:
            self.lock.close()


def held(data: Path) -> BinaryIO:
    """The lock of whoever takes in there, until it is closed; it goes with its process. Raises Unavailable."""
    lock = (data / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Unavailable(
            f"Another process takes in what comes to {data}.",
            mend="One server, or one import, at a time for each folder: stop the other one, or wait for its end.",
        ) from error
    return lock


def note(ledger: Ledger, sealed: Sealed, state: str, size_bytes: int) -> None:
    """Put a segment into the ledger where it belongs. To be called inside a change."""
    said = sealed.manifest
    ledger.note(sealed.id, state, said, size_bytes)
    if state == STORED:
        before = ledger.linked(said.log_id)
        events = said.events + (before.events if before is not None else 0)
        made = Linked(said.log_id, said.box, said.number, sealed.id, said.last_seq, said.link_after, events)
        ledger.link(made)


def sealed_anew(ledger: Ledger, shelf: Shelf, said: Manifest) -> Entry | None:
    """The linked segment that has the same events as one with another id; None where there is none."""
    for ours in ledger.segments(said.log_id, STORED, said.number, said.number):
        same = (ours.first_seq, ours.last_seq, ours.events) == (said.first_seq, said.last_seq, said.events)
        if same and said.link_after in _links_after(ledger, shelf, ours):
            return ours
    return None


def _links_after(ledger: Ledger, shelf: Shelf, ours: Entry) -> Iterator[bytes]:
    """The chain's link after a linked segment, by whoever knows it: the ledger, its file, the file after it."""
    linked = ledger.linked(ours.log_id)
    if linked is not None and linked.number == ours.number:
        yield linked.link
    if (sealed := shelf.read(ours.log_id, ours.number, ours.id)) is not None:
        yield sealed.manifest.link_after
    for after in ledger.segments(ours.log_id, STORED, ours.number + 1, ours.number + 1):
        if (
            sealed := shelf.read(after.log_id, after.number, after.id)
        ) is not None and not sealed.manifest.losses:
            yield sealed.manifest.link_before


def place_of(said: Manifest, linked: Linked | None) -> tuple[str, str]:
    """Where a segment belongs in a log that is linked so far: `(state, why where it is a fork)`. Pure."""
    expected = linked.number + 1 if linked is not None else 0
    if said.number > expected:
        return PARKED, ""
    if said.number < expected:
        return (
            FORK,
            f"Segment {said.number} is here already with other events: was a card copied, or put back?",
        )
    if linked is not None and not said.follows(linked.id, linked.last_seq, linked.link):
        return (
            FORK,
            f"Segment {said.number} does not follow what is here of this log: it is of another history.",
        )
    return STORED, ""
