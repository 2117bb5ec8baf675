"""What of the log is still needed, at one moment: asked of those who would read it again after a restart.

Used by `edge.runtime.retention.carrier`. Whatever a restart reads must be here; what is here and not needed costs
room only.
"""

from __future__ import annotations

from edge.core.circuit_events import CircuitOpened
from edge.core.events import CatalogRegistered
from edge.core.records import record
from edge.runtime.executions.engine import Engine
from edge.runtime.subscriptions.flow import Subscriptions
from edge.store.eventlog import EventLog
from playbooks.subscription import KIND


@record
class Needed:
    """Sequence numbers, by why they are needed.

    `executions` are needed with all their events, `owed` with their answer. `subscriptions` says from which event
    on each is read at a restart, `letters` which of its messages besides: `(subscription, first, last)`.
    """

    executions: frozenset[int]
    owed: frozenset[int]
    subscriptions: dict[int, int]
    letters: tuple[tuple[int, int, int], ...]
    catalog: frozenset[int]
    circuits: frozenset[int]

    def of_subscription(self, number: int, seq: int) -> bool:
        """Whether a subscription needs that event of its own."""
        first = self.subscriptions.get(number)
        if first is None:
            return False
        return seq >= first or any(each[0] == number and each[1] <= seq <= each[2] for each in self.letters)


def needed_now(engine: Engine, subscriptions: Subscriptions, eventlog: EventLog) -> Needed:
    """All of it. Notes first where subscriptions and answers stand, so that little before is needed."""
    engine.note_owed()
    firsts, letters, batches = subscriptions.needed()
    executor = engine.executor
    return Needed(
        frozenset({*executor.open, *executor.parking.numbers(), *executor.closing, *batches}),
        frozenset(engine.owed),
        firsts,
        tuple(letters),
        frozenset(_catalog(engine, eventlog)),
        frozenset(event.seq for event in eventlog.circuits() if isinstance(event.body, CircuitOpened)),
    )


def _catalog(engine: Engine, eventlog: EventLog) -> set[int]:
    """The newest version of each playbook, every version of a subscription, and what runs in an older one."""
    running = {live.state.request.digest for live in engine.executor.open.values()}
    newest: dict[str, int] = {}
    needed: set[int] = set()
    for seq in eventlog.catalog():
        body = eventlog.event(seq).body
        assert isinstance(body, CatalogRegistered), seq
        if body.kind == KIND or body.digest in running or len(engine.executor.parking):
            needed.add(seq)
        newest[body.path] = seq
    return needed | set(newest.values())
