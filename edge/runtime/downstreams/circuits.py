"""The box's circuit breakers: told what workers met, asked before each claim, written into the log as they turn.

Owned by the executor. It decides by `edge.core.circuits`; opened and closed are events, durable in their order with
everything else, and read again at start. Must never wait, and never end an execution itself: a call that is refused
is an error its playbook's policy deals with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.circuits import CLOSED, Breaker, Circuit, trips
from edge.core.errors import RequestRefused
from edge.core.events import Event
from edge.core.limits import CIRCUITS_MAX
from edge.core.timing import Moment, left_of_length
from edge.runtime.commit.gate import CommitGate

BY_SUCCESS: Final = "success"
BY_HAND: Final = "reset"


class Circuits:
    """All downstreams something is known of."""

    def __init__(self, gate: CommitGate) -> None:
        self._gate = gate
        self._known: dict[str, Circuit] = {}

    def take_up(self, events: Iterable[Event]) -> None:
        """What the log says at start: the latest event of each downstream."""
        for event in events:
            body = event.body
            if isinstance(body, CircuitOpened):
                self._known[body.downstream] = CLOSED.opened(event.seq, body.failures, body.probe_after_ms)

    def for_claim(self, number: int) -> dict[str, list[int]] | None:
        """What a claim with breakers is told: `{downstream: [failures, refused for ms]}` of those with failures.

        Of an open one whose time has come this claim is the one that tries.
        """
        if not self._known:
            return None
        told = {}
        for name, circuit in self._known.items():
            left_ms = self._left_ms(circuit) if circuit.is_open else 0
            if circuit.is_open and left_ms == 0:
                if circuit.probing is None:
                    self._known[name] = circuit.probed_by(number)
                else:
                    left_ms = circuit.probe_after_ms
            told[name] = [circuit.failures, left_ms]
        return told

    def refused_ms(self, name: str) -> int:
        """How long until a call of the runtime's own may be made, 0 for now."""
        circuit = self._known.get(name, CLOSED)
        return self._left_ms(circuit) if circuit.is_open else 0

    def over(self, number: int, met: Iterable[Sequence[Any]]) -> None:
        """A claim has ended, having met `(downstream, success, trip_after, probe_after_ms)`, in order."""
        for name, success, trip_after, probe_after_ms in met:
            if success:
                self._succeeded(name)
            else:
                self._failed(name, Breaker(trip_after, probe_after_ms))
        for name, circuit in list(self._known.items()):
            if circuit.probing == number:  # it did not come to try after all
                self._known[name] = circuit.probed_by(None)

    def _succeeded(self, name: str) -> None:
        circuit = self._known.pop(name, CLOSED)
        if circuit.is_open:
            self._gate.append(CircuitClosed(name, BY_SUCCESS))

    def _failed(self, name: str, breaker: Breaker) -> None:
        circuit = self._known.get(name, CLOSED).failed()
        waited = not circuit.is_open or self._left_ms(circuit) == 0
        if trips(circuit.failures, breaker) and waited:
            event = self._gate.append(CircuitOpened(name, circuit.failures, breaker.probe_after_ms))
            circuit = circuit.opened(event.seq, circuit.failures, breaker.probe_after_ms)
        if name not in self._known and len(self._known) >= CIRCUITS_MAX:
            self._forget_one()
        self._known[name] = circuit

    def _forget_one(self) -> None:
        """Room for another: the oldest that is closed; open ones are few, and stay."""
        closed = next((name for name, circuit in self._known.items() if not circuit.is_open), None)
        if closed is not None:
            del self._known[closed]

    def _left_ms(self, circuit: Circuit) -> int:
        """How long until somebody may try; over a power cut that nobody can measure, now."""
        assert circuit.opened_seq is not None
        now = self._gate.now()
        if circuit.opened_seq > self._gate.durable_seq:
            return circuit.probe_after_ms  # a moment ago
        context = self._gate.context_of(circuit.opened_seq)
        left = left_of_length(circuit.probe_after_ms, Moment(context.boot_id, context.at), now)
        return left.left_ms or 0

    def listed(self) -> list[dict[str, Any]]:
        """`{downstream, state, failures, probe_in_ms}` each, for who looks."""
        return [
            {
                "downstream": name,
                "state": "half-open"
                if circuit.probing is not None
                else "open"
                if circuit.is_open
                else "closed",
                "failures": circuit.failures,
                "probe_in_ms": self._left_ms(circuit) if circuit.is_open else None,
            }
            for name, circuit in sorted(self._known.items())
        ]

    def reset(self, name: str, done: Callable[[], None]) -> None:
        """Close a circuit by hand; `done` once that is durable. Raises RequestRefused where it is not open."""
        circuit = self._known.get(name)
        if circuit is None or not circuit.is_open:
            raise RequestRefused(
                f"The circuit of {name!r:.100} is not open.",
                code="circuit_unknown",
                mend="`edge circuit list` shows those that are.",
            )
        del self._known[name]
        event = self._gate.append(CircuitClosed(name, BY_HAND))
        self._gate.after(event.seq, lambda _: done())
