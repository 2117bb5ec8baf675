"""What the compiler knows of one kind of tool.

Made by the modules beside this one, one for each kind; read by `playbooks.tasks` and `playbooks.steps`. What a box
must know of a kind stands in `playbooks.shape`, which loads no YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edge.core.access import Access
from edge.core.limits import CALL_MARGIN_MS, CALL_TIMEOUT_MS, STEP_TIMEOUT_MS_MAX
from edge.core.records import record
from playbooks.expressions import Resolve
from playbooks.loader import Mapping_, Marked
from playbooks.model.parts import Block
from playbooks.model.workflow import TOOL
from playbooks.problems import Source

#: Takes the source, the tool's entries by key, the tool itself and the resolver of names; gives the task's config.
Read = Callable[[Source, dict[str, Marked], Mapping_, Resolve], dict[str, Any]]


@record
class Kind:
    """One tool kind.

    `block` says what stands beside the keys of every tool, with the blocks below it in `blocks`; `read` makes the
    config of what is found. `effects` are the classes it may be declared to be, the first of them where nothing is
    declared, unless `natural` says it from the config.
    """

    block: Block
    read: Read
    effects: tuple[str, ...] = ("read", "pure", "write")
    natural: Callable[[Mapping[str, Any]], str] | None = None
    blocks: tuple[Block, ...] = ()
    #: The kind it is in the blueprint, "" for its own name: two spellings of one tool.
    runs_as: str = ""
    #: What its worker may add in memory where nothing is said.
    memory_mb: int | None = None
    #: Keys of the config that hold the tool's own time limits in ms; the longest is what its claim needs.
    times: tuple[str, ...] = ()
    #: Looks at what the tool is granted, once that is known.
    check: Callable[[Source, dict[str, Marked], Mapping_, Access], None] | None = None

    def tool_block(self) -> Block:
        """Everything a tool of this kind may have."""
        return TOOL.over(self.block)

    @property
    def always_pure(self) -> bool:
        """Whether it can be nothing but a function of its inputs."""
        return self.effects == ("pure",)

    def fit_times(self, config: dict[str, Any], limit_ms: int | None) -> int | None:
        """Give the tool's own time limits where none are said; what its claim needs where the task has no limit.

        The tool's limits come before the claim's: it ends with an error of its own, and is not killed.
        """
        if not self.times or not config:
            return None
        said_ms = max((config[key] or 0 for key in self.times), default=0)
        own_ms = CALL_TIMEOUT_MS if limit_ms is None else max(limit_ms - CALL_MARGIN_MS, limit_ms // 2, 1)
        for key in self.times:
            config[key] = config[key] or said_ms or own_ms
        return min(said_ms + CALL_MARGIN_MS, STEP_TIMEOUT_MS_MAX) if said_ms and limit_ms is None else None

    def effect(self, config: Mapping[str, Any], declared: str | None) -> str:
        """Its effect: as declared where it may be that, else as is natural to it."""
        if declared in self.effects:
            return declared
        return self.natural(config) if self.natural is not None and config else self.effects[0]
