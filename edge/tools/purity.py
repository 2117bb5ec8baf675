"""The watch over a block that is declared pure: what it asks beside its inputs ends it, with the call named.

Used by the `python` kind around author code, in processes that `edge.tools.purity_doors` has shut (others are never
watched). A call that is made while a library is being imported gets a fixed answer or the real one, since what a
library looks up about itself is no input of the block's. Must never stop the worker's own code: it looks only while
`watching`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from edge.tools.python_code import BLOCK_FILE

CLOCK: Final = "the clock"
CHANCE: Final = "chance"
ENVIRONMENT: Final = "its environment"
FILES: Final = "files"
NETWORK: Final = "the network"
ADDRESSES: Final = "memory addresses"

_MENDS: Final = {
    CLOCK: "Take the time as an input, or declare spec.effect: read.",
    CHANCE: "Seed it from the inputs (random.seed(…), random.Random(…)), or declare spec.effect: read.",
    ENVIRONMENT: "Take what it needs as an input, or declare spec.effect: read.",
    FILES: "Take the content as an input, or declare spec.effect: read and grant the file.",
    NETWORK: "Do it in a step of its own, declared read or write and granted the host.",
    ADDRESSES: "Compare and order by value, or declare spec.effect: read.",
}


class Impure(Exception):
    """A pure block asked what is not among its inputs. `line` is the block's, None where it cannot be told."""

    def __init__(self, call: str, what: str, line: int | None) -> None:
        super().__init__(f"The block is declared pure, but {call} looks at {what}.")
        self.line = line
        self.mend = _MENDS[what]


@dataclass(slots=True)
class _Watch:
    installed: bool = False
    on: bool = False
    #: `random`'s own generator was seeded by this run.
    seeded: bool = False
    #: What the block itself called, though it may have caught the refusal.
    caught: Impure | None = None


WATCH: Final = _Watch()


@contextmanager
def watching() -> Iterator[None]:
    """Watch until the block ends. Raises Impure where the block caught one and went on."""
    if not WATCH.installed:
        yield
        return
    WATCH.on, WATCH.seeded, WATCH.caught = True, False, None
    try:
        yield
    finally:
        WATCH.on = False
        caught, WATCH.caught = WATCH.caught, None
    if caught is not None:
        raise caught


def refuse(call: str, what: str) -> bool:
    """Raises Impure where a watched block called this; True where a library that is being imported did."""
    if not WATCH.on:
        return False
    frame: FrameType | None = sys._getframe(2)
    direct, between = frame, None
    while frame is not None and frame.f_code.co_filename != BLOCK_FILE:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        between, frame = frame, frame.f_back
    if between is not None and frame is not None:
        name = f"{between.f_globals.get('__name__', '?')}.{between.f_code.co_name}"
        call = f"{name} (by {call})" if name != call else call
    error = Impure(call, what, None if frame is None else frame.f_lineno)
    if frame is direct:
        WATCH.caught = WATCH.caught or error
    raise error


def own_builtins() -> dict[str, Any]:
    """A block's own builtins: one that rebinds a name changes only its own view; `id` is no value of a pure one's."""
    own = dict(vars(builtins))
    if WATCH.installed:

        def shut_id(_: object) -> int:
            refuse("id", ADDRESSES)
            return 0

        own["id"] = shut_id
    return own
