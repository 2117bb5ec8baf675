"""Lengths of time and instants as playbooks write them: the one reading of both.

Called by the compiler where they are written out, and by the runtime where a template gave them. Pure; must never
import YAML.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(value: Any) -> float | None:
    """Milliseconds of a number of seconds, or of a text such as "500ms", "5s", "2m", "1h", "7d"; else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value * 1_000 if value >= 0 else None
    if isinstance(value, str):
        written = value.strip()
        if match := _DURATION.fullmatch(written):
            return float(match[1]) * _UNIT_MS[match[2]]
        if _NUMBER.fullmatch(written):
            return float(written) * 1_000
    return None


def instant_ms(value: Any) -> int | None:
    """Milliseconds since the Unix epoch of a number of seconds since then, or of an ISO 8601 text; else None.

    A text without an offset is UTC: a box has no other zone that a playbook could know.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return round(value * 1_000) if 0 <= value < 2**40 else None
    if not isinstance(value, str):
        return None
    written = value.strip()
    if _NUMBER.fullmatch(written):
        return round(float(written) * 1_000)
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000)
