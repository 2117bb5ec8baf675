"""A claim on its way to a worker, and what the process that takes it must be bound to.

Made by the dispatcher, queued and sent by the pool. Plain values: nothing here forks, sends or decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.core.access import NOTHING, Access
from edge.core.records import record
from edge.worker.claims import Claim

#: Never so many that they take longer than this together: another process may be free sooner.
PIPELINE_US_MAX: Final = 5_000


@record
class Binding:
    """What a process is bound to until it ends: one playbook's folder, its memory limit, its grants.

    A `pure` one has Python's doors to clock, chance and environment shut, and runs nothing else.
    """

    folder: str
    memory_mb: int
    access: Access = NOTHING
    pure: bool = False


@dataclass(slots=True)
class Work:
    """A claim under way. `author_code` binds the process; `folder` is the playbook's cache folder name.

    A claim with `access` binds it too, whoever's code it runs.
    """

    claim: Claim
    blueprint: bytes
    timeout_s: float
    author_code: bool
    folder: str
    memory_mb: int
    access: Access = NOTHING
    #: What is known of downstreams with circuit breakers, for the claim to take along as it is sent.
    circuits: dict[str, list[int]] | None = None
    pure: bool = False
    started_s: float = 0.0
    #: How long claims of its kind usually take; unknown ones get no company.
    typical_us: int = PIPELINE_US_MAX

    @property
    def binding(self) -> Binding | None:
        """What the process that runs it must be bound to, None where any shared one will do."""
        return Binding(self.folder, self.memory_mb, self.access, self.pure) if self.author_code else None
