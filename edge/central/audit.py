"""What a centre can say of each box's log: whole or not, by whose keys, and what a person has to do about it.

Everything is looked at again from the files: signatures, digests, the chain from segment to segment; what the deep
check of a compaction found comes from the tables. Called by `edge central audit`. It must never change anything, and
never call good what it has not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.central.boxes import Boxes, Enrolled
from edge.central.gaps import gaps
from edge.central.ingest import Central
from edge.central.ledger import FORK, PARKED, STORED, Entry, Ledger, Linked
from edge.central.shelf import Shelf
from edge.central.tables_catalog import Catalog
from edge.core.errors import SegmentRejected
from edge.core.records import record
from edge.security.signing import fingerprint
from edge.segments.manifest import Manifest
from edge.segments.sealed import open_sealed

OK, WARN, FAIL = "ok", "warn", "fail"
_AGAIN: Final = (
    "edge bundle export FOLDER --all on the box, which seals it again as far back as its journal goes, or the "
    "bundle that it came in; then edge central import FOLDER --data HERE, beside no server. Or put the file back "
    "from a copy of this folder."
)
_SHOWN_MAX: Final = 5
"""Of one kind of finding in one log; the rest is counted."""


@record
class Finding:
    """One line: how it stands, of which box, which check, what was found and how to mend it."""

    state: str
    box: str
    check: str
    text: str
    mend: str = ""


@record
class Loss:
    """An event by which a log itself says that something is lost, given up or refused."""

    log_id: bytes
    seq: int
    type: str
    body: str


class Audit:
    """One look at a centre's folder."""

    def __init__(self, central: Central, catalog: Catalog | None, losses: list[Loss]) -> None:
        """`catalog` of the tables, None where there are none; `losses` are what the events in them say."""
        self._shelf: Shelf = central.shelf
        self._ledger: Ledger = central.ledger
        self._boxes: Boxes = central.boxes
        self._catalog, self._losses = catalog, losses

    def findings(self, box: str | None = None) -> Iterator[Finding]:
        """All of a box, or of every box that is enrolled or of which anything is here."""
        enrolled = {each.box: each for each in self._boxes.all()}
        logs = self._ledger.log_ids()
        for name in sorted({*enrolled, *(each for each, _ in logs)}):
            if box is not None and name != box:
                continue
            own = [log_id for owner, log_id in logs if owner == name]
            manifests: list[Manifest] = []
            for log_id in own:
                yield from self._chain(name, log_id, manifests)
                yield from self._deep(name, log_id)
                yield from self._forks(name, log_id)
                yield from self._lost(name, log_id, manifests)
            yield from self._keys(name, enrolled.get(name), manifests)
            yield from self._gaps(name)
            yield from self._logs(name, own)
            yield from self._values(name, manifests)

    # ---- keys ----------------------------------------------------------------------------------------------

    def _keys(self, box: str, enrolled: Enrolled | None, manifests: list[Manifest]) -> Iterator[Finding]:
        if enrolled is None:
            yield Finding(
                FAIL,
                box,
                "keys",
                "segments of it are here, and it is not enrolled",
                f"edge central enrol {box} KEY",
            )
            return
        believed = [key for key in enrolled.keys if not key.revoked_ns]
        revoked = {key.public: key for key in enrolled.keys if key.revoked_ns}
        by_key: dict[bytes, int] = {}
        for said in manifests:
            by_key[said.key] = by_key.get(said.key, 0) + 1
        for key, count in by_key.items():
            if enrolled.key(key) is None:
                text = f"{count} segments are signed by {fingerprint(key)}, which is no key of this box"
                yield Finding(
                    FAIL, box, "keys", text, "Was the box's file put back from a copy? Enrol that key again."
                )
            elif key in revoked:
                since = said_at(revoked[key].revoked_ns)
                text = f"{count} segments are signed by {fingerprint(key)}, revoked {since}; they came before that"
                yield Finding(WARN, box, "keys", text, "Look at what it signed last, if it was stolen.")
        if not believed:
            yield Finding(
                WARN,
                box,
                "keys",
                "every key is revoked: nothing more is taken",
                f"edge central enrol {box} KEY",
            )
        elif len(believed) > 1:
            old = believed[0]
            text = (
                f"{len(believed)} keys are believed, {fingerprint(old.public)} since {said_at(old.since_ns)}"
            )
            yield Finding(
                WARN,
                box,
                "keys",
                text,
                f"When all that the old one signed has come: edge central revoke {box} {old.public.hex()}",
            )
        else:
            key_since = f"{fingerprint(believed[0].public)} since {said_at(believed[0].since_ns)}"
            yield Finding(OK, box, "keys", f"{key_since}; {len(revoked)} revoked")

    # ---- chain ---------------------------------------------------------------------------------------------

    def _chain(self, box: str, log_id: bytes, manifests: list[Manifest]) -> Iterator[Finding]:
        """Every linked and parked file opened again; linked ones must join one another from the first on."""
        linked = self._ledger.linked(log_id)
        broken: list[str] = []
        before: Manifest | None = None
        before_id = b""
        entries = [*self._ledger.segments(log_id, STORED), *self._ledger.segments(log_id, PARKED)]
        for entry in entries:
            try:
                said = self._manifest(entry)
            except SegmentRejected as error:
                broken.append(str(error))
                before = None
                continue
            manifests.append(said)
            if entry.state == STORED:
                if before is not None and not said.follows(before_id, before.last_seq, before.link_after):
                    broken.append(f"Segment {said.number} does not follow the one before it.")
                before, before_id = said, entry.id
        for text in broken[:_SHOWN_MAX]:
            yield Finding(FAIL, box, "chain", text, f"Bring it again. {_AGAIN}")
        if len(broken) > _SHOWN_MAX:
            yield Finding(FAIL, box, "chain", f"{len(broken) - _SHOWN_MAX} segments more")
        if not broken:
            yield _whole(box, log_id, linked, len(entries))

    def _manifest(self, entry: Entry) -> Manifest:
        path = self._shelf.path(entry.log_id, entry.number, entry.id)
        try:
            sealed = open_sealed(path.read_bytes())
        except OSError as error:
            raise SegmentRejected(
                f"Segment {entry.number} cannot be read: {error.strerror}: {path}."
            ) from error
        except SegmentRejected as error:
            raise SegmentRejected(f"{error.message} {path}") from error
        if sealed.id != entry.id:
            raise SegmentRejected(f"Another segment lies under the name of segment {entry.number}: {path}.")
        return sealed.manifest

    def _deep(self, box: str, log_id: bytes) -> Iterator[Finding]:
        reached = self._catalog.reached(log_id) if self._catalog is not None else None
        linked = self._ledger.linked(log_id)
        bad = [
            each
            for each in (self._catalog.quarantined() if self._catalog is not None else [])
            if each.log_id == log_id
        ]
        for each in bad:
            yield Finding(
                FAIL, box, "events", f"segment {each.number} is left out of the tables: {each.reason}",
                f"If its file was damaged here: {_AGAIN} Else its key signed what is no log.",
            )  # fmt: skip
        if linked is not None and (reached is None or reached[0] < linked.number):
            seen = f"up to segment {reached[0]} of {linked.number}" if reached is not None else "not yet"
            yield Finding(WARN, box, "events", f"looked at one by one {seen}", "edge central compact")
        elif linked is not None and not bad:
            yield Finding(OK, box, "events", f"all {linked.events} were looked at one by one")

    # ---- what is not as it should be -----------------------------------------------------------------------

    def _forks(self, box: str, log_id: bytes) -> Iterator[Finding]:
        forks = list(self._ledger.segments(log_id, FORK))
        if not forks:
            return
        first, last = min(fork.first_seq for fork in forks), max(fork.last_seq for fork in forks)
        ours = [e for e in self._ledger.segments(log_id, STORED) if e.number >= forks[0].number]
        both = any(
            fork.wall_min_ns <= each.wall_max_ns and each.wall_min_ns <= fork.wall_max_ns
            for fork in forks
            for each in ours
        )
        text = f"{len(forks)} segments are of another history of log {log_id.hex()}, events {first} to {last}"
        if both:
            yield Finding(
                FAIL, box, "clone", f"{text}, written at the same time as ours: two boxes with one card",
                "Take one of them out of service; give it a key and a log of its own. Its segments are in forks/.",
            )  # fmt: skip
        else:
            yield Finding(
                FAIL, box, "fork", f"{text}: was an older copy of the card put back?",
                "Let the box begin a new log (take its data folder away). The other history is in forks/.",
            )  # fmt: skip

    def _gaps(self, box: str) -> Iterator[Finding]:
        for gap in gaps(self._ledger):
            if gap.box == box:
                yield Finding(
                    WARN, box, "gap",
                    f"events {gap.first} to {gap.last} of log {gap.log_id.hex()} are missing, written "
                    f"{_between(gap.since_ns, gap.until_ns)}",
                    "edge bundle export on the box brings them, or its next sync.",
                )  # fmt: skip

    def _lost(self, box: str, log_id: bytes, manifests: list[Manifest]) -> Iterator[Finding]:
        ranges = [loss for said in manifests if said.log_id == log_id for loss in said.losses]
        for first, last in ranges[:_SHOWN_MAX]:
            yield Finding(WARN, box, "loss", f"events {first} to {last} are lost, says the log itself")
        own = [loss for loss in self._losses if loss.log_id == log_id]
        for loss in own[:_SHOWN_MAX]:
            yield Finding(WARN, box, "loss", f"event {loss.seq} {loss.type}: {loss.body}")
        if (more := max(0, len(ranges) - _SHOWN_MAX) + max(0, len(own) - _SHOWN_MAX)) > 0:
            yield Finding(
                WARN, box, "loss", f"{more} more; in the tables: types gap, log.pruned, storage.refusing"
            )

    def _logs(self, box: str, logs: list[bytes]) -> Iterator[Finding]:
        if not logs:
            yield Finding(
                WARN,
                box,
                "log",
                "nothing of it has come yet",
                "edge bundle export, or edge sync push, on the box",
            )
        for log_id in logs:
            linked = self._ledger.linked(log_id)
            if linked is None:
                text = f"log {log_id.hex()} has no beginning here: there is no receipt for it"
                yield Finding(WARN, box, "receipt", text, "Bring the box's first segments.")
            else:
                yield Finding(OK, box, "receipt", f"log {log_id.hex()} up to event {linked.last_seq}")
        if len(logs) > 1:
            yield Finding(WARN, box, "log", f"{len(logs)} logs: it began anew, or two boxes have its name")

    def _values(self, box: str, manifests: list[Manifest]) -> Iterator[Finding]:
        named = {digest for said in manifests for digest, _ in said.blobs}
        missing = [digest for digest in named if not self._shelf.has_blob(digest)]
        damaged = [digest for digest in named.difference(missing) if not self._whole(digest)]
        for state, kind, digests in ((WARN, "not here", missing), (FAIL, "damaged", damaged)):
            if digests:
                text = f"{len(digests)} of {len(named)} large values are {kind}, such as {min(digests).hex()[:16]}"
                yield Finding(state, box, "values", text, f"Bring them again. {_AGAIN}")
        if named and not missing and not damaged:
            yield Finding(OK, box, "values", f"all {len(named)} large values are here")

    def _whole(self, digest: bytes) -> bool:
        try:
            self._shelf.blob(digest)
        except SegmentRejected:
            return False
        return True


def refused(data: Path) -> Iterator[Finding]:
    """What was kept aside as it came, of whatever box."""
    kept = sorted((data / "refused").glob("*.segment"))
    if kept:
        codes: dict[str, int] = {}
        for path in kept:
            code = path.stem.split("-")[1]
            codes[code] = codes.get(code, 0) + 1
        said = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
        when = said_at(int(kept[-1].stem.split("-")[0]))
        yield Finding(
            WARN,
            "",
            "refused",
            f"{said}; the last one {when}",
            f"Look at them, then remove them: {data / 'refused'}",
        )


def said_at(wall_ns: int) -> str:
    """A moment for people, UTC."""
    try:
        return f"{datetime.fromtimestamp(wall_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return f"{wall_ns} ns after 1970"


def _between(since_ns: int, until_ns: int) -> str:
    return (
        f"between {said_at(since_ns)} and {said_at(until_ns)}" if since_ns else f"before {said_at(until_ns)}"
    )


def _whole(box: str, log_id: bytes, linked: Linked | None, count: int) -> Finding:
    if linked is None:
        return Finding(WARN, box, "chain", f"log {log_id.hex()}: {count} segments, none joins its beginning")
    text = f"log {log_id.hex()}: segments 0 to {linked.number} join, to event {linked.last_seq}"
    return Finding(
        OK,
        box,
        "chain",
        text + (f"; {count - linked.number - 1} parked" if count > linked.number + 1 else ""),
    )
