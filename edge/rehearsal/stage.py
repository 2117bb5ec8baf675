"""The stage: one engine with real homes and real, sandboxed workers in a scratch folder, on virtual time.

Owned by the rehearsal's process (`edge.rehearsal.__main__`). It opens the homes as the daemon does and runs one case
after another; when nothing is under way, time passes to the next alarm. It must never listen or reach outside.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

from edge.core.clock import boot_id
from edge.core.codec import ARROW, CBOR, decode, encode
from edge.core.errors import RequestRefused, StorageFailed
from edge.core.events import StepDone, StepFailed
from edge.core.limits import MIB
from edge.core.loops import collected
from edge.core.settings import Settings
from edge.core.state import Execution, StepState
from edge.core.values import TableRef, ValueRef
from edge.rehearsal.stand_ins import Recorded, StandIns, with_stand_ins
from edge.rehearsal.virtual_time import VirtualTime
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.engine import Engine, Receipt
from edge.runtime.requests.admit import FreeSpace, Submission
from edge.runtime.requests.answers import Answer
from edge.runtime.waiting.tokens import Tokens
from edge.runtime.workers.pool import WorkerPool
from edge.store.arrow_stream import stream_from_rows, table_from_stream
from edge.store.blobs import BlobStore
from edge.store.blocks import Blocks
from edge.store.eventlog import EventLog
from edge.store.journal import Journal
from playbooks.blueprint import Blueprint

#: One case may work this long by the clock on the wall; waits cost nothing of it.
_CASE_S: Final = 120.0
#: More alarms than this in one case, and it waits in a circle.
_ALARMS_MAX: Final = 100_000


class Stage:
    """One engine in a scratch folder. Make it inside a running event loop."""

    def __init__(self, settings: Settings, zygote: socket.socket) -> None:
        self._time = VirtualTime()
        self._journal = Journal(settings.journal_folder)
        self._eventlog = EventLog(settings.index_folder)
        blobs = BlobStore(settings.blob_folder)
        self._blocks = Blocks(settings.cache_folder, settings.cache_mb * MIB)
        self._gate = CommitGate(
            self._journal, self._eventlog, blobs, self._time, boot_id(), on_failure=self._failed
        )
        free_space = FreeSpace(settings.data, settings.reserve_mb * MIB)
        log_id = self._journal.log_id
        tokens = Tokens.of(settings.data, log_id, settings.box)
        self._engine = Engine(self._gate, self._eventlog, blobs, self._blocks, log_id, free_space, tokens)
        executor = self._engine.executor
        self._pool = WorkerPool(
            zygote,
            settings.workers,
            executor.guard,
            cache_folder=self._blocks.folder,
            on_zygote_gone=self._zygote_gone,
        )
        executor.guard.use(self._pool)
        executor.dispatcher.after_ms = self._time.after_ms
        executor.timers.after_s = self._time.after_s
        self._waits = executor.waits
        self._broken: str | None = None

    def _failed(self, error: StorageFailed) -> None:
        self._broken = str(error)

    def _zygote_gone(self) -> None:
        self._broken = "The zygote ended."

    async def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """What became of one case.

        `{status, result, problem, path, ctx, steps, missing, unused, asked, execution_id}`. `case` is
        `{blueprint, input, table, keychain, effects}`, as `playbooks.cases` reads them.
        """
        engine, effects = self._engine, case["effects"]
        blueprint = with_stand_ins(Blueprint.decode(case["blueprint"]), effects)
        hosted = engine.executor.hosted
        stand_ins = hosted.kinds["wait"] = StandIns(hosted, self._waits, effects)
        engine.executor.dispatcher.outgoing.secrets = Recorded(case["keychain"])
        answers: list[Answer] = []
        receipts: list[Receipt] = []
        engine.on_answer = answers.append
        engine.catalog.register(blueprint.data, lambda path, new: None)
        await self._gate.flushed()
        kind, payload = CBOR, encode(case["input"])
        if case["table"] is not None:
            kind, payload = ARROW, stream_from_rows(case["table"])
        submission = Submission(
            blueprint.path, "author", None, "local", None, None, kind, False, None, None, payload
        )
        try:
            engine.submit(submission, receipts.append)
        except RequestRefused as error:
            return {"status": "refused", "problem": error.problem()}
        timed_out = not await self._play(answers)
        seq = receipts[0].seq
        state = engine.state_of(seq)
        ended = _ended(state, answers, timed_out=timed_out)
        path = [
            event.step for event in engine.events_of(seq) if isinstance(event.body, StepDone | StepFailed)
        ]
        if not answers:
            engine.cancel(seq, "author", "the case is over", lambda status: None)
            await self._play(answers)
        return {
            **ended,
            "execution_id": receipts[0].execution_id,
            "path": path,
            "ctx": state.ctx,
            "steps": {name: _step(step) for name, step in state.steps.items()},
            "missing": stand_ins.missing,
            "unused": stand_ins.unused(),
            "asked": stand_ins.asked(),
        }

    async def _play(self, answers: list[Answer]) -> bool:
        """Let all happen that can, until there is an answer or nothing moves; False where it took too long."""
        alarms = 0
        try:
            async with asyncio.timeout(_CASE_S):
                while not answers and alarms <= _ALARMS_MAX:
                    if self._broken is not None:
                        raise StorageFailed(self._broken)
                    await self._gate.flushed()
                    if self._pool.busy:
                        await asyncio.sleep(0.0005)
                        continue
                    await asyncio.sleep(0)  # what a flush or a reply has called for comes first
                    if answers or self._pool.busy:
                        continue
                    if not self._time.pass_to_next():
                        return True
                    alarms += 1
        except TimeoutError:
            return False
        return alarms <= _ALARMS_MAX

    async def close(self) -> None:
        """Stop in order."""
        await self._pool.close()
        await self._gate.close()
        self._eventlog.close()
        self._journal.close()
        self._blocks.close()


def _ended(state: Execution, answers: list[Answer], *, timed_out: bool) -> dict[str, Any]:
    if not answers:
        waiting = [name for name, step in state.steps.items() if step.status not in ("done", "failed")]
        code = "case_timed_out" if timed_out else "waiting"
        problem = {"code": code, "message": f"Not ended: {', '.join(waiting) or 'nothing has begun'}."}
        if timed_out:
            problem["message"] += f" A case may work for {_CASE_S:g} s and let {_ALARMS_MAX:,} alarms pass."
            problem["mend"] = "Let it ask less often, or give it the effect after which it goes on."
        return {"status": "timed out" if timed_out else "waiting", "result": None, "problem": problem}
    answer = answers[0]
    if answer.content_type == ARROW:
        rows = table_from_stream(answer.payload).to_pylist()
        return {"status": answer.status, "result": json.loads(json.dumps(rows, default=str)), "problem": None}
    document = decode(answer.payload) if answer.content_type == CBOR else json.loads(answer.payload)
    return {"status": answer.status, "result": document.get("result"), "problem": state.problem}


def _step(step: StepState) -> dict[str, Any]:
    """A step's status, and its result where the log holds it: `{status, problem[, result | kept]}`."""
    made: dict[str, Any] = {"status": step.status, "problem": step.problem}
    outcome = step.outcome
    if outcome is None:
        return made
    if step.loop is not None:
        return {**made, "result": decode(encode(collected(step.loop)))}
    if type(outcome.table) is TableRef:
        return {**made, "kept": f"a table of {outcome.table.rows} rows"}
    if type(outcome.table) is ValueRef or outcome.value is None:
        return {**made, "kept": "a large value"}
    return {**made, "result": decode(outcome.value)}
