"""One decision of an execution, as it was recorded and as it comes out now.

Made by `edge.replay.explain` and `edge.replay.pipelines`, shown by the command line. Plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.errors import EvaluationFailed
from edge.core.records import record
from edge.core.values import TableRef
from playbooks.deferred import Deferred
from playbooks.evaluate import evaluate, truth
from playbooks.nodes import Prepared
from playbooks.spoken import looked_at, spoken

#: A decision that comes out otherwise now than it stands in the log.
CHANGED: Final = "decision-changed"
#: One that looks at what the log does not hold.
UNRECORDED: Final = "not recomputed"
HOLDS: Final = "holds"
HOLDS_NOT: Final = "does not hold"
NOT_ASKED: Final = "not asked"


@record
class Asked:
    """One condition: `what` it would have led to, the condition in words, how it comes out, what it looked at."""

    what: str
    condition: str
    outcome: str
    values: dict[str, Any]


@record
class Decision:
    """What was decided: `kind` is admission, wait, rule, item, arcs or end, `seq` the event that has it or came next.

    `chosen` says what was chosen. `status` is "" where it comes out the same now, CHANGED where it does not (then
    `note` says how), "not recomputed" where the log lacks what it looked at (`note` says what).
    """

    seq: int
    kind: str
    step: str
    visit: int
    chosen: str
    asked: tuple[Asked, ...] = ()
    item: int | None = None
    status: str = ""
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """The decision as JSON would have it."""
        made = {name: getattr(self, name) for name in self.__dataclass_fields__}
        made["asked"] = [{name: getattr(a, name) for name in a.__dataclass_fields__} for a in self.asked]
        return {key: value for key, value in made.items() if value not in (None, "", [])}


class Unknown(Exception):
    """The log does not hold what an expression looks at; `args[0]` says what."""


def ask(what: str, condition: Prepared | None, scope: Mapping[str, Any]) -> tuple[Asked, bool]:
    """Evaluate a condition again: `(how it comes out, whether it holds)`. Raises Unknown, EvaluationFailed."""
    if condition is None:
        return Asked(what, "always", HOLDS, {}), True
    values = {}
    for name, node in looked_at(condition.node):
        try:
            value = evaluate(node, scope)
        except EvaluationFailed:
            values[name] = "(missing)"
        else:
            values[name] = _plain(value)
    holds = truth(condition, scope)
    return Asked(what, spoken(condition.node), HOLDS if holds else HOLDS_NOT, values), holds


def not_asked(what: str, condition: Prepared | None) -> Asked:
    """One that came after the decision."""
    return Asked(what, "always" if condition is None else spoken(condition.node), NOT_ASKED, {})


def _plain(value: Any) -> Any:
    if type(value) is TableRef:
        return {"table": {"rows": value.rows, "columns": list(value.columns or ())}}
    return value.value() if type(value) is Deferred else value


def absent(what: str) -> Deferred:
    """Stands in a scope for a value that the log does not hold; looking at it raises Unknown."""

    def look() -> Any:
        raise Unknown(what)

    return Deferred({}, look)
