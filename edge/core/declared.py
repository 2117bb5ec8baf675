"""What a package says of a tool kind it brings: the keys it takes, its effects, its needs. Plain data.

Made by other packages and found by entry point (group `noetl_edge.kinds`, the name is the kind), while compiling.
It loads nothing: the tool itself is another entry point (group `noetl_edge.tools`), loaded only by the worker that
runs it. Must never hold code that runs on a compiler's machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from edge.core.records import record

#: Where packages say which kinds there are, and where their tools are.
KINDS_GROUP = "noetl_edge.kinds"
TOOLS_GROUP = "noetl_edge.tools"


@record
class DeclaredKind:
    """One kind of tool of another package.

    `doc` is a sentence about it, `keys` its keys with a sentence each; whatever stands under them may be a template,
    and the tool finds them rendered (`context.render(config["keys"])`). `effects` are the classes a playbook may
    declare, the first where it declares none: "pure", "read", "write". `hosts` says that it is refused where no host
    is granted. `memory_mb` is what its worker may add where the playbook says nothing.
    """

    doc: str
    keys: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    effects: tuple[str, ...] = ("read",)
    hosts: bool = False
    memory_mb: int | None = None
