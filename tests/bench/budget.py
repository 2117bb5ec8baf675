"""The budget: which figures of a run may not cross which bounds. Pure but for reading `budget.toml`.

Called by `main` with `--check`, which then ends with 3. A figure that this run did not measure is not judged, and
said to be so; a bound whose name no run could match would judge nothing, so a unit test looks at all names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("budget.toml")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the budget says of one run: sentences, one for each bound that was crossed, and bounds not judged."""

    crossed: tuple[str, ...]
    unjudged: tuple[str, ...]


def load(path: Path = FILE) -> dict[str, dict[str, float]]:
    """`{"most": {name: bound}, "least": {…}}`."""
    bounds: dict[str, dict[str, float]] = tomllib.loads(path.read_text())
    return bounds


def find(document: Mapping[str, Any], name: str) -> float | None:
    """A figure by its path, None where there is none. Keys may hold dots (`drive_bytes_per_event.0.0.1`)."""
    if name in document:
        value = document[name]
        return float(value) if isinstance(value, int | float) else None
    for key, below in document.items():
        if name.startswith(f"{key}.") and isinstance(below, Mapping):
            found = find(below, name[len(key) + 1 :])
            if found is not None:
                return found
    return None


def judge(document: Mapping[str, Any], bounds: Mapping[str, Mapping[str, float]]) -> Verdict:
    """Compare a run's JSON document with the bounds."""
    crossed, unjudged = [], []
    for side, words in (("most", "at most"), ("least", "at least")):
        for name, bound in bounds.get(side, {}).items():
            value = find(document, name)
            if value is None:
                unjudged.append(name)
            elif (value > bound) if side == "most" else (value < bound):
                crossed.append(f"{name} is {value:g}; the budget allows {words} {bound:g}.")
    return Verdict(tuple(crossed), tuple(unjudged))
