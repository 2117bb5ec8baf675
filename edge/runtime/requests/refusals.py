"""Refusals in the log: each by itself while there are few, by number in a flood.

Owned by the engine, told by it and by the socket of what the gateway refused. A flood must not wear the drive.
"""

from __future__ import annotations

import time

from edge.core.events import RequestRefusedNoted
from edge.runtime.commit.gate import CommitGate
from edge.runtime.requests.admit import RefusalBudget

_PLAYBOOK_LENGTH_MAX = 200


class Refusals:
    """All refusals of one runtime."""

    def __init__(self, gate: CommitGate) -> None:
        self._gate, self._budget = gate, RefusalBudget()

    def note(self, code: str, principal: str, playbook: str, request_id: str | None) -> None:
        """Record one, if the budget allows; else it is counted."""
        if self._budget.spend(code, time.monotonic()):
            noted = RequestRefusedNoted(code, principal, playbook[:_PLAYBOOK_LENGTH_MAX], request_id)
            self._gate.append(noted, held_back=True)

    def note_counted(self) -> None:
        """Record what was only counted, by number. Called now and then."""
        for code, count in self._budget.take_counted().items():
            self._gate.append(RequestRefusedNoted(code, count=count), held_back=True)
