"""What a claim of certain steps takes with it: worked out once for each blueprint, used for every execution.

Called by the executor. Knows blueprints and limits, and nothing of any one execution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from edge.core.access import NOTHING, Access, union
from edge.core.limits import BLUEPRINT_BYTES_MAX, FRAME_BYTES_MAX, INLINE_BYTES_MAX
from edge.core.records import record
from edge.runtime.workers.work import Work
from edge.tools.registry import runs_author_code
from edge.worker.claims import Claim
from playbooks.blueprint import Blueprint
from playbooks.shape import CHILD

#: What one claim may carry in values; its `ctx` and blueprint go beside it in the same frame.
CLAIM_BYTES_MAX: Final = FRAME_BYTES_MAX - BLUEPRINT_BYTES_MAX - 4 * INLINE_BYTES_MAX


@record
class ClaimPlan:
    """What is the same for every claim of the same steps of one blueprint."""

    timeout_s: float
    #: Author code runs, or something is granted: no shared process may do it.
    bound: bool
    memory_mb: int
    reads_workload: bool
    #: What the worker's process has to hold open; topics are held by who publishes.
    access: Access = NOTHING
    #: All author code in it is declared pure, and runs where that is enforced.
    pure: bool = False
    #: A step looks at the iteration that began the execution, or hands it on to a child.
    reads_iter: bool = False

    def work(self, claim: Claim, blueprint: bytes, folder: str, *, bound: bool) -> Work:
        """A claim of these steps as the pool takes it, `bound` where a shared process may not have it."""
        limits = self.timeout_s, bound, folder, self.memory_mb, self.access
        return Work(claim, blueprint, *limits, pure=self.pure)


def plan_of(blueprint: Blueprint, steps: tuple[int, ...]) -> ClaimPlan:
    """The plan of a claim that carries these steps."""
    taken = [blueprint.steps[index] for index in steps]
    access = replace(union(step.access for step in taken), topics=())
    blocks = [task for step in taken for task in step.tasks if runs_author_code(task.kind)]
    return ClaimPlan(
        sum(step.timeout_ms for step in taken) / 1000,
        bool(access) or bool(blocks),
        max(step.memory_mb for step in taken),
        any(step.reads_workload for step in taken),
        access,
        bool(blocks) and not access and all(task.effect == "pure" for task in blocks),
        any(step.reads_iter or any(task.kind == CHILD for task in step.tasks) for step in taken),
    )


def inputs_problem(step: str, size_bytes: int) -> dict[str, Any]:
    """Why a step whose inputs exceed CLAIM_BYTES_MAX cannot run."""
    return {
        "code": "inputs_too_large",
        "message": f"Step {step} reads {size_bytes} bytes of values; a claim may carry {CLAIM_BYTES_MAX}.",
        "mend": "Let earlier steps return tables, or less.",
        "step": step,
    }
