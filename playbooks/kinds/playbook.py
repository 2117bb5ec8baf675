"""The `playbook` kind's entries: which playbook, what it is given, which of its steps answers.

Read by `playbooks.kinds`. Whether the playbook is there is only known when the task runs
(`edge.runtime.executions.children`).
"""

from __future__ import annotations

from typing import Any, Final

from playbooks.expressions import Resolve
from playbooks.fields import text
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked
from playbooks.model.parts import Block, Key, MapOf, Template, Text, Tree
from playbooks.problems import Source
from playbooks.templates import compile_tree

_PLAYBOOK: Final = Block(
    "playbook",
    "Runs another playbook of this box as an execution of its own, and waits for its answer without a worker.",
    (
        Key("path", Template(), "The other playbook's `metadata.path`.", required=True),
        Key("payload", MapOf(Tree()), "As `input`, in the engine's spelling; `input` goes over it."),
        Key("return_step", Text(), "Whose result answers, where it is not the one that ends the playbook."),
        Key("task", Text(), "Read and without meaning."),
        Key("poll_interval", Tree(), "Read and without meaning: nobody asks again and again."),
    ),
    {
        "catalog_id": "a box knows playbooks by their path; write `path`.",
        "version": "a child runs what is registered under the path when it begins.",
        "timeout": "give the other playbook's steps their `spec.timeout`.",
        "parent_execution_id": "the parent is the execution that runs the task.",
    },
)


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    if "path" not in found:
        source.refuse(
            tool.start, "A playbook tool needs `path`.", "Write the other playbook's metadata.path."
        )
    text(source, found.get("task"), "`task`")
    return {
        "path": compile_tree(source, found["path"], resolve) if "path" in found else ["const", None],
        "payload": compile_tree(source, found["payload"], resolve) if "payload" in found else None,
        "return_step": text(source, found.get("return_step"), "`return_step`"),
    }


PLAYBOOK: Final = Kind(_PLAYBOOK, _read, effects=("read",))
