"""What the compiler knows of one kind of tool.

Made by the modules beside this one, one for each kind; read by `playbooks.tasks` and `playbooks.steps`. What a box
must know of a kind stands in `playbooks.shape`, which loads no YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.core.access import Access
from playbooks.expressions import Resolve
from playbooks.loader import Mapping_, Marked
from playbooks.model.parts import Block
from playbooks.model.workflow import TOOL
from playbooks.problems import Source

#: Takes the source, the tool's entries by key, the tool itself and the resolver of names; gives the task's config.
Read = Callable[[Source, dict[str, Marked], Mapping_, Resolve], dict[str, Any]]


@dataclass(frozen=True, slots=True)
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
    #: Looks at what the tool is granted, once that is known.
    check: Callable[[Source, dict[str, Marked], Mapping_, Access], None] | None = None

    def tool_block(self) -> Block:
        """Everything a tool of this kind may have."""
        return TOOL.over(self.block)

    @property
    def always_pure(self) -> bool:
        """Whether it can be nothing but a function of its inputs."""
        return self.effects == ("pure",)

    def effect(self, config: Mapping[str, Any], declared: str | None) -> str:
        """Its effect: as declared where it may be that, else as is natural to it."""
        if declared in self.effects:
            return declared
        return self.natural(config) if self.natural is not None and config else self.effects[0]
