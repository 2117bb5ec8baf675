"""A worker's whole life: claim → hydrate → run one tool → write output → report → release. One at a time.

Runs in a process forked from the zygote and already locked in. It keeps nothing of a claim, starts no step of
its own (the claim names all it may run), opens neither log nor LMDB, and ends when the runtime goes.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.errors import CacheMiss, EdgeError
from edge.core.frames import FrameBuffer, pack
from edge.core.limits import REPLY_BYTES
from edge.worker.claims import FAILED, MISS, PAUSE, TABLE, VALUE, Claim, Items, Outcome, TaskRecord, reply
from edge.worker.hydrate import Bench, Shelf
from edge.worker.pipeline import Pause, memory_problem
from playbooks.shape import Step

_RECEIVE_BYTES: Final = 256 * 1024
_FOLDER_DIGITS: Final = 32
#: A worker that has had something to say for this long says it, however much is still to do.
_SILENCE_NS: Final = 600_000


def run(runtime: socket.socket, root_fd: int, *, bound: bool, refusal: dict[str, Any] | None = None) -> None:
    """Serve claims until the runtime closes the socket.

    `root_fd` is the cache root, or, where `bound`, the folder of the one playbook this process may touch. With a
    `refusal` (a problem) nothing runs: that is how every step fails, and each claim gets a process of its own, since
    the next may find what this one lacked.
    """
    with closing(Shelf(root_fd)) as shelf:
        buffer = FrameBuffer()
        while data := runtime.recv(_RECEIVE_BYTES):
            replies = []
            spoke_ns = time.perf_counter_ns()
            for message in buffer.feed(data):
                claim = Claim.from_message(message)
                folder_name = "." if bound else claim.digest.hex()[:_FOLDER_DIGITS]
                outcomes = _serve(claim, shelf, folder_name, refusal)
                # A thread that a block left behind would work on after its step: such a process takes no other claim.
                spent = bound and (refusal is not None or threading.active_count() > 1)
                replies.append(pack(reply(claim.number, outcomes, spent=spent)))
                # Very short claims share an answer; others are answered at once, so that more is sent meanwhile.
                if time.perf_counter_ns() - spoke_ns > _SILENCE_NS:
                    runtime.sendall(b"".join(replies))
                    replies = []
                    spoke_ns = time.perf_counter_ns()
            if replies:
                runtime.sendall(b"".join(replies))


def _serve(claim: Claim, shelf: Shelf, folder_name: str, refusal: dict[str, Any] | None) -> list[Outcome]:
    """All outcomes of one claim: up to and including the first that is not a success, or with which they are many.

    What they leave out is claimed anew.
    """
    outcomes: list[Outcome] = []
    try:
        blueprint = shelf.blueprint(claim)
        if blueprint is None:
            raise CacheMiss("The worker has not seen this blueprint.", code="blueprint_unknown")
        bench = Bench(claim, blueprint, shelf.blocks(folder_name, claim.digest))
        bench.refusal = refusal
    except CacheMiss as error:
        return [Outcome(MISS, problem=error.problem())]
    if claim.items is not None:
        return _run_items(bench, blueprint.steps[claim.steps[0]], claim, claim.items)
    size_bytes = 0
    for place, index in enumerate(claim.steps):
        visit = claim.visit if place == 0 else 0
        outcome = _run_step(bench, index, visit)
        outcomes.append(outcome)
        size_bytes += outcome.size_bytes
        if outcome.kind in (FAILED, MISS, PAUSE) or size_bytes > REPLY_BYTES:
            break
    return outcomes


def _run_items(bench: Bench, step: Step, claim: Claim, items: Items) -> list[Outcome]:
    """The outcomes of a loop's items, one for each, up to the first whose block was not there."""
    assert step.loop is not None, step.name
    outcomes: list[Outcome] = []
    started_s, size_bytes = time.monotonic(), 0
    try:
        given = decode(items.values) if items.table is None else bench.rows(items)
    except EdgeError as error:
        kind = MISS if isinstance(error, CacheMiss) else FAILED
        return [Outcome(kind, problem=error.problem())]
    if not given:
        return [Outcome(VALUE, value=encode(None), adopted=bench.adopted)]
    for place, item in enumerate(given):
        bench.take_item(step.loop, item, items.first + place, items.total)
        outcome = _run_step(bench, claim.steps[0], claim.visit)
        if outcome.kind == PAUSE and len(given) > 1:
            # A block was gone after the item had read something. What it read is read again with the item, which
            # comes back in a frame: others of it may have patched `ctx` already, and no record tells of that.
            outcome = replace(outcome, kind=MISS, tasks=(), ctx=None)
        outcomes.append(outcome)
        size_bytes += outcome.size_bytes
        if outcome.kind in (MISS, PAUSE) or (outcome.kind == FAILED and not step.best_effort):
            break
        if not step.loop.parallel:
            bench.write_ctx(outcome.ctx)
        seconds_max = step.loop.frames.seconds_max
        late = seconds_max is not None and time.monotonic() - started_s > seconds_max
        if late or size_bytes > REPLY_BYTES:
            break  # what is done is committed; the rest comes again
    return outcomes


def _run_step(bench: Bench, index: int, visit: int) -> Outcome:
    """One step's outcome, with the calls it made to downstreams that have a circuit breaker."""
    outcome = _attempt(bench, index, visit)
    met = bench.calls.take()
    return replace(outcome, met=met) if met else outcome


def _attempt(bench: Bench, index: int, visit: int) -> Outcome:
    """The named boundary "tool run": whatever a tool raises becomes an outcome here."""
    started_ns = time.perf_counter_ns()
    bench.adopted = None
    if bench.refusal is not None:
        return Outcome(FAILED, problem=bench.refusal)
    acted = False
    try:
        step = bench.begin(index, visit)
        if step.pipeline:
            return _run_pipeline(bench, step, visit, started_ns)
        output = bench.run(step.tasks[0])
        acted = step.effect == "write"
        made = bench.settle(visit, output)
    except CacheMiss as error:
        if not acted:
            return Outcome(MISS, problem=error.problem())
        made = Outcome(FAILED, problem=_output_problem(bench.step, error))
    except EdgeError as error:
        made = Outcome(FAILED, problem=error.problem())
    except MemoryError:
        made = Outcome(FAILED, problem=memory_problem(bench.step))
    except Exception as error:  # noqa: BLE001 - the named boundary "tool run"
        made = Outcome(FAILED, problem=_unexpected_problem(bench.step, error))
    duration_us = (time.perf_counter_ns() - started_ns) // 1000
    return Outcome(made.kind, made.value, made.table, made.problem, duration_us, bench.adopted)


def _run_pipeline(bench: Bench, step: Step, visit: int, started_ns: int) -> Outcome:
    """One go of a step's pipeline: its end, or the pause it stopped at. Raises CacheMiss, EvaluationFailed."""
    pipeline = bench.pipeline(step, visit)
    try:
        end = pipeline.run()
        if isinstance(end, Pause):
            made = Outcome(PAUSE, wait_ms=end.wait_ms, next_number=end.number, hosted=end.hosted)
        elif end.problem is not None:
            made = Outcome(FAILED, problem=end.problem)
        else:
            made = bench.settle(visit, end.value, end.held)
    except CacheMiss as error:
        if not pipeline.records:
            raise
        # What was recorded in this go must not be lost with it: it is written down, and the next go adopts it.
        made = Outcome(PAUSE, wait_ms=0, next_number=-1, problem=error.problem())
    duration_us = (time.perf_counter_ns() - started_ns) // 1000
    tasks = tuple(pipeline.records)
    if tasks and made.kind in (VALUE, TABLE) and _is_output(tasks[-1], made, pipeline.last_number):
        tasks = tasks[:-1]
    return Outcome(
        made.kind,
        made.value,
        made.table,
        made.problem,
        duration_us,
        bench.adopted,
        tasks,
        pipeline.patches or None,
        made.wait_ms,
        made.next_number,
        made.hosted,
    )


def _is_output(last: TaskRecord, made: Outcome, last_number: int) -> bool:
    """Whether the last task's record says no more than the step's own outcome."""
    return last.number == last_number and (last.value, last.table) == (made.value, made.table)


def _output_problem(step: str, error: CacheMiss) -> dict[str, Any]:
    """A write had its effect: losing its output must not bring it about a second time."""
    return {
        "code": "output_lost",
        "message": f"Step {step} had its effect, but its output could not be kept: {error.message}",
        "mend": "Look at the effect; then send a new request.",
    }


def _unexpected_problem(step: str, error: Exception) -> dict[str, Any]:
    return {
        "code": "tool_failed",
        "message": f"Step {step} ended with {type(error).__name__}: {str(error)[:300]}.",
        "mend": "If this is not the playbook's fault, report it with `edge show`.",
    }
