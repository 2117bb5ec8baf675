"""A whole runtime in one folder, without processes and sockets: the real homes, gate and engine over a fake pool.

It opens and closes in the daemon's order. `photograph` copies what is on the drive at this moment, as a power
cut would leave it; a second box on the copy is the restart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.core.clock import Clock
from edge.core.errors import StorageFailed
from edge.core.events import BootStarted, Event
from edge.core.limits import KIB, MIB
from edge.runtime.commit.catching_up import catch_up
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.engine import Engine, Receipt
from edge.runtime.requests.admit import FreeSpace, Submission
from edge.runtime.requests.answers import Answer
from edge.runtime.retention.keeper import Keeper
from edge.runtime.retention.pruner import Homes, Pruner
from edge.runtime.retention.terms import Terms
from edge.runtime.subscriptions.flow import Subscriptions
from edge.runtime.subscriptions.messages import Arrived
from edge.runtime.waiting.tokens import KEY_FILE, Tokens
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog
from edge.store.journal import Journal, read_groups
from edge.store.mirror import Mirror
from edge.store.reserve import Reserve
from edge.testing import pool as fake_pool
from edge.testing.clock import ManualClock
from playbooks.blueprint import Blueprint
from playbooks.subscription import Subscription

BOOT_ID: Final = bytes(range(16))


class NeverAlarm:
    """In place of the loop's timer: a test says when to look (`Box.pass_time`)."""

    def cancel(self) -> None:
        """Part of asyncio.TimerHandle."""


class Box:
    """One running box. Open it inside a running event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        segment_bytes: int = 512 * KIB,
        cache_bytes: int = 64 * MIB,
        answer: fake_pool.Answer | None = None,
        reserve_bytes: int = 0,
        boot_id: bytes = BOOT_ID,
        terms: Terms | None = None,
        mirror: Mirror | None = None,
        numbers_jump: bool = False,
    ) -> None:
        """`numbers_jump`: begin as a process of its own does, above all numbers that may have been given out."""
        self.folder = folder
        self.clock = clock if clock is not None else ManualClock()
        self._open(segment_bytes, mirror, boot_id if numbers_jump else None)
        self.blocks = Blocks(folder / "cache", cache_bytes)
        self.failures: list[StorageFailed] = []
        self.gate = CommitGate(
            self.journal,
            self.eventlog,
            self.blobs,
            self.clock,
            boot_id,
            on_failure=self.failures.append,
        )
        free_space = self.free_space = FreeSpace(folder, reserve_bytes)
        self.engine = Engine(
            self.gate,
            self.eventlog,
            self.blobs,
            self.blocks,
            self.journal.log_id,
            free_space,
            Tokens.of(folder, self.journal.log_id, "box"),
        )
        self.pool = fake_pool.FakePool(self.engine.executor.guard, self.blocks.root, answer)
        self.engine.executor.guard.use(self.pool)
        #: Pauses asked for and not over yet, `(milliseconds, what to call)`: a test lets them pass.
        self.pauses: list[tuple[int, Callable[[], None]]] = []
        self.engine.executor.dispatcher.after_ms = lambda delay_ms, call: self.pauses.append((delay_ms, call))
        self.engine.executor.timers.after_s = lambda delay_s, call: NeverAlarm()
        self.answers: list[Answer] = []
        self.receipts: list[Receipt] = []
        self.taken: list[Arrived] = []
        self.engine.on_answer = self.answers.append
        self.subscriptions = Subscriptions(self.engine, self.gate, self.eventlog, self.blocks, free_space)
        homes = Homes(self.journal, self.eventlog, self.blobs)
        self.pruner = Pruner(self.gate, homes, self.engine, self.subscriptions)
        reserve = Reserve(folder, folder / "index" / "data.mdb", 0)
        self.keeper = Keeper(self.pruner, self.gate, free_space, terms or Terms(), folder, reserve)
        self.engine.load()
        self.subscriptions.load()
        self.gate.append(BootStarted("test", "box", True))
        self.resumed = self.engine.resume()
        self.subscriptions.start()

    def _open(self, segment_bytes: int, mirror: Mirror | None, life: bytes | None) -> None:
        self.journal = Journal(self.folder / "journal", segment_bytes=segment_bytes, mirror=mirror)
        self.eventlog = EventLog(self.folder / "index")
        self.caught_up = catch_up(self.journal, self.eventlog)
        if life is not None:
            self.journal.begin_life(life)
        self.blobs = BlobStore(self.folder / "blobs")
        self.blobs.begin_life()

    async def register(self, blueprint: Blueprint) -> Blueprint:
        """Put a blueprint into the catalog, durable when this returns."""
        self.engine.catalog.register(blueprint.data, lambda path, new: None)
        await self.gate.flushed()
        return blueprint

    async def subscribe(self, subscription: Subscription) -> int:
        """Put a subscription into the catalog, durable when this returns; its number."""
        self.subscriptions.register(subscription.data, lambda path, new: None)
        await self.gate.flushed()
        return self.subscriptions.find(subscription.path).number

    def message(self, number: int, topic: str, payload: bytes, **fields: Any) -> bool:
        """Hand on a message as the gateway does; whether it is taken. Confirmed ones are counted in `taken`."""
        given: dict[str, Any] = {
            "content_type": None,
            "headers": {},
            "packet": 0,
            "retain": False,
            "again": False,
        }
        arrived = Arrived(topic, payload, **{**given, **fields})
        return self.subscriptions.receive(number, arrived, lambda: self.taken.append(arrived))

    def submit(self, playbook: str, payload: bytes = b"", **fields: Any) -> None:
        """Submit a request; its receipt comes into `receipts`. Raises RequestRefused."""
        given: dict[str, Any] = {
            "principal": "alice",
            "request_id": None,
            "form": "v5",
            "response_topic": "answers/alice",
            "correlation": b"c1",
            "content_type": None,
            "receipt": True,
            "deadline_ms": None,
            "traceparent": None,
        }
        self.engine.submit(Submission(playbook, payload=payload, **{**given, **fields}), self.receipts.append)

    async def settle(self) -> None:
        """Flush and run claims until nothing is left to do."""
        await self.gate.flushed()
        while not self.failures and (self.pool.run() or self.engine.executor.timers.look()):
            await self.gate.flushed()

    async def settle_with_pauses(self) -> list[int]:
        """As `settle`, letting every pause pass; how long they were, in milliseconds."""
        passed = []
        await self.settle()
        while self.pauses:
            delay_ms, call = self.pauses.pop(0)
            passed.append(delay_ms)
            call()
            await self.settle()
        return passed

    async def pass_time(self, seconds: float) -> None:
        """Let time pass on a `ManualClock`, look at the timers, and settle."""
        self.move_clock(seconds)
        await self.settle()
        self.engine.executor.parking.sweep()
        await self.settle()

    def move_clock(self, seconds: float) -> None:
        """Let time pass on a `ManualClock` and look at the timers; nothing else is done."""
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(round(seconds * 1_000_000_000))
        self.engine.executor.timers.look()

    def document(self) -> dict[str, Any]:
        """The newest answer's payload as the document it is."""
        return json.loads(self.answers[-1].payload)  # type: ignore[no-any-return]

    def events(self) -> list[Event]:
        """Every event on the drive, in order."""
        return [event for _, group, _ in read_groups(self.folder / "journal") for event in group.events()]

    def photograph(self, target: Path) -> Path:
        """Copy what is durable now into `target`: where a restart after a power cut would begin."""
        for name in ("journal", "index", "blobs"):
            shutil.copytree(self.folder / name, target / name)
        shutil.copy(self.folder / KEY_FILE, target / KEY_FILE)
        return target

    async def close(self) -> None:
        """Stop in order, without a goodbye event."""
        await self.gate.close()
        self.eventlog.close()
        self.journal.close()
        self.blocks.close()
