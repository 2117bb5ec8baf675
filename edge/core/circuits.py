"""Circuit breakers: what is known of each downstream, and what follows from a success, a failure, a look.

Pure; used by the runtime (all downstreams of the box, `edge.runtime.downstreams.circuits`) and by workers (within one
claim). A downstream is a name such as `api.example.org:443`. States are NoETL's: closed, open, half-open. Opened and
closed are events, so they outlive the runtime; failures on the way there are not, they are counted anew after a
restart.
"""

from __future__ import annotations

from typing import Any

from edge.core.limits import CIRCUIT_PROBE_AFTER_MS, CIRCUIT_TRIP_AFTER
from edge.core.records import record


@record
class Breaker:
    """What a playbook asks for: open after `trip_after` failures in a row, let one try after `probe_after_ms`."""

    trip_after: int = CIRCUIT_TRIP_AFTER
    probe_after_ms: int = CIRCUIT_PROBE_AFTER_MS

    @classmethod
    def of(cls, raw: Any) -> Breaker:
        """A breaker from `[trip_after, probe_after_ms]`. Raises ValueError where it is none."""
        if type(raw) is not list or [type(part) for part in raw] != [int, int]:
            raise ValueError("not a breaker: not two numbers")
        return cls(*raw)


@record
class Circuit:
    """One downstream: `failures` in a row; where it is open, since the event `opened_seq` and for how long.

    `probing` names the claim that may try it now, None where none does.
    """

    failures: int = 0
    opened_seq: int | None = None
    probe_after_ms: int = CIRCUIT_PROBE_AFTER_MS
    probing: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, all but the one that probes."""
        return self.opened_seq is not None

    def failed(self) -> Circuit:
        """After one more failure."""
        return Circuit(self.failures + 1, self.opened_seq, self.probe_after_ms)

    def opened(self, seq: int, failures: int, probe_after_ms: int) -> Circuit:
        """After it was opened, or opened again, by the event `seq`."""
        return Circuit(failures, seq, probe_after_ms)

    def probed_by(self, claim: int | None) -> Circuit:
        """While the claim tries it; None takes that back."""
        return Circuit(self.failures, self.opened_seq, self.probe_after_ms, claim)


CLOSED = Circuit()


def trips(failures: int, breaker: Breaker) -> bool:
    """Whether so many failures in a row open a circuit."""
    return failures >= breaker.trip_after
