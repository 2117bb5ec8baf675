"""Sequence numbers: which may come next where it is not known what was given out before, and how they are said.

Used by the journal at the start of a life and by recovery where the end of the log is lost (design §4, Order between
the homes); by whoever tells people of a range of them. Never lets one be used twice.
"""

from __future__ import annotations

import os

from edge.core.limits import NUMBERS_SKIPPED_MIN

_CHANCE_BITS = 20


def number_beyond(seq: int) -> int:
    """The number to go on with where all that was written is there, up to `seq`, and more was given out in memory.

    A round one, so that people see beside which of these places an event stands.
    """
    return -(-(seq + NUMBERS_SKIPPED_MIN) // NUMBERS_SKIPPED_MIN) * NUMBERS_SKIPPED_MIN + 1


def number_far_beyond(seq: int) -> int:
    """The number to go on with where whole lives may be lost behind `seq`: they jumped too, nobody knows whereto.

    Drawn by chance, or two lives would jump to the same place: one in a million falls where one before it began.
    2^53, the last number that JSON holds everywhere, is some 17,000 of these away.
    """
    chance = int.from_bytes(os.urandom(4), "big") >> (32 - _CHANCE_BITS)
    return number_beyond(seq) + chance * NUMBERS_SKIPPED_MIN


def told_range(first: int, last: int) -> str:
    """A range of events as people say it: "event 2", "events 2 to 5"."""
    return f"event {first}" if first == last else f"events {first} to {last}"
