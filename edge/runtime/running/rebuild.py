"""Outputs that must be there before a step runs: put back from the log, or named to be made again.

Owned by the executor. What the log holds (small values, requests, outcomes of `read` and `write`) is put back
here; what it does not (larger outputs of pure steps) is made again by running the step on what it saw then.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from edge.core.beginnings import has_recorded, nothing_else_settled, state_seen, with_items_before
from edge.core.codec import decode, encode
from edge.core.errors import CacheMiss
from edge.core.events import TaskDone
from edge.core.loops import blocks_in, joined
from edge.core.records import record
from edge.core.scheduler import token_args
from edge.core.state import Execution, StepState, fold
from edge.core.values import BlockRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Live, Seen
from edge.store.blocks import Blocks
from playbooks.shape import Step


@record
class Past:
    """What a settled step saw when it ran: `ctx`, its args and the outputs it reads."""

    ctx: dict[str, Any]
    args: dict[str, Any] | None
    results: dict[str, bytes | BlockRef]


class Outputs:
    """Finds, restores and forgets the outputs of running executions."""

    def __init__(self, gate: CommitGate, blocks: Blocks) -> None:
        self._gate, self._blocks = gate, blocks

    def lacking(self, live: Live, names: list[str], *, reads_workload: bool) -> str | None:
        """The first step that must be run again so that these have their outputs; None where all is there.

        What the log holds is put back on the way. Raises LogDamaged, StorageFailed.
        """
        for name in names:
            found = self._absent(live, name)
            if found is not None:
                return found
        if reads_workload:
            self._restore_request_table(live)
        return None

    def _absent(self, live: Live, name: str) -> str | None:
        if name in live.results:
            return None
        state = live.state.steps[name]
        outcome = state.outcome
        assert outcome is not None, f"step {name} has no output"
        step = live.blueprint.steps[live.blueprint.step_index[name]]
        if outcome.value is not None:
            live.keep(name, outcome.value)
            return None
        if state.loop is not None:
            self.keep_loop(live, name, encode(joined(state.loop, step.joins)))
            return None
        if outcome.table is not None and step.kept:
            data = outcome.table_bytes or self._gate.blob(outcome.table.digest)
            self._blocks.restore(live.blueprint.digest, live.state.seq, outcome.table, data)
            live.keep(name, outcome.table)
            return None
        for needed in step.reads:
            earlier = live.state.steps.get(needed)
            # Only what it can have read: outcomes before its own. So this ends even where arcs lead back.
            if earlier is not None and earlier.status == "done" and earlier.seq < state.seq:
                found = self._absent(live, needed)
                if found is not None:
                    return found
        if step.reads_workload:
            self._restore_request_table(live)
        return name

    def keep_loop(self, live: Live, name: str, value: bytes) -> None:
        """Keep what a loop gave, with the blocks of its items, which the blob store has. Raises StorageFailed."""
        results = decode(value)
        refs = list(blocks_in(results).values()) if type(results) is list else []
        for ref in refs:
            if not self._blocks.holds(live.blueprint.digest, ref.key):
                self._blocks.restore(live.blueprint.digest, live.state.seq, ref, self._gate.blob(ref.digest))
        if refs:
            live.item_blocks[name] = refs
        live.keep(name, value)

    def restore_tasks(self, live: Live, name: str, visit: int) -> None:
        """Put back the tables of a pipeline's recorded tasks. Raises StorageFailed, LogDamaged."""
        known = live.state.steps.get(name)
        if known is None or known.visit != visit:
            return
        for done in _recorded(known):
            if done.table is not None and not self._blocks.holds(live.blueprint.digest, done.table.key):
                data = done.table_bytes or self._gate.blob(done.table.digest)
                self._blocks.restore(live.blueprint.digest, live.state.seq, done.table, data)

    def as_it_was(self, live: Live, name: str) -> Past:
        """What a settled step saw. Raises CacheMiss `cache_lost` where that was overwritten since and is gone."""
        settled = live.state.steps[name]
        last_seq = settled.seq - 1 if settled.cause is None else settled.cause
        past: Execution = fold(
            event for event in self._gate.events_of(live.state.seq) if event.seq <= last_seq
        )
        results: dict[str, bytes | BlockRef] = {}
        for needed in live.blueprint.steps[live.blueprint.step_index[name]].reads:
            then = past.steps.get(needed)
            if then is not None and then.outcome is not None:
                results[needed] = self._output_then(live, name, needed, then)
        return Past(past.ctx, token_args(live.blueprint, past, name), results)

    def as_it_began(self, live: Live, step: Step, visit: int, item: int | None) -> Seen | None:
        """What a pipeline, or that of one item of a loop, began with; None where it may begin now.

        Raises CacheMiss `cache_lost` where an output it read was overwritten since and is gone.
        """
        known = live.state.steps.get(step.name)
        if not has_recorded(known, visit, item) or nothing_else_settled(live.state, step.name):
            return None
        past = state_seen(self._gate.events_of(live.state.seq), step.name, visit, item)
        assert past is not None, step.name
        ctx = past.ctx
        if item is not None and step.loop is not None and not step.loop.parallel:
            assert known is not None
            assert known.loop is not None
            ctx = with_items_before(ctx, known.loop, item)
        results = {
            name: self._output_then(live, step.name, name, past.steps[name])
            for name in step.reads
            if name in past.steps and past.steps[name].outcome is not None
        }
        return Seen(live.last_seq, ctx, results)

    def _output_then(self, live: Live, name: str, needed: str, then: StepState) -> bytes | BlockRef:
        now = live.state.steps.get(needed)
        if now is not None and now.seq == then.seq:
            return live.results[needed]
        assert then.outcome is not None, f"step {needed} had no output"
        if then.outcome.value is not None:
            return then.outcome.value
        if then.loop is not None:
            joins = live.blueprint.steps[live.blueprint.step_index[needed]].joins
            return encode(joined(then.loop, joins))
        raise CacheMiss(
            f"Step {name} cannot be made again: an earlier output of {needed} is gone.",
            mend="Give the cache a larger budget, or declare the step spec.effect: read.",
            code="cache_lost",
        )

    def _restore_request_table(self, live: Live) -> None:
        ref = live.request_table
        if ref is None or live.request_table_bytes is not None:
            return
        if self._blocks.holds(live.blueprint.digest, ref.key):
            return
        digest = live.state.request.payload_digest
        assert digest is not None, "a large request is a blob"
        live.request_table = self._blocks.put(
            live.blueprint.digest, live.state.seq, ref.key, self._gate.blob(digest)
        )

    def block_bytes(self, live: Live, ref: BlockRef) -> bytes:
        """An output block's bytes: a table's Arrow stream, a large value's CBOR. Raises CacheMiss."""
        request = live.request_table
        if request is not None and ref.key == request.key and live.request_table_bytes is not None:
            return live.request_table_bytes
        return self._blocks.read(live.blueprint.digest, ref)

    def forget_absent(self, live: Live) -> None:
        """A block was missed, or could not be used: forget what is gone, so that it is made again."""
        digest = live.blueprint.digest
        blocks = {ref.key: name for name, ref in live.results.items() if not isinstance(ref, bytes)}
        blocks |= {ref.key: name for name, refs in live.item_blocks.items() for ref in refs}
        request = live.request_table
        asked = list(blocks)
        if request is not None and live.request_table_bytes is None:
            asked.append(request.key)
        unsettled = [step for step in live.state.steps.values() if step.status not in ("done", "failed")]
        asked += [done.table.key for step in unsettled for done in _recorded(step) if done.table is not None]
        for key in self._blocks.lost(digest, asked):
            name = blocks.get(key)
            if name is not None:
                live.results.pop(name, None)
        self._blocks.note_miss()


def _recorded(step: StepState) -> Iterator[TaskDone]:
    """What pipelines recorded of a step's visit, those of its loop's items too."""
    items = step.loop.tasks.values() if step.loop is not None else ()
    return itertools.chain(step.tasks, *items)
