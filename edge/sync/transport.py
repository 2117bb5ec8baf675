"""How sealed segments get to a centre, whatever carries them: one small interface, and the values that go through it.

Implemented by `edge.sync.folder` (a stick, a share) and `edge.sync.https`; called by the command line and by the
process that ships. Every implementation runs through `edge.testing.transport_conformance`.

A carrier that answers (HTTPS) gives verdicts and a receipt with the upload. One that only takes (a folder, a bucket
with create-only puts, a doorbell over MQTT) says `left`, and the next `state` shows how far the centre came. Nobody
may conclude from an upload what may be pruned: only from a receipt, through `edge.sync.centre.take_receipt`.

Sending the same again is always right. After any error the caller asks for the state and sends what is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from edge.core.errors import SegmentRejected, StorageFailed
from edge.core.limits import SEGMENT_FILE_BYTES_MAX
from edge.core.records import record
from edge.segments.manifest import Manifest, id_of
from edge.segments.sealed import manifest_in

Progress = Callable[[int], None]
"""Called with the bytes that went out since the last call. What it raises ends the upload, which can be resumed."""


@record
class Traits:
    """What a carrier can do. `answers`: verdicts and receipt come with the upload, else later with the state.

    `parcel_bytes_max` bounds one parcel, `segment_bytes_max` one segment (0: any that there is).
    """

    name: str
    answers: bool
    parcel_bytes_max: int
    segment_bytes_max: int = 0


@record
class LogState:
    """What the centre has of a log, as far as the carrier knows.

    `through` and `link`: the last event that is linked to the log's beginning, and the chain there; 0 and b"" where
    nothing is. `held`: numbers `[first, last]` of segments beyond it that are there or on their way. `wall_ns`: the
    centre's time (0: unknown). `receipt`: the newest one, signed, or b"".
    """

    through: int = 0
    link: bytes = b""
    held: tuple[tuple[int, int], ...] = ()
    wall_ns: int = 0
    receipt: bytes = b""

    def has(self, said: Manifest) -> bool:
        """Whether a segment need not be sent: it is there, linked or not, or on its way."""
        return said.last_seq <= self.through or any(first <= said.number <= last for first, last in self.held)


def spans(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as `[first, last]` of what follows one another: for `LogState.held`."""
    made: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if made and made[-1][1] == number - 1:
            made[-1] = (made[-1][0], number)
        else:
            made.append((number, number))
    return tuple(made)


class Outgoing:
    """One sealed segment as it goes out: its bytes, and what its manifest says. The signature is not looked at."""

    __slots__ = ("data", "id", "manifest")

    def __init__(self, data: bytes) -> None:
        """Raises SegmentRejected where these are no segment's bytes."""
        raw, _, _ = manifest_in(data)
        try:
            self.manifest = Manifest.decode(raw)
        except ValueError as error:
            raise SegmentRejected(f"A sealed segment cannot be read: {error}.") from error
        self.id = id_of(raw)
        self.data = data

    @classmethod
    def of(cls, path: Path) -> Outgoing:
        """A segment from its file. Raises SegmentRejected, StorageFailed."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error
        if len(data) > SEGMENT_FILE_BYTES_MAX:
            raise SegmentRejected(f"{path} has {len(data)} bytes: more than any segment.")
        return cls(data)


class Parcel:
    """Segments that go out together, in the order in which the centre shall look at them."""

    def __init__(self, segments: Sequence[Outgoing]) -> None:
        """Of one log, at least one."""
        assert len({each.manifest.log_id for each in segments}) == 1, "a parcel is of one log"
        self.segments = tuple(segments)

    @property
    def log_id(self) -> bytes:
        """Whose they are."""
        return self.segments[0].manifest.log_id

    @cached_property
    def data(self) -> bytes:
        """All of it: one segment behind the other."""
        return b"".join(each.data for each in self.segments)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of `data`: the name that an upload is resumed by."""
        return hashlib.sha256(self.data).digest()

    @property
    def values(self) -> dict[bytes, int]:
        """Digest and size of the large values that these segments name and that travel apart."""
        return {digest: size for each in self.segments for digest, size in each.manifest.blobs}


@record
class SegmentVerdict:
    """What became of one segment (`edge.segments.verdicts`); `reason` says why where it was not taken."""

    number: int
    verdict: str
    reason: str = ""


@record
class Delivered:
    """The answer to a parcel: a verdict for each segment in its order, and the newest receipt where one came.

    `sent_bytes` went over the wire for it, those of an upload that broke off and was resumed inside included;
    `resumed_bytes` were there from an earlier one.
    """

    verdicts: tuple[SegmentVerdict, ...]
    receipt: bytes = b""
    sent_bytes: int = 0
    resumed_bytes: int = 0


class Transport(Protocol):
    """A way to one centre for one box.

    Every call raises Unavailable (with `retry_after_ms` where the centre said when) for what passes by itself,
    RequestRefused for a box that the centre does not let in, Misconfigured for what a person must mend on the box,
    StorageFailed where something is full or broken.
    """

    traits: Traits

    def state(self, log_id: bytes) -> LogState:
        """What is there of a log."""
        ...

    def lacking(self, digests: Collection[bytes]) -> set[bytes]:
        """Which of these large values are not there yet."""
        ...

    def send_value(self, digest: bytes, source: Path, progress: Progress) -> None:
        """Carry one large value, going on where an earlier call broke off. Before the segments that name it."""
        ...

    def send(self, parcel: Parcel, progress: Progress) -> Delivered:
        """Carry a parcel, going on where an earlier call with the same one broke off."""
        ...

    def close(self) -> None:
        """Let go of connections, and leave what is there complete in itself."""
        ...
