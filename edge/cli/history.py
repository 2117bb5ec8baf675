"""One execution in the journal's files, for commands that need no running box.

Called by `edge explain` always, by `edge show` where no runtime answers. Reads as `edge log show` does, beside a
runtime or without one; must never write, nor open the index.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.cli.inputs import require_log
from edge.core.carried import held_by, logical
from edge.core.errors import RequestRefused
from edge.core.events import CatalogRegistered, Event, ExecutionRequested
from edge.core.retention_events import ExecutionCarried, LogPruned
from edge.core.settings import Settings
from edge.store.journal import read_groups

_MEND = "`edge log show` lists what there is."


@dataclass(slots=True)
class History:
    """One execution in the log: its events, and the blueprints registered in the log, by digest."""

    number: int
    log_id: str = ""
    events: list[Event] = field(default_factory=list)
    blueprints: dict[bytes, bytes] = field(default_factory=dict)
    #: Up to which event the log was pruned, and whether only request, answer and end are kept of this execution.
    pruned: int = 0
    thinned: bool = False

    @property
    def execution_id(self) -> str:
        """The name the execution has outside."""
        return f"{self.log_id}-{self.number}"

    @property
    def request(self) -> ExecutionRequested:
        """Its request."""
        body = self.events[0].body
        assert isinstance(body, ExecutionRequested), "judged when it was read"
        return body


def read_history(settings: Settings, execution: str) -> History:
    """The execution of that id, or number, as the log has it. Raises RequestRefused, LogDamaged."""
    require_log(settings)
    log_id, _, number = execution.rpartition("-")
    if not (number.isascii() and number.isdecimal()):
        raise RequestRefused(f"{execution!r} is no execution.", mend="Give its id, or its number.")
    found = _read(settings, int(number))
    if found.number <= found.pruned and (not found.events or found.events[0].seq != found.number):
        raise pruned(found, "It was")
    if not found.events or (log_id and log_id != found.log_id):
        raise RequestRefused(f"There is no execution {execution} in the log.", mend=_MEND)
    if not isinstance(found.events[0].body, ExecutionRequested):
        raise RequestRefused(f"Event {number} is no request.", mend=_MEND)
    return found


def _read(settings: Settings, number: int) -> History:
    found = History(number)
    for header, group, _ in read_groups(settings.journal_folder):
        found.log_id = header.log_id.hex()
        for event in group.events():
            if event.seq == number or event.execution == number:
                found.events.append(event)
            for each in held_by(event):
                if isinstance(each.body, CatalogRegistered):
                    found.blueprints[each.body.digest] = each.body.blueprint
                elif isinstance(event.body, LogPruned):
                    found.pruned = event.body.through
    found.thinned = any(type(event.body) is ExecutionCarried for event in found.events)
    found.events = logical(found.events)
    return found


def pruned(found: History, said: str) -> RequestRefused:
    """Why an execution that is gone, or of which little is kept, cannot be explained."""
    return RequestRefused(
        f"{said} before event {found.pruned + 1}, where the log begins now: execution {found.number} was pruned.",
        mend="Explain it where the log was stored upstream; `edge show` tells what is kept here.",
        code="execution_pruned",
    )
