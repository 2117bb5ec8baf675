"""What the command line may ask a running runtime: register, list, show, log, cache, status.

Wired by the daemon into `edge.runtime.api.socket`. Every operation takes a map and replies with plain values; looking
never changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge.core.errors import RequestRefused
from edge.replay.described import described
from edge.runtime.api.socket import Operation, Reply
from edge.runtime.executions.engine import Engine
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog

_GROUPS_MAX: Final = 256


class Operations:
    """The operations over one engine."""

    def __init__(
        self,
        engine: Engine,
        eventlog: EventLog,
        blocks: Blocks,
        status: Callable[[], dict[str, Any]],
        worker_pids: Callable[[], list[int]],
    ) -> None:
        self._engine, self._eventlog, self._blocks = engine, eventlog, blocks
        self._status, self._worker_pids = status, worker_pids

    def table(self) -> dict[str, Operation]:
        """Operation names and what they run."""
        return {
            "register": self.register,
            "playbooks": self.playbooks,
            "execution": self.execution,
            "cancel": self.cancel,
            "callback": self.callback,
            "indexed": self.indexed,
            "circuits": lambda _, reply: reply(self._engine.executor.circuits.listed()),
            "reset_circuit": self.reset_circuit,
            "cache": self.cache,
            "status": self.status,
        }

    def register(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{blueprint: bytes}` → `{path, new}` once durable and known to the gateways."""
        self._engine.catalog.register(
            argument(arguments, "blueprint", bytes), lambda path, new: reply({"path": path, "new": new})
        )

    def reset_circuit(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{downstream}` → `{}` once it is durably closed."""
        name = argument(arguments, "downstream", str)
        self._engine.executor.circuits.reset(name, lambda: reply({}))

    def playbooks(self, _: dict[str, Any], reply: Reply) -> None:
        """→ `[{path, name, digest, steps}]`."""
        reply(
            [
                {
                    "path": blueprint.path,
                    "name": blueprint.name,
                    "digest": blueprint.digest,
                    "steps": [step.name for step in blueprint.steps],
                }
                for blueprint in self._engine.catalog.playbooks()
            ]
        )

    def execution(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{id}` → its summary and its events' sequence numbers."""
        seq = self._engine.execution_seq(argument(arguments, "id", str))
        events = self._engine.events_of(seq)
        state = self._engine.state_of(seq)
        left_ms = self._engine.executor.waits.left_ms
        reply(described(self._engine.execution_id(seq), state, events, left_ms))

    def cancel(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{id, by, reason}` → `{status}`: cancelled once that is durable, or how it had ended before."""
        seq = self._engine.execution_seq(argument(arguments, "id", str))
        reason = argument(arguments, "reason", str, None)
        by = argument(arguments, "by", str)
        self._engine.cancel(seq, by, reason, lambda status: reply({"status": status}))

    def callback(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{token, content_type, payload}` → `{execution_id}` once it is durable."""
        token = argument(arguments, "token", str)
        content_type = argument(arguments, "content_type", str, None)
        payload = argument(arguments, "payload", bytes)
        self._engine.callbacks.receive(
            token, content_type, payload, lambda execution_id: reply({"execution_id": execution_id})
        )

    def indexed(self, arguments: dict[str, Any], reply: Reply) -> None:
        """`{after}` → `{last, groups: [[first seq, epoch key, bytes]]}` of what LMDB holds, for verifying."""
        after = argument(arguments, "after", int)
        groups = [
            [group.first_seq, key, data] for key, group, data in self._eventlog.groups(after, _GROUPS_MAX)
        ]
        reply({"last": self._eventlog.last()[0], "groups": groups})

    def cache(self, _: dict[str, Any], reply: Reply) -> None:
        """→ what `edge cache stat` shows."""
        stat = self._blocks.stat()
        reply({name: getattr(stat, name) for name in stat.__slots__})

    def status(self, _: dict[str, Any], reply: Reply) -> None:
        """→ box, versions, processes, open executions, owed answers."""
        now: dict[str, Any] = {"worker_pids": self._worker_pids()}
        executor = self._engine.executor
        now |= {"open": len(executor.open), "waiting": len(executor.parking), "owed": len(self._engine.owed)}
        reply({**self._status(), **now})


def argument(arguments: dict[str, Any], name: str, *kinds: type | None) -> Any:
    """An argument of one of these kinds; with None among them it may be left out. Raises RequestRefused."""
    value = arguments.get(name)
    if type(value) not in kinds and not (value is None and None in kinds):
        raise RequestRefused(
            f"The argument {name!r} must be {kinds[0].__name__ if kinds[0] else None}.",
            mend="Update the command line.",
        )
    return value
