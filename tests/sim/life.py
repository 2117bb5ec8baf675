"""One life of the runtime: the real homes, gate, engine, subscriptions and door to gateways, in virtual time.

Owned by `tests.sim.world`. Wired as `edge.runtime.daemon` wires it, with three things in place of the machine: jobs
run on the loop after a while instead of on threads, claims are carried out by `edge.testing.pool.FakePool`, and a
gateway's frames come as lists. When it is over, nothing it asked for happens any longer.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

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
from edge.runtime.executions import engine as engine_module
from edge.runtime.executions.engine import Engine
from edge.runtime.requests.admit import FreeSpace
from edge.runtime.retention import pruner as pruner_module
from edge.runtime.retention.keeper import Keeper
from edge.runtime.retention.pruner import Homes, Pruner, Segment
from edge.runtime.retention.terms import Terms
from edge.runtime.subscriptions.flow import Subscriptions
from edge.runtime.waiting.tokens import Tokens
from edge.store import journal as journal_module
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog
from edge.store.journal import Journal
from edge.store.reserve import Reserve
from edge.testing.pool import FakePool, Lost
from tests.sim.virtual_time import LifeLoop

if TYPE_CHECKING:
    from tests.sim.world import World

#: The runtime's chores, less often than the daemon does them: days have many seconds.
_CHORES_S: Final = 20.0
#: Looks at what may be pruned, too.
_LOOK_S: Final = 600.0
#: So small that a few days fill many.
_SEGMENT_BYTES: Final = 64 * KIB
_LOST: Final = 0.02
#: So many claims after a lost one are not: three attempts lost in a row fail a step, which no reference foresees.
_SPARED: Final = 20


class _Jobs:
    """In place of `edge.runtime.commit.threads.JobThread`: a job takes a while and happens all at once at its end."""

    def __init__(self, name: str, failed: Callable[[StorageFailed], None], life: Life) -> None:
        self.name, self._failed, self._life = name, failed, life
        self._jobs: deque[Callable[[], None]] = deque()
        self._free_s = 0.0
        life.jobs[name] = self

    @property
    def under_way(self) -> Callable[[], None] | None:
        """The job that the thread is at."""
        return self._jobs[0] if self._jobs else None

    def run(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Later, one behind the other."""
        loop = self._life.loop
        self._jobs.append(job)
        self._free_s = max(self._free_s, loop.time()) + self._life.chance.expovariate(1 / 0.004)
        loop.call_later(self._free_s - loop.time(), self._next, then)

    def run_here(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Now."""
        self._do(job, then)

    async def result_of(self, job: Callable[[], Any]) -> Any:
        """Later, and what it gives."""
        made: list[Any] = []
        done = asyncio.get_running_loop().create_future()
        self.run(lambda: made.append(job()), lambda: None if done.done() else done.set_result(None))
        await done
        return made[0]

    def _next(self, then: Callable[[], None]) -> None:
        self._do(self._jobs.popleft(), then)

    def _do(self, job: Callable[[], None], then: Callable[[], None]) -> None:
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


class _AtOnce:
    """In place of `threading.Thread`: the journal's next file is made at once."""

    def __init__(self, *, target: Callable[[], None], **_: Any) -> None:
        self._target = target

    def start(self) -> None:
        """Do it."""
        self._target()

    def join(self) -> None:
        """It is done."""

    def is_alive(self) -> bool:
        """It is done."""
        return False


class _Room(FreeSpace):
    """A drive that always has as much room, on any machine."""

    def free_bytes(self) -> int:
        """As `FreeSpace`."""
        return 1_000 * MIB


class _Pruner(Pruner):
    """Whoever checks the log reads it before its beginning goes."""

    def __init__(self, world: World, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._world = world

    async def prune(self, segment: Segment, terms: Terms, cause: str) -> int:
        """As the real one."""
        self._world.counts["pruned segments"] += 1
        return await super().prune(segment, terms, cause)

    async def finish(self) -> None:
        """As the real one."""
        self._world.checks.read()
        await super().finish()


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
            if chance.random() < 0.5:  # it dies behind its work
                self.work(self.waiting[0])
        self.answer = (lambda _: Lost()) if dies else self.work
        self.run()


class Life:
    """From one start of the runtime to its end. `failed` is called where the drive refused it."""

    def __init__(self, world: World, loop: LifeLoop, failed: Callable[[], None]) -> None:
        folder, clock, boot = world.folder, world.clock, world.boot
        self.chance, self.loop, self.calm = world.chance, loop, lambda: world.calm
        self.jobs: dict[str, _Jobs] = {}
        journal_module.threading = SimpleNamespace(Thread=_AtOnce, Lock=threading.Lock)  # type: ignore[assignment]
        engine_module._TAKEN_UP_MAX = 0  # what rests is looked at while the box serves
        passing_s = itertools.count(0, 0.001)  # a slice is over after a few looks at the clock
        pruner_module.time = SimpleNamespace(monotonic=lambda: next(passing_s))  # type: ignore[assignment]
        self.journal = Journal(folder / "journal", segment_bytes=_SEGMENT_BYTES)
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
        room, log_id = _Room(folder, 0), self.journal.log_id
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
        homes = Homes(self.journal, self.eventlog, self.blobs)
        pruner = _Pruner(world, self.gate, homes, self.engine, self.subscriptions)
        reserve = Reserve(folder, folder / "index" / "data.mdb", 0)
        self.keeper = Keeper(pruner, self.gate, room, world.terms, folder, reserve)
        self._keeping: asyncio.Task[None] | None = None
        loop.call_later(_CHORES_S, self._chores)
        loop.call_later(_LOOK_S, self._look_again)

    def look(self) -> None:
        """See whether anything may be pruned, unless that is being done."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self.keeper.look())
            self._keeping.add_done_callback(_told)

    def _look_again(self) -> None:
        self.look()
        self.loop.call_later(_LOOK_S, self._look_again)

    def _chores(self) -> None:
        self.engine.note_watermark()
        self.engine.refusals.note_counted()
        self.subscriptions.look()
        self.engine.executor.parking.sweep()
        self.loop.call_later(_CHORES_S, self._chores)

    async def stop(self) -> None:
        """In order."""
        self._leave_keeping()
        self.engine.note_watermark()
        self.subscriptions.note_positions()
        self.gate.append(BootStopped())
        await self.gate.close()
        self.leave()

    def leave(self) -> None:
        """As it is: what is not written stays so."""
        self.loop.over = True
        self._leave_keeping()
        self.eventlog.close()
        self.journal.close()
        self.blocks.close()

    def _leave_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()


def _told(keeping: asyncio.Task[None]) -> None:
    """What ends the looking ends the run."""
    if not keeping.cancelled():
        keeping.result()
