"""Calls to downstreams within one claim: refused where a circuit is open, counted for the runtime.

Used by `edge.worker.hydrate`. A claim learns what the box knew when it was sent; what it meets itself counts at once,
so that retries without a pause stop as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from edge.core.circuits import Breaker, trips
from edge.core.errors import ToolFailed

#: Kinds of failure that say a downstream is down; any other answer says that it is there.
_DOWN: Final = frozenset({"connection", "timeout", "tls", "server_error"})
#: Refusals before anything was sent.
_NOT_CALLED: Final = frozenset({"access_denied", "request_invalid"})


class Calls:
    """What one claim knows of downstreams, and what it met."""

    def __init__(self, circuits: Mapping[str, Sequence[int]]) -> None:
        self._known = {name: list(known) for name, known in circuits.items()}
        self.met: list[list[Any]] = []

    def take(self) -> tuple[list[Any], ...]:
        """What was met since the last time."""
        met, self.met = tuple(self.met), []
        return met

    @contextmanager
    def to(self, name: str, breaker: Breaker | None) -> Iterator[None]:
        """Around one call. Raises ToolFailed `circuit_open` where it must not be made."""
        if breaker is None:
            yield
            return
        failures, refused_ms = self._known.get(name, (0, 0))
        if refused_ms > 0:
            raise ToolFailed(
                f"{name} failed {failures} times in a row and is left alone for now.",
                code="circuit_open",
                mend="`edge circuit list` says until when; a rule may try again later.",
                retry_after_ms=refused_ms,
                details={"kind": "circuit_open", "retryable": True},
            )
        try:
            yield
        except ToolFailed as error:
            if error.problem_code not in _NOT_CALLED:
                self._count(name, breaker, success=error.details.get("kind") not in _DOWN)
            raise
        self._count(name, breaker, success=True)

    def _count(self, name: str, breaker: Breaker, *, success: bool) -> None:
        self.met.append([name, success, breaker.trip_after, breaker.probe_after_ms])
        failures = 0 if success else self._known.get(name, (0, 0))[0] + 1
        refused_ms = breaker.probe_after_ms if trips(failures, breaker) else 0
        self._known[name] = [failures, refused_ms]
