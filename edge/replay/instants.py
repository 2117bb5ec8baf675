"""Which event was the last at a moment of the wall clock: clocks are notes, the order is the number (design §5).

Called for `--at`. A box may have slept in 1970 until its clock was set, or been set back by a person; so the answer
is an event with the range in which the true one lies, and the words that say why. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edge.core.chain import OpenedGroup
from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, Reading
from edge.core.errors import RequestRefused
from edge.core.records import record

#: Clocks that are merely disciplined run apart by 0.5 ms a second at the most (as `edge.core.clock` has it).
_DRIFT_PARTS: Final = 2_000
#: What a synchronised clock is believed to.
_SYNCHRONISED_NS: Final = 100_000_000
_NEVER_NS: Final = 1 << 62


@record
class Instant:
    """After which event the log stood at a moment; the true one is from `first` to `last`, `words` say why."""

    seq: int
    first: int
    last: int
    words: str


@record
class _Stamp:
    """One group's place in time: as well as its boot's clocks can say, and how wrong that may be (ns)."""

    first_seq: int
    last_seq: int
    at_ns: int
    wrong_ns: int


def instant(groups: Iterable[OpenedGroup], wall_ns: int) -> Instant:
    """The last event at that moment. Raises RequestRefused where the log began later, or has no time at all."""
    stamps = list(_stamps(groups))
    placed = [stamp for stamp in stamps if stamp.wrong_ns < _NEVER_NS]
    if not placed:
        raise RequestRefused(
            "No clock of this log was ever believed: no event of it has a time.",
            mend="Ask by number: --at-seq.",
        )
    before = [stamp for stamp in placed if stamp.at_ns <= wall_ns]
    if not before:
        raise RequestRefused(
            "The first event of this log that has a time came after that moment.", mend="Ask for a later one."
        )
    seq = before[-1].last_seq
    surely = [stamp.last_seq for stamp in placed if stamp.at_ns + stamp.wrong_ns <= wall_ns]
    after = [stamp.first_seq - 1 for stamp in placed if stamp.at_ns - stamp.wrong_ns > wall_ns]
    perhaps = [stamp.last_seq for stamp in placed if stamp.at_ns - stamp.wrong_ns <= wall_ns]
    first = min(max(surely, default=stamps[0].first_seq - 1), seq, *after[:1])
    # Events of groups that no clock can place lie anywhere between their neighbours.
    last = _through_unplaced(stamps, max(seq, *perhaps))
    return Instant(seq, first, last, _words(before[-1], seq, first, last))


def _through_unplaced(stamps: list[_Stamp], last: int) -> int:
    for stamp in stamps:
        if stamp.first_seq > last:
            if stamp.wrong_ns < _NEVER_NS:
                break
            last = stamp.last_seq
    return last


def _words(stamp: _Stamp, seq: int, first: int, last: int) -> str:
    if first == last == seq:
        return f"after event {seq}"
    wrong_s = stamp.wrong_ns / 1e9
    return f"after event {seq}; the clock may be wrong by {wrong_s:.1f} s, so it may be any from {first} to {last}"


def _stamps(groups: Iterable[OpenedGroup]) -> Iterable[_Stamp]:
    """Every group's time: by the nearest synchronised reading of its boot, else by its own clock, else unknown."""
    boots: dict[bytes, list[tuple[int, int, Reading]]] = {}
    for group in groups:
        at = group.context.at
        boots.setdefault(group.context.boot_id, []).append((group.first_seq, group.last_seq, at))
    made = [stamp for readings in boots.values() for stamp in _of_boot(readings)]
    return sorted(made, key=lambda stamp: stamp.first_seq)


def _of_boot(readings: list[tuple[int, int, Reading]]) -> Iterable[_Stamp]:
    sure = [at for _, _, at in readings if at.wall_trust == WALL_SYNCHRONISED]
    place = 0
    for first_seq, last_seq, at in readings:
        while place + 1 < len(sure) and _apart(sure[place + 1], at) <= _apart(sure[place], at):
            place += 1
        if sure:
            near = sure[place]
            at_ns = near.wall_ns + at.mono_ns - near.mono_ns
            yield _Stamp(first_seq, last_seq, at_ns, _SYNCHRONISED_NS + _apart(near, at) // _DRIFT_PARTS)
        elif at.wall_trust == WALL_IMPLAUSIBLE:
            yield _Stamp(first_seq, last_seq, 0, _NEVER_NS)
        else:
            yield _Stamp(first_seq, last_seq, at.wall_ns, _unconfirmed_ns(readings))


def _apart(one: Reading, other: Reading) -> int:
    return abs(one.mono_ns - other.mono_ns)


def _unconfirmed_ns(readings: list[tuple[int, int, Reading]]) -> int:
    """How wrong a clock may be that nobody confirmed: nobody knows; said is how far it moved, at least an hour."""
    moved = [at.wall_ns - at.mono_ns for _, _, at in readings if at.wall_trust != WALL_IMPLAUSIBLE]
    return max(3_600_000_000_000, max(moved) - min(moved))
