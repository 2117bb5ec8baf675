"""Logs of pump guards for tests of the centre: executions written straight into a journal, sealed, and taken in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.central.compaction import Compacted, Compactor
from edge.central.ingest import Central
from edge.central.tables import Tables
from edge.core.codec import encode
from edge.core.events import (
    CatalogRegistered,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    StepDone,
    StepFailed,
)
from edge.core.limits import MIB
from edge.security.signing import Signer
from edge.segments.sealed import Sealed, open_sealed, sealed_bytes
from edge.segments.sealing import Sealing, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.testing.clock import ManualClock
from edge.testing.history import write_group

DIGEST: Final = bytes(range(32))
DAY_NS: Final = 86_400 * 10**9


def signer_of(box: str) -> Signer:
    """A box's key."""
    return Signer(hashlib.sha256(box.encode()).digest())


class Pump:
    """A box's log that grows by executions; `seal` gives what is new as segments."""

    def __init__(self, folder: Path, box: str = "pump-7", *, begun: bool = False) -> None:
        """`begun`: go on with a log that is in the folder."""
        self.folder, self.box = folder, box
        self.clock = ManualClock()
        self.journal = Journal(folder / "journal", segment_bytes=MIB)
        self._sealing = Sealing(folder / "sealed", signer_of(box), box, BlobStore(folder / "blobs"))
        self.executions: list[int] = []
        if not begun:
            self.group([Event(1, CatalogRegistered("pumps/guard", DIGEST, encode({"path": "pumps/guard"})))])

    def group(self, events: list[Event]) -> None:
        """Write some events as one group, a second after the one before."""
        self.clock.advance(10**9)
        self.clock.set_wall(self.clock.now.wall_ns + 10**9)
        write_group(self.journal, events, self.clock)

    def begin(self) -> int:
        """A request, and its first step."""
        seq = self.journal.next_seq
        asked = ExecutionRequested(DIGEST, "ada", f"r-{seq}", payload=b'{"n": 1}')
        value = encode({"registers": [seq, 2, 3]})
        self.group([Event(seq, asked, seq), Event(seq + 1, StepDone(value, duration_us=40), seq, "read")])
        self.executions.append(seq)
        return seq

    def end(self, execution: int, *, failed: bool = False) -> None:
        """Its last step, and its end."""
        seq = self.journal.next_seq
        problem = {"code": "too_hot", "message": "It is."}
        last: Any = StepFailed(problem) if failed else StepDone(encode(True), duration_us=7)
        end = (
            ExecutionFinished("failed", problem=problem) if failed else ExecutionFinished(result_step="write")
        )
        self.group([Event(seq, last, execution, "write"), Event(seq + 1, end, execution)])

    def run(self, count: int = 1) -> None:
        """Whole executions."""
        for _ in range(count):
            self.end(self.begin())

    def seal(self) -> bytes:
        """All that is not sealed yet, as one segment."""
        made = list(self._sealing.seal(self.journal.folder, self.journal.last_seq, everything=True))
        assert len(made) == 1
        return made[0][0].read_bytes()

    def sealed(self, segments: int, executions: int = 3) -> list[bytes]:
        """So many segments of so many executions each."""
        made = []
        for _ in range(segments):
            self.run(executions)
            made.append(self.seal())
        return made

    def segments(self) -> list[bytes]:
        """Every segment so far."""
        return [path.read_bytes() for path in sealed_paths(self.folder / "sealed")]


class Centre:
    """A centre's folder, with what the tests ask of it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.central = Central.open(data, lambda: 7)

    def take(self, segments: Iterable[bytes]) -> list[str]:
        """Verdicts over segments of boxes that are enrolled as they come."""
        verdicts = []
        for data in segments:
            said = open_sealed(data).manifest
            self.central.boxes.enrol(said.box, said.key, 1)
            verdicts.append(self.central.take(data, deep=False).verdict)
        return verdicts

    def compact(self, *, anew: bool = False) -> Compacted:
        return Compactor(self.data, self.central.shelf, self.central.ledger).run(anew=anew)

    def tables(self) -> Tables:
        return Tables(self.data, memory_mb=128, threads=1)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer's rows."""
        with self.tables() as tables, tables.errors():
            rows = tables.query(sql).read_all().to_pylist()
        return [tuple(row.values()) for row in rows]

    def rows(self) -> list[tuple[Any, ...]]:
        """Every row of every event: what tables that were made another way must equal."""
        return self.ask("SELECT * FROM events ORDER BY box, log_id, seq, linked, segment")


def forged(data: bytes) -> bytes:
    """The same segment with another link at its end, signed anew: only the deep check can tell."""
    sealed: Sealed = open_sealed(data)
    raw = replace(sealed.manifest, link_after=bytes(32)).encode()
    return sealed_bytes(raw, signer_of(sealed.manifest.box).sign(raw), sealed.body)
