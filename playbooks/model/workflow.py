"""The language model of a workflow: steps, their loops, their tools' common keys, and their arcs.

Read by `playbooks.steps`, `playbooks.loops`, `playbooks.tasks` and `playbooks.arcs`.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import EXECUTIONS_OPEN_MAX, LOOP_FRAME_ROWS_MAX, STEP_TIMEOUT_MS_MAX
from playbooks.model.parts import (
    EDGE,
    AnyOf,
    Block,
    Choice,
    Condition,
    Duration,
    Expression,
    Flag,
    Key,
    ListOf,
    MapOf,
    Of,
    Pipeline,
    Text,
    Tree,
    Whole,
)
from playbooks.shape import LOOP_MODES, MODES, NO_MATCH

#: What a cursor may run over on a box.
CURSOR_KINDS: Final = ("arrow", "table")
#: Of a lease that means nothing here.
LEASE_MS_MAX: Final = 2**31 * 1_000
NAME_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_-]{0,63}"

STEP: Final = Block(
    "step",
    "One step: a tool or a pipeline of them, run once or for each item of a loop, and where it leads.",
    (
        Key("step", Text(NAME_PATTERN), "Its name; its result is read under it.", required=True),
        Key("desc", Text(), "What it is for."),
        Key("spec", Of("spec"), "Its policy."),
        Key("input", MapOf(Tree()), "What its tools get, by name."),
        Key("loop", Of("loop"), "What it is repeated over."),
        Key("tool", Pipeline(), "Its tool or tools; a step without one only leads on."),
        Key("set", MapOf(Tree()), "What it writes into `ctx` after it is done: `name` or `ctx.name`."),
        Key(
            "next",
            AnyOf((Text(), Of("arc"), ListOf(AnyOf((Text(), Of("arc")))), Of("next"))),
            "Where it leads.",
        ),
    ),
    {
        "when": "write `spec.policy.admit.rules`, or put `when` on the arcs.",
        "args": "write `input`.",
        "case": "it was withdrawn from NoETL; use arcs with `when`.",
        "retry": "it was withdrawn from NoETL; write a rule `do: retry` in the tool's `spec.policy`.",
        "sink": "it was withdrawn from NoETL.",
        "vars": "it was withdrawn from NoETL; use `set`.",
        "type": "it was withdrawn from NoETL; write `tool: {kind: …}`.",
    },
)

LOOP: Final = Block(
    "loop",
    "A step's repetition over a list, or over a table by frames.",
    (
        Key(
            "in", Tree(), "The list: an expression that gives one, or the list itself; with `cursor` a table."
        ),
        Key("cursor", Of("loop.cursor"), "The table, in NoETL's place for what a cursor runs over."),
        Key("iterator", Text("[A-Za-z_][A-Za-z0-9_]{0,63}"), "What its tools call an item.", required=True),
        Key("spec", Of("loop.spec"), "How the items follow each other."),
        Key("mode", Choice(LOOP_MODES), "As `spec.mode`, in NoETL's older place."),
    ),
)

LOOP_CURSOR: Final = Block(
    "loop.cursor",
    "What a loop in the mode `cursor` runs over.",
    (
        Key(
            "kind", Choice(CURSOR_KINDS), "A table of the box; databases are a data centre's.", required=True
        ),
        Key("table", Expression(), "The table.", EDGE, required=True),
    ),
    dict.fromkeys(
        ("auth", "claim", "options"),
        "a statement claims rows from a database, in a data centre; here the table itself is given.",
    ),
)

LOOP_SPEC: Final = Block(
    "loop.spec",
    "How the items of a loop follow each other.",
    (
        Key("mode", Choice(LOOP_MODES), "One after the other, or side by side."),
        Key("max_in_flight", Whole(1, EXECUTIONS_OPEN_MAX), "How many items may be under way at once."),
        Key("policy", Of("loop.policy"), "Where the items run."),
        Key("frame", Of("loop.frame"), "How many items one claim takes and commits together."),
    ),
)

LOOP_FRAME: Final = Block(
    "loop.frame",
    "How many items of a loop one claim takes, and commits together.",
    (
        Key("max_rows", Whole(1, LOOP_FRAME_ROWS_MAX), "Rows or items in one frame."),
        Key("max_bytes", Whole(1, 2**40), "Bytes of the table in one frame."),
        Key(
            "max_seconds",
            Duration(STEP_TIMEOUT_MS_MAX),
            "Seconds after which what is done is committed.",
        ),
        Key("process", Choice(("row", "frame")), "Each row is an item, or the frame is one, itself a table."),
        Key(
            "lease_seconds",
            Duration(LEASE_MS_MAX),
            "Read and without meaning: a worker that dies is noticed at once.",
        ),
        Key("heartbeat_seconds", Duration(LEASE_MS_MAX), "Read and without meaning."),
        Key(
            "row_concurrency", Whole(1, 2**31), "Read and without meaning: a worker does one thing at a time."
        ),
        Key("verify_ipc", Flag(), "Read and without meaning: every block is verified by its digest."),
    ),
)

LOOP_POLICY: Final = Block(
    "loop.policy",
    "Where the items of a loop run.",
    (Key("exec", Choice(("local", "distributed")), "Read and without meaning: a box is one runtime."),),
)

#: What every tool may have beside the keys of its kind.
TOOL: Final = Block(
    "tool",
    "What every tool has; the keys of its kind stand beside these.",
    (
        Key("kind", Text(), "What kind of tool it is.", required=True),
        Key("name", Text(NAME_PATTERN), "Its name in a pipeline; jumps and later tasks use it."),
        Key("desc", Text(), "What it is for."),
        Key("input", MapOf(Tree()), "What it gets, over the step's own input."),
        Key("args", MapOf(Tree()), "As `input`, in NoETL's older spelling."),
        Key("spec", Of("task.spec"), "Its policy."),
        Key("output", Of("output"), "What becomes of its result."),
        Key("result", Of("output"), "As `output`."),
    ),
    {
        "eval": "it was withdrawn from NoETL; write `spec.policy.rules`.",
        "script": "scripts from elsewhere are not supported yet; write `code`.",
        "auth": "it goes by no credential; write `keychain.alias.field` under `input`.",
        "as": "use the task's `name`.",
    },
)

WORKBOOK_TOOL: Final = TOOL.over(
    Block(
        "workbook",
        "A tool of the workbook; whatever else stands here goes over what is written there.",
        (Key("task", Text(), "Which one; where it is not here, `name` says it."),),
        open=True,
    )
)

NEXT: Final = Block(
    "next",
    "Where a step leads, with how its arcs are asked.",
    (
        Key("spec", Of("next.spec"), "How the arcs are asked."),
        Key("arcs", AnyOf((Text(), Of("arc"), ListOf(AnyOf((Text(), Of("arc")))))), "The arcs, in order."),
    ),
)

NEXT_SPEC: Final = Block(
    "next.spec",
    "How a step's arcs are asked.",
    (
        Key("mode", Choice(MODES), "The first arc that holds is taken, or all that hold, side by side."),
        Key(
            "on_no_match",
            Choice(NO_MATCH),
            "Where none holds the branch ends, and with `quiet` gives no answer.",
        ),
    ),
    {"policy": "NoETL keeps it for later."},
)

ARC: Final = Block(
    "arc",
    "One way on to another step.",
    (
        Key("step", Text(), "The step it leads to.", required=True),
        Key("when", Condition(), "Where it holds; without it the arc always holds after success."),
        Key(
            "set",
            MapOf(Tree()),
            "Writes `name` or `ctx.name` into `ctx`, `step.name` for the next step alone.",
        ),
        Key("args", MapOf(Tree()), "As `set: {step.name: …}`."),
    ),
    {
        "spec": "NoETL keeps it for later.",
        "then": "it was withdrawn from NoETL; write `step`.",
        "else": "write an arc without `when`.",
    },
)
