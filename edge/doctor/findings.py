"""What a check has found: a value each. Made by every check of this room, printed by `edge doctor`.

Must never hold a secret or a payload: findings are shown, and pasted into reports.
"""

from __future__ import annotations

from typing import Final

from edge.core.records import record

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"


@record
class Finding:
    """One line: its subject, OK, WARN or FAIL, what is so, and what to do where it is not well."""

    subject: str
    grade: str
    says: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert (self.grade == OK) == (not self.mend), "what is not well has a mend, and only that"


def ok(subject: str, says: str) -> Finding:
    """All is well, or nothing is known that speaks against it."""
    return Finding(subject, OK, says)


def warn(subject: str, says: str, mend: str) -> Finding:
    """It works, and may cost something one day."""
    return Finding(subject, WARN, says, mend)


def fail(subject: str, says: str, mend: str) -> Finding:
    """It does not work, or keeps no promise."""
    return Finding(subject, FAIL, says, mend)
