"""What may go from the log's beginning, and why: by age, by receipt, by policy where the budget asks. Pure.

Used by `edge.runtime.retention.keeper`. What is not receipted is never let go where a centre is configured, whatever
else is said.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import MIB
from edge.core.records import record
from edge.core.settings import HOLD, THIN, Settings

AGE: Final = "age"
RECEIPT: Final = "receipt"
#: Why a segment stays although its room is wanted.
UNSYNCED: Final = "unsynced"
HELD: Final = "held"
NEEDED: Final = "needed"
#: The drive itself has less than the reserve left.
DRIVE: Final = "drive"

_DAY_S: Final = 86_400


@record
class Terms:
    """What the settings say: sizes in bytes, spans in seconds of box-on time, 0 for none."""

    centre: bool = False
    age_s: int = 0
    budget_bytes: int = 0
    policy: str = HOLD
    remember_s: int = 7 * _DAY_S

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """As a box is set."""
        return cls(
            settings.centre,
            settings.retain_days * _DAY_S,
            settings.retain_mb * MIB,
            settings.retain_policy,
            settings.remember_days * _DAY_S,
        )


@record
class Verdict:
    """Whether a segment goes: `cause` says why it may, or `stays` why it does not though its room is wanted."""

    cause: str = ""
    stays: str = ""


def judge(terms: Terms, *, age_s: int, receipted: bool, wanted: bool) -> Verdict:
    """The oldest segment, whose newest event is `age_s` old; `wanted` says that its room is."""
    if terms.centre and not receipted:
        return Verdict(stays=UNSYNCED if wanted else "")
    if terms.age_s and age_s >= terms.age_s:
        return Verdict(AGE)
    if not wanted:
        return Verdict()
    if terms.centre:
        return Verdict(RECEIPT)
    return Verdict(stays=HELD) if terms.policy == HOLD else Verdict(terms.policy)


def leaves_trace(terms: Terms, cause: str, age_s: int, *, again: bool) -> bool:
    """Whether an execution that nothing needs any longer leaves a thin record behind.

    It stays until its age has come; without an age, until its own place is pruned in turn (`again`).
    """
    if cause != THIN:
        return False
    return age_s < terms.age_s if terms.age_s else not again
