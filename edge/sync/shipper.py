"""One turn of shipping: what goes next, whether it may, and what becomes of the answer.

Owned by the daemon (`edge.sync.daemon`), which waits between turns; blocking, one upload at a time. Everything that
must not be forgotten is on the drive before the next turn: receipts by `centre.take_receipt`, bytes by the meter,
what was set aside by the queue. So it may be killed anywhere, and the next one asks the centre and goes on.

It must never let anything be pruned by a verdict, nor send above the budget.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from edge.core.clock import Clock
from edge.core.errors import (
    Misconfigured,
    ReceiptRejected,
    RequestRefused,
    SegmentRejected,
    StorageFailed,
    Unavailable,
)
from edge.core.limits import (
    ATTEMPT_BYTES,
    BACKOFF_S_MAX,
    CONNECT_BYTES,
    KIB,
    SEAL_AFTER_S,
    STATE_AGE_S,
    STUMBLES_ALONE,
    STUMBLES_LAST,
    UPLOAD_BYTES,
)
from edge.core.records import record
from edge.core.settings import Settings
from edge.segments.verdicts import ARRIVED, FORK
from edge.store.blobs import BlobStore
from edge.sync import centre, priority
from edge.sync.budget import Budget
from edge.sync.meter import Meter
from edge.sync.queue import Aside, Queue, Queued, SetAside
from edge.sync.spare import Spare
from edge.sync.transport import Delivered, LogState, Outgoing, Parcel, Transport

logger = logging.getLogger(__name__)

#: A wait for the budget is looked at again so often: the link may have changed, or something urgent have come.
_WAIT_S_MAX: Final = 10.0
#: A carrier tells of so many bytes at a time at most.
_PIECE_BYTES: Final = 128 * KIB


class Stopped(Exception):
    """The process was told to end: an upload that is under way is let go, and can be resumed."""


class _DayUsedUp(Exception):
    """A value is larger than what may go in a day; the rest goes on another."""


@record
class Turn:
    """What came of one turn: seconds until the next, a line for people, and whether a person is needed."""

    wait_s: float
    said: str
    trouble: str = ""


@record
class Rooms:
    """What a shipper works with. `link` gives the class of the link now, `chance` a number from [0, 1)."""

    settings: Settings
    meter: Meter
    budgets: dict[str, Budget]
    clock: Clock
    link: Callable[[], str]
    chance: Callable[[], float]
    connect: Callable[[], Transport]
    progress: Callable[[int], None]


class Shipper:
    """See the module. `idle_s` is how long an empty queue is left alone."""

    def __init__(self, rooms: Rooms, idle_s: float) -> None:
        self._rooms, self._idle_s = rooms, idle_s
        self.queue = Queue(rooms.settings.sealed_folder)
        self.aside = Aside(rooms.settings.data / centre.FOLDER)
        self._blobs = BlobStore(rooms.settings.blob_folder)
        self._spare = Spare(rooms.settings.data / centre.FOLDER)
        self._spare.hold()
        self._transport: Transport | None = None
        #: What the centre has, None where it must be asked; when that was, and what came there since.
        self._state: LogState | None = None
        self._state_ns = 0
        self._arrived: set[int] = set()
        #: Where the centre's word comes by a courier it is looked for more often.
        self._answers = True
        self._failures = 0
        #: Whether the centre said when to come again: then that is waited for.
        self._bidden = False
        #: Whether the queue changed since a turn looked at it.
        self._changed = False
        #: How often an upload failed that a segment was in, while the centre answered otherwise.
        self._stumbles: Counter[int] = Counter()

    def turn(self) -> Turn:
        """Do at most one upload. Raises Stopped alone."""
        self._bidden = False
        try:
            turn = self._turn()
        except Unavailable as error:
            self._failures += 1
            self._bidden = bool(error.retry_after_ms)
            wait_s = priority.backoff_s(
                self._failures, self._rooms.chance(), (error.retry_after_ms or 0) / 1e3
            )
            turn = Turn(wait_s, f"the centre does not answer ({self._failures} times): {error}")
        except (RequestRefused, Misconfigured, ReceiptRejected, SegmentRejected, StorageFailed) as error:
            if isinstance(error, StorageFailed) and self._spare.give():
                return Turn(0.0, f"going on with the room that was held for this: {error}")
            self._failures += 1
            wait_s = BACKOFF_S_MAX * (0.5 + self._rooms.chance())
            turn = Turn(wait_s, f"stopped for a person: {error}", str(error))
        else:
            return turn
        self.let_go()
        return turn

    def urgent_came(self) -> bool:
        """Whether something urgent was sealed since the last turn, which is worth one attempt before its time."""
        if self._bidden:
            return False
        known = {number for number, each in self.queue.segments.items() if each.urgent}
        try:
            self._changed = self.queue.look() or self._changed
        except StorageFailed:
            return False  # the next turn says so
        return any(each.urgent and number not in known for number, each in self.queue.segments.items())

    def let_go(self) -> None:
        """Close the connection and ask the centre anew next time; nothing that once hung is used again."""
        self._state = None
        self._close()

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._answers = transport.traits.answers
            try:
                transport.close()
            except (StorageFailed, Unavailable) as error:
                logger.warning("%s", error)

    def _turn(self) -> Turn:
        if self.queue.look() or self._changed:
            self._changed = False
            self._note_unreadable()
            self._arrived &= self.queue.segments.keys()
        if (stop := self.aside.stop) is not None:
            return Turn(_WAIT_S_MAX, f"STOPPED at segment {stop.number}: {stop.reason}", stop.reason)
        newest = self.queue.newest
        if newest is None:
            self._close()
            return Turn(self._idle_s, "all that is sealed is at the centre", self._trouble())
        if not any(self._may_be_lacking(each) for each in self.queue.segments.values()):
            self._close()
            return Turn(self._idle_s, self._told_idle(), self._trouble())
        if self._state is None and (asked := self._ask(newest.log_id)) is not None:
            return asked
        lacking = [each for each in self.queue.segments.values() if self._lacks(each)]
        if not lacking:
            return Turn(self._idle_s, self._told_idle(), self._trouble())
        return self._send(self._next(lacking), len(lacking))

    # ---- What is there ------------------------------------------------------------------------------------------

    def _note_unreadable(self) -> None:
        for number, why in self.queue.unreadable.items():
            self._set_aside(number, f"its file on the box cannot be read: {why}")

    def _set_aside(self, number: int, reason: str, *, stops: bool = False) -> None:
        if number not in self.aside:
            logger.error("segment %d is set aside: %s", number, reason)
            self.aside.add(SetAside(number, reason, self._rooms.clock.read().wall_ns, stops))

    def _trouble(self) -> str:
        aside = self.aside.all()
        return f"{len(aside)} set aside, the first: {aside[0].reason}" if aside else ""

    def _told_idle(self) -> str:
        aside = len(self.aside.all())
        more = f", {aside} set aside: see `edge sync status`" if aside else ""
        return f"{len(self.queue.segments)} segments wait for the centre's receipt{more}"

    def _may_be_lacking(self, each: Queued) -> bool:
        """Without asking the centre: whether there is a reason to ask or to send."""
        age_s = (self._rooms.clock.read().mono_ns - self._state_ns) / 1e9
        if self._state is not None and age_s > (STATE_AGE_S if self._answers else SEAL_AFTER_S):
            self._state = None
        return self._state is None or self._lacks(each)

    def _lacks(self, each: Queued) -> bool:
        assert self._state is not None, "the centre was asked"
        there = each.last_seq <= self._state.through or any(
            a <= each.number <= b for a, b in self._state.held
        )
        return not there and each.number not in self._arrived and each.number not in self.aside

    def _ask(self, log_id: bytes) -> Turn | None:
        """Ask the centre what it has; a turn to wait for where the budget does not allow even that."""
        if (wait_s := self._may_s(CONNECT_BYTES + UPLOAD_BYTES, urgent=True)) > 0:
            return self._waiting(wait_s)
        link, connects = self._link(), self._transport is None
        self._rooms.meter.spend(link, UPLOAD_BYTES)
        try:
            state = self._connected().state(log_id)
        except Unavailable as error:
            if connects and _never_met(error):
                # A network that is away must not use up the budget of the day on which it comes back.
                self._rooms.meter.spend(link, ATTEMPT_BYTES - CONNECT_BYTES - UPLOAD_BYTES)
            raise
        self._state, self._state_ns, self._failures = state, self._rooms.clock.read().mono_ns, 0
        self._arrived.clear()
        if state.receipt:
            self._take_receipt(state.receipt)
            self.queue.look()
        return None

    def _connected(self) -> Transport:
        """The way that is open, or a new one, which is paid for."""
        if self._transport is None:
            self._rooms.meter.spend(self._link(), CONNECT_BYTES)
            self._transport = self._rooms.connect()
        return self._transport

    def _link(self) -> str:
        return self._rooms.link()

    def _may_s(self, size_bytes: int, *, urgent: bool) -> float:
        return self._rooms.meter.wait_s(self._link(), size_bytes, urgent=urgent)

    def _waiting(self, wait_s: float) -> Turn:
        self._rooms.meter.keep()
        link = self._link()
        if wait_s < 60:
            return Turn(
                min(wait_s, _WAIT_S_MAX), f"sending at the budget of {link}: {self._rooms.budgets[link]}"
            )
        said = f"the budget of {link} ({self._rooms.budgets[link]}) is used up"
        return Turn(min(wait_s, _WAIT_S_MAX), said)

    # ---- What goes ----------------------------------------------------------------------------------------------

    def _next(self, lacking: list[Queued]) -> list[Queued]:
        """What goes in the next upload. What keeps failing goes alone, and then last, so that the rest goes on."""
        link = self._link()
        ordered = priority.in_order(each.waiting for each in lacking)
        ordered.sort(key=lambda each: self._stumbles[each.number] >= STUMBLES_LAST)
        urgent = self.queue.segments[ordered[0].number].urgent
        room_bytes = self._rooms.meter.room_bytes(link, urgent=urgent) - UPLOAD_BYTES
        taken = priority.bundle(ordered, self._rooms.budgets[link].bytes_per_s, room_bytes)
        alone = next(
            (at for at, each in enumerate(taken) if self._stumbles[each.number] >= STUMBLES_ALONE), None
        )
        if alone is not None:
            taken = taken[: max(alone, 1)]
        return [self.queue.segments[each.number] for each in taken]

    def _send(self, chosen: list[Queued], lacking: int) -> Turn:
        urgent = chosen[0].urgent
        size_bytes = sum(each.size_bytes for each in chosen) + UPLOAD_BYTES
        if (wait_s := self._may_s(size_bytes, urgent=urgent)) > 0:
            return self._waiting(wait_s)
        outgoing = [made for each in chosen if (made := self._opened(each)) is not None]
        if not outgoing:
            return Turn(0.0, "going on behind what cannot be read")
        parcel, transport = Parcel(outgoing), self._connected()
        if (turn := self._send_values(parcel, transport, urgent=urgent)) is not None:
            return turn
        link = self._link()
        self._rooms.meter.spend(link, size_bytes)
        try:
            delivered = transport.send(parcel, self._rooms.progress)
        except (Unavailable, SegmentRejected):
            self._stumbles.update(each.manifest.number for each in outgoing)
            raise
        self._rooms.meter.spend(link, delivered.sent_bytes + UPLOAD_BYTES - size_bytes)
        self._failures = 0
        self._settle(delivered)
        return Turn(0.0, f"sending: {lacking - len(chosen)} segments to go")

    def _opened(self, each: Queued) -> Outgoing | None:
        try:
            return Outgoing.of(each.path)
        except (SegmentRejected, StorageFailed) as error:
            self._set_aside(each.number, f"its file on the box cannot be read: {error}")
            return None

    def _send_values(self, parcel: Parcel, transport: Transport, *, urgent: bool) -> Turn | None:
        """Large values that the segments name go before them, one a turn; None when all are there."""
        if not parcel.values:
            return None
        for digest in sorted(transport.lacking(parcel.values)):
            path = self._blobs.path(digest)
            if not path.is_file():
                logger.error("value %s is not on the box any more; its segment goes without it", digest.hex())
                continue
            return self._send_value(digest, parcel.values[digest], transport, urgent=urgent)
        return None

    def _send_value(self, digest: bytes, size_bytes: int, transport: Transport, *, urgent: bool) -> Turn:
        """One large value, or as much of it as a day's budget holds: the carrier goes on there the next day."""
        link = self._link()
        piece_bytes = min(size_bytes + UPLOAD_BYTES, self._rooms.meter.most_bytes(link, urgent=urgent))
        if (wait_s := self._may_s(piece_bytes, urgent=urgent)) > 0:
            return self._waiting(wait_s)
        self._rooms.meter.spend(link, piece_bytes)
        left_bytes = piece_bytes - UPLOAD_BYTES

        def progress(sent_bytes: int) -> None:
            nonlocal left_bytes
            left_bytes -= sent_bytes
            self._rooms.progress(sent_bytes)
            if left_bytes < _PIECE_BYTES and piece_bytes < size_bytes:
                raise _DayUsedUp

        try:
            transport.send_value(digest, self._blobs.path(digest), progress)
        except _DayUsedUp:
            self.let_go()
        return Turn(0.0, "sending large values")

    def _settle(self, delivered: Delivered) -> None:
        """Each segment has its own verdict: one that is refused holds up no other."""
        for each in delivered.verdicts:
            self._stumbles.pop(each.number, None)
            if each.verdict in ARRIVED:
                self._arrived.add(each.number)
            else:
                self._set_aside(each.number, each.reason or each.verdict, stops=each.verdict == FORK)
        if delivered.receipt:
            self._take_receipt(delivered.receipt)

    def _take_receipt(self, data: bytes) -> None:
        try:
            receipt, freed = centre.take_receipt(self._rooms.settings, data)
        except ReceiptRejected as error:
            if error.problem_code == centre.OTHER_HISTORY:
                self._set_aside(min(self.queue.segments, default=0), error.message, stops=True)
            raise
        self.queue.look()
        self._arrived &= self.queue.segments.keys()
        self.aside.drop_up_to(receipt.through, self.queue)
        if freed:
            self._spare.hold()
            logger.info(
                "the centre has every event up to %d; %d segments left the queue", receipt.through, freed
            )


def _never_met(error: Unavailable) -> bool:
    """Whether nobody was met at all: no name, no route, no open port. After that much more may have gone out."""
    cause = error.__cause__
    return isinstance(cause, OSError) and type(cause).__module__ != "ssl"
