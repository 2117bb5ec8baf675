"""The language model of a playbook's outside: the root, its metadata, executor and workbook.

Read by `playbooks.compile`, `playbooks.executor` and `playbooks.workbook`.
"""

from __future__ import annotations

from typing import Final

from playbooks.model.parts import (
    EDGE,
    AnyOf,
    Block,
    Choice,
    Flag,
    Key,
    ListOf,
    MapOf,
    Of,
    Plain,
    Text,
    Tool,
    Tree,
)
from playbooks.model.policy import SPEC

PLAYBOOK: Final = Block(
    "document",
    "A playbook: one request's control flow and policy.",
    (
        Key("apiVersion", Choice(("noetl.io/v2",)), "The version of the language.", required=True),
        Key("kind", Choice(("Playbook",)), "What the document is.", required=True),
        Key("metadata", Of("metadata"), "What the playbook is called, and where it is found.", required=True),
        Key(
            "keychain",
            ListOf(Of("keychain.entry")),
            "The aliases of credentials that its steps may be granted.",
        ),
        Key("executor", Of("executor"), "Where it begins and ends, and what it asks of the runtime."),
        Key("spec", Of("spec"), "Defaults for every step.", EDGE),
        Key(
            "workload",
            MapOf(Tree()),
            "Default values of the input; a request's own go over them. Templates see `workload` and `execution_id`.",
        ),
        Key(
            "workbook",
            AnyOf((Of("workbook.tasks"), MapOf(Tool()), ListOf(Of("workbook.entry")))),
            "Named tools that steps use by name.",
        ),
        Key("workflow", ListOf(Of("step")), "The steps; the first one begins.", required=True),
    ),
    {
        "vars": "it was withdrawn from NoETL; use `workload` and `set`.",
    },
)

METADATA: Final = Block(
    "metadata",
    "What a playbook is called, and where the catalog keeps it.",
    (
        Key("name", Text(), "Its name.", required=True),
        Key(
            "path",
            Text(),
            "Its path in the catalog: levels of letters, digits, _ . - parted by /.",
            required=True,
        ),
        Key("labels", MapOf(Plain()), "Labels; checked and not kept."),
        Key("description", Text(), "What it is for; checked and not kept."),
        Key("version", Plain(), "Its author's version; not kept: the digest is what pins it."),
    ),
)

EXECUTOR: Final = Block(
    "executor",
    "Where a playbook begins and ends, and what it asks of the runtime.",
    (
        Key(
            "profile",
            Choice(("local", "distributed", "auto")),
            "Read and without meaning: a box is one runtime.",
        ),
        Key("version", Text(), "Read and without meaning."),
        Key(
            "requires",
            Of("executor.requires"),
            "What must be there, else the playbook is refused.",
        ),
        Key("spec", Of("executor.spec"), "Entry, end, and defaults for every step."),
    ),
)

REQUIRES: Final = Block(
    "executor.requires",
    "What a playbook asks of the runtime.",
    (
        Key("tools", ListOf(Text()), "Tool kinds that must be there."),
        Key("features", ListOf(Plain()), "Features that must be there; none are known here by name."),
    ),
)

EXECUTOR_SPEC: Final = SPEC.over(
    Block(
        "executor.spec",
        "Where a playbook begins and ends, and defaults for every step, over the root's `spec`.",
        (
            Key("entry_step", Text(), "The step that begins, where it is not the first one."),
            Key("final_step", Text(), "A step that runs once when all else is at rest; nothing follows it."),
            Key("no_next_is_error", Flag(), "Whether a step whose arcs all say no fails the execution."),
        ),
    )
)

WORKBOOK: Final = Block(
    "workbook.tasks",
    "The workbook's older form.",
    (Key("tasks", AnyOf((MapOf(Tool()), ListOf(Of("workbook.entry")))), "The named tools.", required=True),),
)

WORKBOOK_ENTRY: Final = Block(
    "workbook.entry",
    "One named tool of a workbook that is a list; without `tool` the rest of the entry is the tool.",
    (
        Key("name", Text(), "What steps call it.", required=True),
        Key("tool", Tool(), "The tool."),
    ),
    open=True,
)
