"""The events of circuit breakers: codes 26 and 27 of the closed set in `edge.core.events`.

The runtime appends these (`edge.runtime.downstreams.circuits`) and reads them again at start. They belong to no
execution: a downstream is the whole box's.
"""

from __future__ import annotations

from typing import ClassVar, Final

from edge.core.event_body import Body
from edge.core.records import record


@record
class CircuitOpened(Body):
    """Calls to a downstream are refused from now on: it failed `failures` times in a row.

    After `probe_after_ms` one call may try; where that fails, this stands in the log again.
    """

    CODE: ClassVar[int] = 26
    TYPE: ClassVar[str] = "circuit.opened"
    downstream: str
    failures: int
    probe_after_ms: int


@record
class CircuitClosed(Body):
    """Calls to a downstream are let through again; `by` says why: "success" of the one that tried, or "reset"."""

    CODE: ClassVar[int] = 27
    TYPE: ClassVar[str] = "circuit.closed"
    downstream: str
    by: str


CIRCUIT_BODIES: Final = (CircuitOpened, CircuitClosed)
