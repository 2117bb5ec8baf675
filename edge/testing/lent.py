"""What a worker lends a tool (`edge.tools.contract.ToolContext`), without a worker: for tests of tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa

from edge.core.errors import CacheMiss
from edge.core.values import Ended, TableRef
from playbooks.evaluate import render
from playbooks.shape import Task


class Lent:
    """A step `s` of the execution `test-1` whose scope holds `inputs` and `tables`, each a table by name."""

    execution_id = "test-1"
    step = "s"
    idempotency_key = "test-1/s/0"

    def __init__(self, task: Task, inputs: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
        self.effect, self.access = task.effect, task.access
        self._tables = tables
        refs = {name: _ref(name, table) for name, table in tables.items()}
        self.inputs: dict[str, Any] = {**inputs, **refs}
        carried = dict(self.inputs)
        self._scope = {**self.inputs, "args": carried, "input": carried, "workload": {}, "ctx": {}}

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        """Evaluate a tree in that scope."""
        return render(tree, {**self._scope, **(extra or {})})

    def table(self, ref: TableRef) -> pa.Table:
        """The table that was given under that name."""
        try:
            return self._tables[ref.key]
        except KeyError:
            raise CacheMiss(f"There is no table {ref.key!r}.") from None

    def credential(self) -> None:
        """No alias of a keychain."""
        return

    def downstream(self, name: str) -> AbstractContextManager[None]:
        """No breaker."""
        return nullcontext()

    def run_program(
        self, argv: Sequence[str], environment: Mapping[str, str], given: bytes, timeout_ms: int
    ) -> Ended:
        """No program is run; it answers what it was asked for."""
        return Ended("exit", 0, "\n".join(argv).encode(), given)


def _ref(name: str, table: pa.Table) -> TableRef:
    return TableRef(name, bytes(32), table.nbytes, table.num_rows, tuple(table.column_names))
