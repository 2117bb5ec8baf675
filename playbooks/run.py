"""How far one claim may carry on: the straight lines of pure steps.

Worked out by the compiler, checked again when a blueprint is read. Where an arc asks a question, or a step
sets a value of `ctx`, the runtime answers: workers never start steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: `(effect, whether it has `set`, [(target, whether the arc is unconditional)…])` of one step.
Line = tuple[str, bool, Sequence[tuple[int, bool]]]


def straight_line(steps: Sequence[Line], start: int) -> int:
    """How many steps may follow `start` in one claim: pure ones, by single unconditional arcs, without `set`."""
    seen, here = {start}, steps[start]
    while here[0] == "pure" and not here[1] and len(here[2]) == 1 and here[2][0][1]:
        target = here[2][0][0]
        if target in seen or steps[target][0] != "pure":
            break
        seen.add(target)
        here = steps[target]
    return len(seen) - 1


def longest_runs(steps: Sequence[dict[str, Any]]) -> list[int]:
    """`straight_line` of every step of a blueprint's body."""
    lines = [
        (step["effect"], bool(step["set"]), [(target, when is None) for target, when in step["arcs"]])
        for step in steps
    ]
    return [straight_line(lines, position) for position in range(len(lines))]
