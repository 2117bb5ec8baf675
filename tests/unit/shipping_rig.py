"""A box's queue, a real centre and a way between them that can be broken: for tests of shipping."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edge.central.ingest import Central
from edge.core.errors import Unavailable
from edge.core.settings import Settings
from edge.segments.verdicts import PARKED
from edge.sync import centre
from edge.sync.budget import ETHERNET, Budget
from edge.sync.centre import Enrolment
from edge.sync.meter import Meter
from edge.sync.shipper import Rooms, Shipper, Turn
from edge.sync.transport import Delivered, LogState, Outgoing, Parcel, Progress, SegmentVerdict, Traits, spans
from edge.testing.clock import ManualClock
from edge.testing.transport_conformance import BOX, SIGNER, Written

S_NS = 1_000_000_000


class DirectWay:
    """Straight into a centre in the same process. `down` is how many calls fail from now on; -1: all of them."""

    traits = Traits("direct", answers=True, parcel_bytes_max=1 << 20)

    def __init__(self, central: Central) -> None:
        self.central = central
        self.down = 0
        self.parcels: list[list[int]] = []
        #: Numbers of segments that make the centre fall when they come.
        self.deadly: set[int] = set()
        self.asked = 0
        #: When the centre would like to be asked again, where it does not answer.
        self.wants_ms: int | None = None

    def _fail(self) -> None:
        if self.down:
            self.down -= 1
            away = Unavailable("The centre does not answer.", retry_after_ms=self.wants_ms)
            raise away from ConnectionRefusedError()

    def state(self, log_id: bytes) -> LogState:
        """What the centre has."""
        self.asked += 1
        self._fail()
        linked, receipt = self.central.ledger.linked(log_id), self.central.receipt(log_id)
        held = spans(each.number for each in self.central.ledger.segments(log_id, PARKED))
        if linked is None:
            return LogState(held=held)
        return LogState(linked.last_seq, linked.link, held=held, receipt=receipt or b"")

    def lacking(self, digests: Collection[bytes]) -> set[bytes]:
        """Large values that are not there."""
        return {digest for digest in digests if not self.central.shelf.has_blob(digest)}

    def send_value(self, digest: bytes, source: Path, progress: Progress) -> None:
        """One large value."""
        data = source.read_bytes()
        progress(len(data))
        self.central.shelf.put_blob(digest, data)

    def send(self, parcel: Parcel, progress: Progress) -> Delivered:
        """All of a parcel, or nothing."""
        self._fail()
        numbers = [each.manifest.number for each in parcel.segments]
        if self.deadly & set(numbers):
            raise Unavailable("The centre fell.")
        progress(len(parcel.data))
        verdicts = [self.central.take(each.data, deep=False) for each in parcel.segments]
        self.parcels.append(numbers)
        return Delivered(
            tuple(SegmentVerdict(n, v.verdict, v.reason) for n, v in zip(numbers, verdicts, strict=True)),
            self.central.receipt(parcel.log_id) or b"",
            len(parcel.data),
        )

    def close(self) -> None:
        """Nothing is held."""


class Shipping:
    """A box enrolled with a centre; `ship` runs turns in virtual time."""

    def __init__(self, folder: Path, budget: Budget | None = None) -> None:
        self.clock = ManualClock()
        self.settings = Settings(folder / "box", BOX, centre=True)
        self.written = Written(folder / "box")
        self.central = Central.open(folder / "centre", lambda: self.clock.now.wall_ns)
        self.central.boxes.enrol(BOX, SIGNER.public, 0)
        centre.enrol(self.settings, Enrolment(self.central.signer.public, BOX))
        self.way = DirectWay(self.central)
        self.budget = budget or Budget()
        self.sent_bytes = 0
        self.restart()

    def restart(self) -> None:
        """Another process, after a kill: nothing is remembered but what is on the drive."""
        budgets = {ETHERNET: self.budget}
        meter = Meter(budgets, self.settings.data / centre.FOLDER, self.clock, bytes(16))
        self.shipper = Shipper(
            Rooms(
                self.settings,
                meter,
                budgets,
                self.clock,
                lambda: ETHERNET,
                lambda: 0.5,
                lambda: self.way,
                self._moved,
            ),
            2.0,
        )

    def _moved(self, size_bytes: int) -> None:
        self.sent_bytes += size_bytes

    def ship(self, turns: int = 200, until: str = "") -> list[Turn]:
        """Turns until one says so, or nothing more is to be done."""
        made = []
        for _ in range(turns):
            turn = self.shipper.turn()
            made.append(turn)
            self.clock.advance(int(turn.wait_s * S_NS))
            if (until and until in turn.said) or (not until and turn.wait_s == 2.0):
                break
        return made

    def grow(self, segments: int, *, urgent: bool = False) -> list[Outgoing]:
        """Some segments more."""
        return self.written.grow(1, segments, urgent=urgent)

    @property
    def linked(self) -> int:
        """The last event that the centre has without a gap."""
        found = self.central.ledger.linked(self.written.log_id)
        return found.last_seq if found is not None else 0
