"""Refusals in the log: each by itself while there are few, by number in a flood.

Owned by the engine, told by it and by the socket of what the gateway refused. A flood must not wear the drive.
"""

from __future__ import annotations

import time

from edge.core.events import RequestRefusedNoted
from edge.runtime.commit.gate import CommitGate
from edge.runtime.requests.admit import STORAGE_FULL, RefusalBudget

_PLAYBOOK_LENGTH_MAX = 200
#: How often it is noted how many were refused for want of room: what is left must last.
_FULL_NOTED_S = 60.0


class Refusals:
    """All refusals of one runtime."""

    def __init__(self, gate: CommitGate) -> None:
        self._gate, self._budget = gate, RefusalBudget()
        self._for_want_of_room = 0
        self._full_noted_s = -_FULL_NOTED_S

    def note(self, code: str, principal: str, playbook: str, request_id: str | None) -> None:
        """Record one, if the budget allows; else it is counted. On a full drive all are."""
        if code == STORAGE_FULL:
            self._for_want_of_room += 1
        elif self._budget.spend(code, time.monotonic()):
            noted = RequestRefusedNoted(code, principal, playbook[:_PLAYBOOK_LENGTH_MAX], request_id)
            self._gate.append(noted, held_back=True)

    def note_counted(self) -> None:
        """Record what was only counted, by number. Called now and then."""
        now_s = time.monotonic()
        if self._for_want_of_room and now_s - self._full_noted_s >= _FULL_NOTED_S:
            self._gate.append(RequestRefusedNoted(STORAGE_FULL, count=self._for_want_of_room), held_back=True)
            self._for_want_of_room, self._full_noted_s = 0, now_s
        for code, count in self._budget.take_counted().items():
            self._gate.append(RequestRefusedNoted(code, count=count), held_back=True)
