"""`spec.policy.breaker`: a circuit breaker's numbers.

Called by `playbooks.spec`. What a breaker does is `edge.core.circuits`.
"""

from __future__ import annotations

from edge.core.limits import (
    CIRCUIT_PROBE_AFTER_MS,
    CIRCUIT_PROBE_AFTER_S_MAX,
    CIRCUIT_TRIP_AFTER,
    CIRCUIT_TRIP_AFTER_MAX,
)
from playbooks.durations import duration_ms
from playbooks.fields import fields
from playbooks.loader import Marked, Scalar
from playbooks.model.policy import BREAKER
from playbooks.problems import Source

_PROBE_MS_MAX = CIRCUIT_PROBE_AFTER_S_MAX * 1_000


def read_breaker(source: Source, node: Marked | None) -> tuple[int, ...] | None:
    """`(trip_after, probe_after_ms)`, empty where it is switched off, None where nothing is said."""
    if node is None:
        return None
    if isinstance(node, Scalar) and type(node.value) is bool:
        return (CIRCUIT_TRIP_AFTER, CIRCUIT_PROBE_AFTER_MS) if node.value else ()
    found = fields(source, node, "`breaker`", BREAKER)
    trip_after = _whole(source, found.get("trip_after"), "trip_after", CIRCUIT_TRIP_AFTER_MAX)
    probe_ms = _whole(source, found.get("probe_after_ms"), "probe_after_ms", _PROBE_MS_MAX)
    length = found.get("probe_after")
    if length is not None:
        said_ms = duration_ms(length.value) if isinstance(length, Scalar) else None
        if said_ms is None or not 1 <= said_ms <= _PROBE_MS_MAX:
            source.refuse(length.start, "`probe_after` must be a length of time.", 'Write 30, "30s" or "5m".')
        else:
            probe_ms = round(said_ms)
    return (trip_after or CIRCUIT_TRIP_AFTER, probe_ms or CIRCUIT_PROBE_AFTER_MS)


def _whole(source: Source, node: Marked | None, name: str, most: int) -> int | None:
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is int and 1 <= value <= most:
        return value
    source.refuse(node.start, f"`{name}` must be a whole number of 1 to {most}.")
    return None
