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
from playbooks.fields import fields, length_ms, whole
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
    trip_after = whole(source, found.get("trip_after"), "`trip_after`", 1, CIRCUIT_TRIP_AFTER_MAX)
    probe_ms = length_ms(source, found.get("probe_after"), "`probe_after`", _PROBE_MS_MAX)
    probe_ms = probe_ms or whole(source, found.get("probe_after_ms"), "`probe_after_ms`", 1, _PROBE_MS_MAX)
    return (trip_after or CIRCUIT_TRIP_AFTER, probe_ms or CIRCUIT_PROBE_AFTER_MS)
