"""One execution while it runs: its folded state beside the values that the log need not hold.

Owned by the engine. The state is what `evolve` says; `results` are outputs kept for the steps that read them,
and may be missing after a restart or an eviction: `missing` says which steps must be run again first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.core.codec import decode, encode
from edge.core.scheduler import Finish, Run
from edge.core.state import Execution
from edge.core.values import TableRef
from edge.store.blocks import REQUEST_TABLE
from edge.worker.claims import Claim
from playbooks.blueprint import Blueprint
from playbooks.scope import build_scope


@dataclass(slots=True)
class Live:
    """An execution that has not ended. `goal` is what `decide` asked for and what is being carried out."""

    execution_id: str
    blueprint: Blueprint
    state: Execution
    workload: dict[str, Any]
    results: dict[str, bytes | TableRef] = field(default_factory=dict)
    goal: Run | Finish | None = None
    claim: Claim | None = None
    #: Name of the step that the claim under way makes again, None where it works on the goal.
    rebuilding: str | None = None
    #: Steps whose output comes from a process that ran author code. Only such a process of the same playbook may
    #: open their tables: a table made with bad intent must not reach a process that other playbooks share.
    author_made: set[str] = field(default_factory=set)
    claim_bound: bool = False
    intent_seq: int = 0
    misses: int = 0
    #: The table that came with the request, and its bytes where they travel with the claims.
    request_table: TableRef | None = None
    request_table_bytes: bytes | None = None
    #: The workload without that table, as workers get it; encoded once.
    _workload_bytes: bytes | None = None
    _decoded: dict[str, Any] = field(default_factory=dict)

    @property
    def workload_bytes(self) -> bytes:
        """The workload as workers get it, without the request's table; encoded once."""
        if self._workload_bytes is None:
            self._workload_bytes = encode(self.workload)
        return self._workload_bytes

    def share_workload(self, encoded: dict[bytes, bytes]) -> None:
        """Take the encoded default workload that every request of this kind shares, or make it."""
        digest = self.blueprint.digest
        if digest not in encoded:
            encoded[digest] = self.workload_bytes
        self._workload_bytes = encoded[digest]

    def table_for(self, workload: bytes | None, results: Mapping[str, bytes | TableRef]) -> TableRef | None:
        """The request's table where a claim with this workload and these results may look at it."""
        ref = self.request_table
        if ref is None or workload is not None:
            return ref
        names = (output.key for output in results.values() if type(output) is TableRef)
        return ref if ref.key in names else None

    def keep(self, step: str, output: bytes | TableRef) -> None:
        """Keep a step's output for the steps that read it."""
        self.results[step] = output
        self._decoded.pop(step, None)

    def value(self, step: str) -> Any:
        """A step's output, decoded; a table reference as it is."""
        if step not in self._decoded:
            output = self.results[step]
            self._decoded[step] = decode(output) if type(output) is bytes else output
        return self._decoded[step]

    def needs(self, steps: Iterable[int]) -> list[str]:
        """Names of settled steps whose outputs these steps read."""
        known = self.state.steps
        made: set[str] = set()
        needed: dict[str, None] = {}
        for index in steps:
            step = self.blueprint.steps[index]
            for name in step.reads:
                if name not in made and name in known and known[name].status == "done":
                    needed[name] = None
            made.add(step.name)
        return list(needed)

    def reads_workload(self, steps: Iterable[int]) -> bool:
        """True where one of the steps looks at the workload."""
        return any(self.blueprint.steps[index].reads_workload for index in steps)

    def routing_scope(self, step: int) -> Mapping[str, Any]:
        """What a settled step's `set` and arcs may look at: its own output and what else they read."""
        name = self.blueprint.steps[step].name
        names = {*self.blueprint.steps[step].reads, name} & self.results.keys()
        values = {each: self.value(each) for each in names}
        workload = self.workload
        if self.request_table is not None:
            workload = {**workload, REQUEST_TABLE: self.request_table}
        return build_scope(workload, self.state.ctx, values, self.execution_id, None)
