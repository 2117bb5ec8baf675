"""The fold of a sequence of event shapes, done once: a state's bytes with places for what the rows say.

An execution is folded with marks in place of its rows' items; where the marks come to stand in the state's bytes, the
items of every other execution of the same sequence stand, too. That holds since the fold hands on what
`edge.replay.shapes` calls kept and looks at nothing of it; it is tried against the fold itself at the first execution
and at every power of two. Called by `edge.replay.log_state`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from operator import itemgetter

from edge.core.codec import decode, encode
from edge.core.state import RUNNING, fold
from edge.replay.shapes import EventShape
from edge.replay.state_digest import as_plain, state_bytes


class Program:
    """From the items of one execution's rows, one behind the other, to its state's digest."""

    def __init__(self, shapes: Sequence[EventShape]) -> None:
        """Raises LogDamaged where the fold does not follow."""
        marks = _marks(shapes)
        events, first, tagged = [], 0, set[int]()
        for shape in shapes:
            events.append(shape.marked(marks[first : first + shape.width]))
            tagged |= {first + place for place in shape.tagged}
            first += shape.width
        state = fold(events)
        self.running = state.status == RUNNING
        self.uses = 0
        self._form, places = _form(state_bytes(state), marks)
        self._tagged = tuple(number for number, place in enumerate(places) if place in tagged)
        self._pick: Callable[[Sequence[bytes]], tuple[bytes, ...]] = (
            itemgetter(*places) if len(places) > 1 else lambda items: tuple(items[place] for place in places)
        )

    def digest(self, items: Sequence[bytes]) -> bytes:
        """As `state_digest` gives it for the folded events."""
        picked = self._pick(items)
        if self._tagged:  # references are written in another way
            told = list(picked)
            for number in self._tagged:
                told[number] = encode(as_plain(decode(told[number])))
            picked = tuple(told)
        return sha256(self._form % picked).digest()


def _marks(shapes: Sequence[EventShape]) -> list[bytes]:
    """Bytes that stand for items: made of what the shapes say, so that none of them can say the same."""
    told = sha256()
    for shape in shapes:
        for part in (*shape.envelope, *shape.body):
            told.update(part if isinstance(part, bytes) else b"%d" % part)
    seed = told.digest()
    return [sha256(seed + b"%d" % number).digest() for number in range(sum(each.width for each in shapes))]


def _form(told: bytes, marks: list[bytes]) -> tuple[bytes, list[int]]:
    """A state's bytes as a form to fill in, and which item belongs in each place."""
    numbers = {encode(mark): number for number, mark in enumerate(marks)}
    found = re.compile(b"|".join(map(re.escape, numbers)))
    places = [numbers[met[0]] for met in found.finditer(told)]
    return b"%b".join(part.replace(b"%", b"%%") for part in found.split(told)), places
