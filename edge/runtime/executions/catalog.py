"""The box's playbooks: what runs under each path now, and every blueprint that an execution may still run.

Owned by the engine; read by the socket and the command line's operations. Made from the log at start; what is
registered is usable once it is durable. It must never forget a blueprint: an execution is pinned to its digest.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.core.errors import EdgeError, LogDamaged, RequestRefused
from edge.core.events import CatalogRegistered
from edge.core.state import Execution
from edge.runtime.commit.gate import CommitGate
from edge.store.eventlog import EventLog
from playbooks.blueprint import Blueprint


class Catalog:
    """All playbooks of one box."""

    def __init__(self, gate: CommitGate, eventlog: EventLog) -> None:
        self._gate, self._eventlog = gate, eventlog
        self._by_path: dict[str, Blueprint] = {}
        self._by_digest: dict[bytes, Blueprint] = {}
        self._registered: dict[bytes, int] = {}
        #: Called when the catalog changed, with what to call once requests may follow.
        self.on_change: Callable[[Callable[[], None]], None] = lambda taken_up: taken_up()

    def load(self) -> None:
        """Take up every blueprint the log holds; the latest of a path is the one requests get."""
        for seq in self._eventlog.catalog():
            body = self._eventlog.event(seq).body
            if not isinstance(body, CatalogRegistered):
                raise LogDamaged(f"The catalog names event {seq}, which registers nothing.")
            if body.kind == "playbook":
                self._take_up(Blueprint.decode(body.blueprint))

    def _take_up(self, blueprint: Blueprint) -> None:
        self._by_path[blueprint.path] = blueprint
        self._by_digest[blueprint.digest] = blueprint

    def register(self, data: bytes, registered: Callable[[str, bool], None]) -> None:
        """Put a blueprint into the catalog; `registered(path, is_new)` once it is durable and may be asked for.

        Raises RequestRefused where the bytes are no blueprint.
        """
        try:
            blueprint = Blueprint.decode(data)
        except (ValueError, EdgeError) as error:
            raise RequestRefused(
                f"This is not a blueprint: {error}", mend="Register playbooks with `edge playbook register`."
            ) from error
        known = self._by_path.get(blueprint.path)
        if known is not None and known.digest == blueprint.digest:
            seq = self._registered.get(blueprint.digest, 0)
            if seq > self._gate.durable_seq:
                self._gate.after(seq, lambda _: self.on_change(lambda: registered(blueprint.path, False)))
            else:
                self.on_change(lambda: registered(blueprint.path, False))
            return
        event = self._gate.append(CatalogRegistered(blueprint.path, blueprint.digest, data))
        self._registered[blueprint.digest] = event.seq
        self._take_up(blueprint)

        self._gate.after(event.seq, lambda _: self.on_change(lambda: registered(blueprint.path, True)))

    def playbooks(self) -> list[Blueprint]:
        """What there is, by path."""
        return [self._by_path[path] for path in sorted(self._by_path)]

    def find(self, path: str) -> Blueprint | None:
        """What runs under a path now."""
        return self._by_path.get(path)

    def playbook(self, path: str) -> Blueprint:
        """What runs under a path now. Raises RequestRefused."""
        blueprint = self._by_path.get(path)
        if blueprint is None:
            raise RequestRefused(
                f"There is no playbook {path!r} on this box.",
                mend="`edge playbook list` shows what there is; `edge playbook register FILE` adds one.",
                code="playbook_unknown",
            )
        return blueprint

    def holds(self, state: Execution) -> bool:
        """Whether what an execution runs is known: not where it ended and was pruned since."""
        return state.request.digest in self._by_digest

    def blueprint_of(self, state: Execution) -> Blueprint:
        """What an execution runs. Raises LogDamaged where the log does not hold it."""
        blueprint = self._by_digest.get(state.request.digest)
        if blueprint is None:
            raise LogDamaged(f"Execution {state.seq} runs a blueprint that the log does not hold.")
        return blueprint
