"""Two outcomes of one block side by side: the same, or what kind of difference it is.

Used by `edge.replay.rerun` and `edge.replay.whatif`. Values are compared as they are kept, byte for byte; numbers
with a point that differ by no more than a declared tolerance are a class of their own, never called equal. Pure.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

from edge.core.codec import decode
from edge.core.records import record
from edge.core.values import BlockRef, TableRef, ValueRef

SAME: Final = ""
PURE: Final = "pure-changed"
DECISION: Final = "decision-changed"
REQUEST: Final = "request-changed"
EXTRA: Final = "extra-effect"
ABSENT: Final = "missing-effect"
UNRECORDED: Final = "missing-recording"
VARIES: Final = "non-deterministic"
TAIL: Final = "incomplete-tail"
WITHIN: Final = "within-tolerance"
CLASSES: Final = (PURE, DECISION, REQUEST, EXTRA, ABSENT, UNRECORDED, VARIES, TAIL, WITHIN)
#: Of these the execution is not called changed: what is not there cannot differ.
NO_CHANGE: Final = frozenset({SAME, TAIL, WITHIN})

_DIGEST_DIGITS: Final = 16


@record
class Output:
    """What a block gave, as the log keeps it: CBOR bytes, a digest of such, a block's reference, or a problem."""

    value: bytes | None = None
    digest: bytes | None = None
    block: BlockRef | None = None
    problem: dict[str, Any] | None = None

    def plain(self) -> Any:
        """For people and JSON."""
        if self.problem is not None:
            return {"problem": self.problem}
        if self.value is not None:
            return {"value": decode(self.value)}
        if type(self.block) is TableRef:
            return {"table": {"rows": self.block.rows, "digest": self.block.digest.hex()[:_DIGEST_DIGITS]}}
        if type(self.block) is ValueRef:
            return {
                "value": {"preview": self.block.preview, "digest": self.block.digest.hex()[:_DIGEST_DIGITS]}
            }
        return {"digest": (self.digest or b"").hex()[:_DIGEST_DIGITS]}


@record
class Difference:
    """How a run again differs at event `seq`, in a block of a step; `was` and `now` are both sides."""

    seq: int
    kind: str
    step: str
    visit: int
    item: int | None
    what: str
    was: Any
    now: Any

    def plain(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def classified(was: Output, now: Output, tolerance: float = 0.0) -> str:
    """SAME, WITHIN, or PURE."""
    if was.problem is not None or now.problem is not None:
        return SAME if _same_problem(was.problem, now.problem) else PURE
    if was.block is not None and now.block is not None:
        return SAME if was.block.digest == now.block.digest else PURE
    if was.block is not None or now.block is not None:
        return PURE
    if was.value is None or now.value is None:
        return SAME if _digest(was) == _digest(now) else PURE
    if was.value == now.value:
        return SAME
    return WITHIN if tolerance and near(decode(was.value), decode(now.value), tolerance) else PURE


def _digest(output: Output) -> bytes | None:
    return hashlib.sha256(output.value).digest() if output.value is not None else output.digest


def _same_problem(was: dict[str, Any] | None, now: dict[str, Any] | None) -> bool:
    """By code and message: what else a problem holds are details of the moment."""
    if was is None or now is None:
        return False
    return all(was.get(key) == now.get(key) for key in ("code", "message"))


def near(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two values differ only in numbers with a point, each by no more than `tolerance` of the larger."""
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=tolerance, abs_tol=0.0)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            near(a, b, tolerance) for a, b in zip(one, other, strict=True)
        )  # fmt: skip
    return type(one) is type(other) and bool(one == other)
