"""One life of the runtime: the real homes, gate, engine, subscriptions and door to gateways, in virtual time.

Owned by `tests.sim.world`. Wired as `edge.runtime.daemon` wires it, with three things in place of the machine: jobs
run on the loop after a while instead of on threads, claims are carried out by `edge.testing.pool.FakePool`, and a
gateway's frames come as lists. When it is over, nothing it asked for happens any longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.core.clock import Clock
from edge.core.errors import StorageFailed
from edge.core.events import BootStarted, BootStopped
from edge.core.limits import KIB, MIB
from edge.runtime.api.socket import Api
from edge.runtime.api.subscription_door import SubscriptionDoor
from edge.runtime.commit import gate as gate_module
from edge.runtime.commit import index as index_module
from edge.runtime.commit.catching_up import catch_up
from edge.runtime.commit.gate import CommitGate
from edge.runtime.commit.threads import unexpected
from edge.runtime.executions.engine import Engine
from edge.runtime.requests.admit import FreeSpace
from edge.runtime.subscriptions.flow import Subscriptions
from edge.runtime.waiting.tokens import Tokens
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog
from edge.store.journal import Journal
from edge.testing.pool import FakePool, Lost
from tests.sim.virtual_time import LifeLoop

#: The runtime's chores, less often than the daemon does them: days have many seconds.
_CHORES_S: Final = 20.0
_LOST: Final = 0.02
#: So many claims after a lost one are not: three attempts lost in a row fail a step, which no reference foresees.
_SPARED: Final = 20


class _Jobs:
    """In place of `edge.runtime.commit.threads.JobThread`: a job takes a while and happens all at once at its end."""

    def __init__(self, name: str, failed: Callable[[StorageFailed], None], life: Life) -> None:
        self.name, self._failed, self._life = name, failed, life
        self.under_way: Callable[[], None] | None = None
        life.jobs[name] = self

    def run(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Later."""
        self.under_way = job
        self._life.loop.call_later(self._life.chance.expovariate(1 / 0.004), self._do, job, then)

    def run_here(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Now."""
        self.under_way = job
        self._do(job, then)

    def _do(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        self.under_way = None
        try:
            job()
        except StorageFailed as error:
            self._failed(error)
        except Exception as error:
            self._failed(unexpected(error))
        else:
            then()

    async def end(self) -> None:
        """There is no thread."""


class _Pool(FakePool):
    """Claims take a while, come back in any order, and now and then their worker dies."""

    def __init__(self, life: Life, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._life, self._spared = life, 0

    def submit(self, work: Any) -> None:
        """Queue a claim; it is carried out some day."""
        super().submit(work)
        self.submitted.clear()
        chance = self._life.chance
        usual_s = chance.choice([0.002, 0.002, 0.02, 1.0])
        self._life.loop.call_later(chance.expovariate(1 / usual_s), self._one)

    def _one(self) -> None:
        chance = self._life.chance
        self.waiting.rotate(chance.randrange(len(self.waiting)))
        self._spared -= 1
        dies = chance.random() < _LOST and self._spared < 0 and not self._life.calm()
        if dies:
            self._spared = _SPARED
        self.answer = (lambda _: Lost()) if dies else self.work
        self.run()


class Life:
    """From one start of the runtime to its end. `failed` is called where the drive refused it."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        boot: bytes,
        chance: random.Random,
        loop: LifeLoop,
        failed: Callable[[], None],
        calm: Callable[[], bool],
    ) -> None:
        self.chance, self.loop, self.calm = chance, loop, calm
        self.jobs: dict[str, _Jobs] = {}
        self.journal = Journal(folder / "journal", segment_bytes=256 * KIB)
        self.eventlog = EventLog(folder / "index")
        catch_up(self.journal, self.eventlog)
        self.journal.begin_life(boot)
        self.blobs, self.blocks = BlobStore(folder / "blobs"), Blocks(folder / "cache", 64 * MIB)
        for module in (gate_module, index_module):
            module.JobThread = lambda name, failed: _Jobs(name, failed, self)  # type: ignore[attr-defined, assignment, misc]
        self.gate = CommitGate(
            self.journal, self.eventlog, self.blobs, clock, boot,
            on_failure=lambda _: failed(), has_claims=lambda: bool(self.pool.waiting),
        )  # fmt: skip
        self.gate._loop = loop  # type: ignore[assignment]
        room, log_id = FreeSpace(folder, 0), self.journal.log_id
        tokens = Tokens.of(folder, log_id, "box")
        self.engine = Engine(self.gate, self.eventlog, self.blobs, self.blocks, log_id, room, tokens)
        executor = self.engine.executor
        self.pool = _Pool(self, executor.guard, self.blocks.root)
        executor.guard.use(self.pool)
        executor.dispatcher.after_ms = lambda delay_ms, call: loop.call_later(delay_ms / 1_000, call)
        executor.timers.after_s = loop.call_later
        self.subscriptions = Subscriptions(self.engine, self.gate, self.eventlog, self.blocks, room)
        self.engine.load()
        self.subscriptions.load()
        self.gate.append(BootStarted("sim", "box", False))
        self.engine.resume()
        self.subscriptions.start()
        self.api = Api(self.engine, "box", log_id, {})
        self.api.door = SubscriptionDoor(self.subscriptions, self.api.gateways)
        loop.call_later(_CHORES_S, self._chores)

    def _chores(self) -> None:
        self.engine.note_watermark()
        self.engine.refusals.note_counted()
        self.subscriptions.look()
        self.engine.executor.parking.sweep()
        self.loop.call_later(_CHORES_S, self._chores)

    async def stop(self) -> None:
        """In order."""
        self.engine.note_watermark()
        self.subscriptions.note_positions()
        self.gate.append(BootStopped())
        await self.gate.close()
        self.leave()

    def leave(self) -> None:
        """As it is: what is not written stays so."""
        self.loop.over = True
        self.eventlog.close()
        self.journal.close()
        self.blocks.close()
