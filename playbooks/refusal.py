"""What reading an expression may say: the node it means, or that it is refused, and where.

Shared by everything between `{{ }}` and the blueprint (`expressions`, `statements`, `signatures`, `names`). Owns
nothing else, so that these may know each other's refusals without knowing each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NodeList = list[Any]
#: Given a bare name and its offset: the node it means. May raise Refused.
Resolve = Callable[[str, int], NodeList]


class OutcomeNode(list[Any]):
    """The node of a step's or task's result: its `.data` and `.status` may be asked for, as of NoETL's envelope."""


class SpaceNode(list[Any]):
    """The node of a `namespace()` of a template: only its keys may be asked for."""


class Refused(Exception):
    """The expression is refused: at which offset, why, and how to mend it."""

    def __init__(self, offset: int, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.offset, self.message, self.mend = offset, message, mend
