"""Claims on their way: made of what their steps go by, handed to the pool, known by number until they are back.

Owned by the dispatcher, which decides what is sent and what follows. Must never send what no frame can carry, nor
hand along a secret that the claim's steps were not granted.
"""

from __future__ import annotations

from typing import Any

from edge.core.errors import StorageFailed
from edge.core.scheduler import Run
from edge.runtime.dispatch.claim_plan import CLAIM_BYTES_MAX, ClaimPlan, inputs_problem, plan_of
from edge.runtime.dispatch.ports import Pool
from edge.runtime.dispatch.secrets import Secrets
from edge.runtime.running.live import Activation, Live, Seen
from edge.runtime.waiting.tokens import Tokens
from edge.store.blocks import Blocks
from edge.worker.claims import Claim, Items, Progress
from playbooks.blueprint import Blueprint


class Outgoing:
    """All claims that are out."""

    def __init__(self, blocks: Blocks, tokens: Tokens) -> None:
        self._blocks, self._tokens = blocks, tokens
        self.secrets = Secrets(None)
        self.pool: Pool | None = None
        self._out: dict[int, tuple[Live, Activation]] = {}
        self._number = 0
        self._plans: dict[tuple[bytes, tuple[int, ...]], ClaimPlan] = {}

    def send(
        self,
        live: Live,
        act: Activation,
        run: Run,
        seen: Seen,
        args: dict[str, Any] | None,
        progress: Progress | None,
        items: Items | None,
    ) -> int | dict[str, Any]:
        """Send a claim; its number, or the problem why it cannot be sent."""
        blueprint, steps, results = live.blueprint, run.steps, seen.results
        plan = self._plan(blueprint, steps)
        workload = live.workload_bytes if plan.reads_workload else None
        size_bytes = sum([len(value) for value in results.values() if type(value) is bytes])
        size_bytes += len(workload or b"") + len(live.request_table_bytes or b"")
        if items is not None:
            size_bytes += len(items.values)
        if progress is not None:
            size_bytes += sum([record.size_bytes for record in progress.recorded])
        if size_bytes > CLAIM_BYTES_MAX:
            return inputs_problem(blueprint.steps[steps[0]].name, size_bytes)
        try:
            self._blocks.require_folder(blueprint.digest)
        except StorageFailed as error:
            return error.problem()
        self._number += 1
        table = live.table_for(workload, results) if live.request_table is not None else None
        claim = Claim(
            self._number,
            blueprint.digest,
            None,
            live.state.seq,
            live.execution_id,
            steps,
            run.visit,
            run.attempt,
            workload,
            seen.ctx,
            results,
            table,
            live.request_table_bytes if table is not None else None,
            args,
            progress,
            items,
            self._tokens.for_claim(live, steps[0], run.visit, progress, items),
            self.secrets.take(plan.access.keychain),
            outer=live.state.request.iter if plan.reads_iter else None,
        )
        if items is None:
            act.claim = claim
        act.saw_seq = seen.seq
        self._out[claim.number] = live, act
        assert self.pool is not None
        folder = self._blocks.folder_name(blueprint.digest)
        bound = act.claim_bound = plan.bound or live.touches_author_made(results, progress)
        self.pool.submit(plan.work(claim, blueprint.data, folder, bound=bound))
        return claim.number

    def _plan(self, blueprint: Blueprint, steps: tuple[int, ...]) -> ClaimPlan:
        plan = self._plans.get((blueprint.digest, steps))
        if plan is None:
            plan = self._plans[blueprint.digest, steps] = plan_of(blueprint, steps)
        return plan

    def back(self, claim: Claim) -> tuple[Live, Activation]:
        """A claim has ended: what it worked for."""
        return self._out.pop(claim.number)
