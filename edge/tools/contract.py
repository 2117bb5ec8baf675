"""What a tool kind is: one `run`, given its compiled config, its inputs and a narrow context.

Owned by the tools; workers implement `ToolContext` and call `Tool.run`; third parties write a `Tool`. A tool
must never keep anything between two runs, start a step, open the log or wait for minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from edge.core.access import Access
from edge.core.values import Credential, Ended, TableRef

if TYPE_CHECKING:
    import pyarrow as pa


class ToolContext(Protocol):
    """What a worker lends a tool for one run; nothing else of the worker may be touched."""

    @property
    def execution_id(self) -> str:
        """The execution this run belongs to."""
        ...

    @property
    def step(self) -> str:
        """The step's name, for messages."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The invocation's identity, the same for every attempt: hand it to the world outside."""
        ...

    @property
    def effect(self) -> str:
        """What the playbook says this run is: "pure", "read" or "write"."""
        ...

    @property
    def access(self) -> Access:
        """What the playbook grants this run outside its sandbox; the sandbox holds it too."""
        ...

    def credential(self) -> Credential | None:
        """What the tool's `auth` names in the keychain, None where it names nothing.

        Raises ToolFailed where the step was not granted it.
        """
        ...

    def downstream(self, name: str) -> AbstractContextManager[None]:
        """Around one call to somebody outside, such as `api.example.org:443`.

        Raises ToolFailed `circuit_open` at once where the step has a circuit breaker and it is open. What is raised
        inside counts as a failure where its details say `kind` connection, timeout, tls or server_error.
        """
        ...

    def run_program(
        self, argv: Sequence[str], environment: Mapping[str, str], given: bytes, timeout_ms: int
    ) -> Ended:
        """Run a granted program to its end, outside this process. Raises ToolFailed, Unavailable."""
        ...

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        """Evaluate a template tree of the tool's config in the step's scope, with `extra` names on top.

        Raises EvaluationFailed.
        """
        ...

    def table(self, ref: TableRef) -> pa.Table:
        """The table `ref` stands for, mapped from the cache. Raises CacheMiss, PayloadInvalid."""
        ...


class Tool(Protocol):
    """One kind of tool."""

    @property
    def kind(self) -> str:
        """The name playbooks use."""
        ...

    @property
    def author_code(self) -> bool:
        """True where `run` executes code a playbook's author wrote: such a process serves one playbook."""
        ...

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Run once and return a plain value (see edge.core.codec.Value) or a `pyarrow.Table`.

        Raises ToolFailed or EvaluationFailed where the step is to fail, CacheMiss where an input's block
        has to be made again first.
        """
        ...
