"""The runtime process: opens the homes of the log, recovers, resumes, serves until told to stop.

Started by `edge.runtime.__main__` after the zygote was forked. It is the single writer: nobody else opens
LMDB or writes the journal while it runs.

Order at start: journal (its sound end made durable), LMDB (caught up from the journal), catalog, cache,
`boot.started`, then resume what was open, then listen. Any error of the drive ends the process with code 1: it must
not acknowledge anything more, and the next start sees what is really there (design §4, Errors).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edge import VERSION
from edge.core.clock import Reading, SystemClock, boot_id
from edge.core.errors import LogDamaged, Misconfigured, StorageFailed
from edge.core.events import BootStarted, BootStopped, Gap
from edge.core.limits import MIB
from edge.core.service import Service
from edge.core.settings import Settings
from edge.core.unforeseen import end_by_unforeseen, raise_on
from edge.runtime.api.operations import Operations
from edge.runtime.api.socket import Api
from edge.runtime.api.subscription_door import SubscriptionDoor
from edge.runtime.api.subscription_operations import SubscriptionOperations
from edge.runtime.commit.catching_up import catch_up
from edge.runtime.commit.gate import CommitGate
from edge.runtime.dispatch.secrets import Secrets
from edge.runtime.executions.engine import Engine
from edge.runtime.process.heap import Trimmer
from edge.runtime.process.mending import note_damaged_index, note_opening, opening_mark
from edge.runtime.process.orphans import reap, sign
from edge.runtime.process.progress import Progress
from edge.runtime.requests.admit import FreeSpace
from edge.runtime.requests.delivery_notes import DeliveryNotes
from edge.runtime.retention.keeper import Keeper
from edge.runtime.retention.pruner import Homes, Pruner
from edge.runtime.retention.terms import Terms
from edge.runtime.sealing.sealer import Sealer
from edge.runtime.subscriptions.flow import Subscriptions
from edge.runtime.waiting.tokens import Tokens
from edge.runtime.workers.pool import WorkerPool
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog
from edge.store.journal import Journal
from edge.store.mirror import Mirror
from edge.store.reserve import Reserve
from edge.store.segment_file import segment_paths

logger = logging.getLogger(__name__)

#: How often delivered answers and counted refusals are noted, where there are any.
_NOTE_S: Final = 5.0
_READERS_S: Final = 60.0
#: How often subscriptions look whether there is room again, and whether the wall clock was set.
_LOOK_S: Final = 1.0
#: How often it is looked whether an execution came to rest, or the wall clock was set.
_SWEEP_S: Final = 2.0
#: How often it is looked whether the log has outgrown its bounds.
_RETAIN_S: Final = 5.0
_FIRST_LOOK_S: Final = 1.0
#: How often it is looked whether a segment is due; what is urgent waits no longer.
_SEAL_LOOK_S: Final = 1.0


class Daemon:
    """One runtime, from open to close."""

    def __init__(
        self, settings: Settings, zygote: socket.socket, zygote_pid: int, hash_seed: int | None = None
    ) -> None:
        self._settings, self._zygote, self._zygote_pid = settings, zygote, zygote_pid
        self._hash_seed = hash_seed
        self._stop: asyncio.Event = asyncio.Event()
        self._exit_code = 0
        self._journal: Journal | None = None
        self._service = Service.of_environment()
        index_file = settings.index_folder / "data.mdb"
        self._reserve = Reserve(settings.data, index_file, settings.reserve_mb * MIB // 2)

    def _open(self) -> Homes:
        settings = self._settings
        self._service.status("opening the log")
        mirror = Mirror(settings.mirror_folder) if settings.mirror_folder is not None else None
        if not segment_paths(settings.journal_folder) and (
            EventLog.there(settings.index_folder) or (mirror is not None and mirror.there)
        ):
            # Not for the start to mend: most likely its drive is not there.
            raise Misconfigured(
                f"The journal in {settings.journal_folder} is gone, and the index or mirror of it is not empty.",
                mend="Put it back (is its drive mounted?), or run `edge log recover` to make it from those.",
            )
        note_opening(settings)
        try:
            journal = Journal(self._settings.journal_folder, mirror=mirror)
            eventlog = EventLog(self._settings.index_folder)
            journal.make_room = eventlog.make_room = self._reserve.give
            caught_up = catch_up(journal, eventlog)
            journal.begin_life(boot_id())
        finally:  # only an end by a signal leaves it; whatever else went wrong says so itself
            opening_mark(settings).unlink(missing_ok=True)
        logger.info(
            "log %s ends at event %d, %d caught up", journal.log_id.hex(), journal.last_seq, caught_up
        )
        self._journal = journal
        eventlog.on_damage = self._index_damaged
        blobs = BlobStore(self._settings.blob_folder)
        blobs.make_room = self._reserve.give
        blobs.begin_life()
        return Homes(journal, eventlog, blobs)

    def _heed(self) -> None:
        """Signals stop it in order; what nobody foresaw ends it at once."""
        loop = asyncio.get_running_loop()
        end_by_unforeseen(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def run(self) -> int:
        """Serve until stopped; the process's exit code."""
        self._heed()
        settings, homes, boot = self._settings, self._open(), boot_id()
        blocks = _cache(settings)
        gate = CommitGate(
            homes.journal,
            homes.eventlog,
            homes.blobs,
            SystemClock(_newest_of_boot(homes, boot)),
            boot,
            on_failure=self._failed,
            has_claims=lambda: pool.busy,
            commit_window_ms=settings.commit_window_ms,
        )
        free_space = FreeSpace(settings.data, settings.reserve_mb * MIB)
        tokens = Tokens.of(settings.data, log_id := homes.journal.log_id, settings.box)
        engine = Engine(gate, homes.eventlog, homes.blobs, blocks, log_id, free_space, tokens)
        pool = WorkerPool(
            self._zygote,
            settings.workers,
            engine.executor.guard,
            cache_folder=blocks.folder,
            on_zygote_gone=self._zygote_gone,
        )
        engine.executor.guard.use(pool)
        secrets = engine.executor.dispatcher.outgoing.secrets = Secrets(settings.keychain_folder)
        secrets.prepare()
        subscriptions = Subscriptions(engine, gate, homes.eventlog, blocks, free_space)
        engine.load()
        subscriptions.load()
        _trim_when_quiet(engine, gate, homes.eventlog)
        gate.append(BootStarted(VERSION, settings.box, _ended_cleanly(homes), self._hash_seed))
        _note_unproved(homes.journal, gate)
        _resume(engine, subscriptions)
        pool.warm()
        operations = Operations(engine, homes.eventlog, blocks, self._status, pool.pids).table()
        api = Api(engine, settings.box, log_id, operations)
        api.door = SubscriptionDoor(subscriptions, api.gateways)
        asked = SubscriptionOperations(engine, subscriptions, api.door)
        pruner = Pruner(gate, homes, engine, subscriptions)
        keeper = Keeper(pruner, gate, free_space, Terms.of(settings), settings.data, self._reserve)
        sealer = _sealer(settings, gate)
        told = {"retention": _tell(keeper.told), "sealing": _tell(sealer.told), "seal": sealer.on_request}
        api.operations |= asked.table(operations["register"]) | told
        await api.listen(settings.socket_path)
        self._announce(gate)
        keeping = _look_after(keeper, self._failed), _seal_now_and_then(sealer)
        await self._stopped(_chores(engine, gate, subscriptions, homes.eventlog, *keeping), engine)
        api.close()
        await pool.close()
        if self._exit_code == 0:
            _say_goodbye(engine, subscriptions, gate)
        await gate.close()
        if self._exit_code == 0:
            await sealer.finish()
        homes.eventlog.close()
        homes.journal.close()
        blocks.close()
        return self._exit_code

    async def _stopped(self, chores: list[asyncio.Task[None]], engine: Engine) -> None:
        """Wait until somebody wants the end; then nothing is begun any longer."""
        await self._stop.wait()
        self._service.stopping()
        for chore in chores:
            chore.cancel()
        engine.executor.timers.stop()

    def _announce(self, gate: CommitGate) -> None:
        """Tell who started us that requests are heard, and from now on that the box lives."""
        serving = f"serving box {self._settings.box} from {self._settings.data}"
        logger.info(serving)
        self._service.ready(serving)
        self._service.watch(asyncio.get_running_loop().call_later, Progress(gate))

    def _status(self) -> dict[str, Any]:
        assert self._journal is not None, "the homes are open by now"
        return {
            "box": self._settings.box,
            "log_id": self._journal.log_id.hex(),
            "mirror": self._journal.mirror_state,
            "version": VERSION,
            "pid": os.getpid(),
            "zygote_pid": self._zygote_pid,
        }

    def _failed(self, error: StorageFailed) -> None:
        logger.critical("%s The runtime stops acknowledging and exits.", error)
        # Nothing may be flushed, answered or tidied after this: leave as a killed process would.
        os._exit(1)

    def _index_damaged(self, error: LogDamaged) -> None:
        logger.critical("%s The runtime exits, and the next start makes the index anew.", error)
        note_damaged_index(self._settings)
        os._exit(1)

    def _zygote_gone(self) -> None:
        logger.critical("The zygote ended; the runtime exits to be started whole again.")
        self._exit_code = 1
        self._stop.set()


def _say_goodbye(engine: Engine, subscriptions: Subscriptions, gate: CommitGate) -> None:
    engine.note_watermark()
    subscriptions.note_positions()
    gate.append(BootStopped())


def _cache(settings: Settings) -> Blocks:
    """The box's cache, with whose it is written into it; those of boxes that are gone are removed."""
    blocks = Blocks(settings.cache_folder, settings.cache_mb * MIB)
    sign(settings)
    for folder in reap(settings):
        logger.info("removed %s: the box whose cache it was is gone", folder)
    return blocks


def _resume(engine: Engine, subscriptions: Subscriptions) -> None:
    """Go on with what an earlier process had begun."""
    if resumed := engine.resume():
        logger.info("%d executions are resumed", resumed)
    subscriptions.start()


def _sealer(settings: Settings, gate: CommitGate) -> Sealer:
    sealer = Sealer(settings, lambda: gate.durable_seq, lambda: gate.now().at.mono_ns / 1e9)
    gate.on_urgent = sealer.urgent
    return sealer


def _tell(told: Callable[[], dict[str, Any]]) -> Callable[[Any, Callable[[Any], None]], None]:
    """An operation of the socket that only tells something."""
    return lambda _, reply: reply(told())


def _trim_when_quiet(engine: Engine, gate: CommitGate, eventlog: EventLog) -> None:
    loop = asyncio.get_running_loop()
    trimmer = Trimmer(
        loop.call_later, lambda: gate.next_seq, lambda: not engine.executor.open, eventlog.let_go
    )
    engine.on_quiet = engine.executor.parking.on_quiet = trimmer.quiet


def _chores(
    engine: Engine,
    gate: CommitGate,
    subscriptions: Subscriptions,
    eventlog: EventLog,
    *keeping: Coroutine[None, None, None],
) -> list[asyncio.Task[None]]:
    """What is done now and then, until it is cancelled."""
    loop = asyncio.get_running_loop()
    notes = DeliveryNotes(engine.owed, engine.note_watermark, loop.time)
    gate.before_flush = notes.along
    chores = [
        loop.create_task(_every(_NOTE_S, notes.alone, engine.refusals.note_counted)),
        loop.create_task(_every(_LOOK_S, subscriptions.look)),
        loop.create_task(_every(_SWEEP_S, engine.executor.parking.sweep)),
        loop.create_task(_every(_READERS_S, eventlog.reclaim_readers)),
        *map(loop.create_task, keeping),
    ]
    for chore in chores:
        chore.add_done_callback(raise_on)
    return chores


def _newest_of_boot(homes: Homes, boot: bytes) -> Reading | None:
    """The clocks as the log had them last, if that was in this boot."""
    last, _ = homes.eventlog.last()
    context = homes.eventlog.context_of(last) if last else None
    return context.at if context is not None and context.boot_id == boot else None


def _note_unproved(journal: Journal, gate: CommitGate) -> None:
    """Name what may be lost at the end of a journal whose mirror could not be read to compare."""
    if journal.unproved is not None:
        first, last = journal.unproved
        gate.append(Gap(first, last, "mirror not read"))
        logger.warning(
            "The power went, and the journal's mirror cannot be read: whether the journal ends at event %d as it did "
            "before, nothing can tell. A `gap` event says so.",
            first - 1,
        )


def _ended_cleanly(homes: Homes) -> bool:
    last, _ = homes.eventlog.last()
    return last == 0 or isinstance(homes.eventlog.event(last).body, BootStopped)


async def _look_after(keeper: Keeper, failed: Callable[[StorageFailed], None]) -> None:
    """Look after the log's size, one look after another; not while the box starts."""
    await asyncio.sleep(_FIRST_LOOK_S)
    while True:
        try:
            await keeper.look()
        except (LogDamaged, OSError) as error:
            # The log is read for it: what cannot be read is told by the next start, and mended there.
            failed(StorageFailed(f"The log could not be pruned: {error}."))
        await asyncio.sleep(_RETAIN_S)


async def _seal_now_and_then(sealer: Sealer) -> None:
    while True:
        await asyncio.sleep(_SEAL_LOOK_S)
        await sealer.look()


async def _every(period_s: float, *chores: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(period_s)
        for chore in chores:
            chore()
