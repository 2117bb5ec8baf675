"""What the items of a loop gave: checked, kept and recorded, each once, by index.

Called by `edge.runtime.loops.frames` for every frame that came back. An item that fails fails the loop, unless its
step goes on without it; must never record an item a second time.
"""

from __future__ import annotations

from typing import Any

from edge.core.codec import decode, encode
from edge.core.errors import CacheMiss
from edge.core.events import LoopItems
from edge.core.limits import LOOP_RESULT_BYTES_MAX
from edge.core.loops import blocks_in, results_problem
from edge.core.routing import ctx_clash
from edge.core.scheduler import RunLoop
from edge.runtime.loops.ports import LoopRecord
from edge.runtime.running.live import Activation, Live
from edge.worker.claims import FAILED, Outcome


def record_items(
    live: Live, act: Activation, goal: RunLoop, first: int, made: list[Outcome], log: LoopRecord
) -> None:
    """Record the outcomes of the items from `first` on; where one fails the loop, `act.loop.problem` says so."""
    run, step = act.loop, live.blueprint.steps[goal.step]
    assert run is not None
    values = [decode(each.value) if each.value is not None else each.table for each in made]
    failed = {first + n: outcome.problem for n, outcome in enumerate(made) if outcome.kind == FAILED}
    written: dict[str, Any] = {}
    for n, outcome in enumerate(made):
        if not outcome.ctx:
            continue
        problem = ctx_clash(step, live.state.ctx, run.written, outcome.ctx)
        if problem is not None:
            failed[first + n] = problem
            values[n] = None
        else:
            run.written |= outcome.ctx
            written |= outcome.ctx
    for n, ref in blocks_in(values).items():
        try:
            log.keep_item(live, step.name, ref, claim_bound=act.claim_bound)
        except CacheMiss as error:
            failed[first + n] = {**error.problem(), "code": "output_lost"}
            values[n] = None
    results = encode(values)
    run.result_bytes += len(results)
    took_us = sum(each.duration_us for each in made)
    body = LoopItems(first, len(made), results, failed or None, written or None, took_us)
    log.append(live, body, step.name, held_back=step.effect != "write", visit=goal.visit)
    if failed and not step.best_effort:
        index = min(failed)
        run.problem = run.problem or {**(failed[index] or {}), "item": index}
    elif run.result_bytes > LOOP_RESULT_BYTES_MAX:
        run.problem = run.problem or results_problem(step.name)
