"""How far one claim may carry on: the straight lines of pure steps.

Worked out by the compiler, checked again when a blueprint is read. Where an arc asks a question or carries something,
a step sets a value of `ctx`, or the next one has admission rules, the runtime answers: workers never start steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.core.records import record


@record
class Line:
    """What of one step decides about straight lines.

    `plain` is false where anything is asked or set after it; `alone` where its own admission is asked, or it is a
    pipeline or a loop, which may have to stop; `targets` are `(step, whether that arc is unconditional)`.
    """

    effect: str
    plain: bool
    alone: bool
    targets: Sequence[tuple[int, bool]]


def straight_line(steps: Sequence[Line], start: int) -> int:
    """How many steps may follow `start` in one claim: pure ones, by single arcs without conditions, nothing set."""
    seen, here = {start}, steps[start]
    while here.effect == "pure" and here.plain and len(here.targets) == 1 and here.targets[0][1]:
        target = here.targets[0][0]
        if target in seen or steps[target].effect != "pure" or steps[target].alone:
            break
        seen.add(target)
        here = steps[target]
    return len(seen) - 1
