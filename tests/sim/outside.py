"""The world outside the box: it counts how often each idempotency key was carried out.

Owned by `tests.sim.world`; it stands in for the tool `http`, so writes of playbooks reach it through real workers,
with the key that any tool is handed. It never refuses, and it never forgets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge.tools import registry

if TYPE_CHECKING:
    from edge.tools.contract import ToolContext


class Outside:
    """The world's own count of effects."""

    kind: Final = "http"
    author_code: Final = False

    def __init__(self, carried_out: Callable[[str, str], None]) -> None:
        """`carried_out` is told execution id and step, before each effect happens."""
        self._carried_out = carried_out
        self.times: Counter[str] = Counter()

    def install(self) -> None:
        """From now on writes come here."""
        registry._loaded[self.kind] = self

    @staticmethod
    def remove() -> None:
        """The real tool again."""
        registry._loaded.pop(Outside.kind, None)

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Do it; `edge.tools.contract.Tool`."""
        assert context.effect == "write", context.effect
        self._carried_out(context.execution_id, context.step)
        self.times[context.idempotency_key] += 1
        return "done"

    def of(self, execution_id: str) -> list[int]:
        """How often each effect of an execution happened."""
        return [count for key, count in self.times.items() if key.startswith(f"{execution_id}/")]
