"""The language model of a workflow: steps, their loops, their tools' common keys, and their arcs.

Read by `playbooks.steps`, `playbooks.loops`, `playbooks.tasks` and `playbooks.arcs`.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import EXECUTIONS_OPEN_MAX
from playbooks.model.parts import (
    AnyOf,
    Block,
    Choice,
    Condition,
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
    "A step's repetition over a list.",
    (
        Key("in", Tree(), "The list: an expression that gives one, or the list itself.", required=True),
        Key("iterator", Text("[A-Za-z_][A-Za-z0-9_]{0,63}"), "What its tools call an item.", required=True),
        Key("spec", Of("loop.spec"), "How the items follow each other."),
        Key("mode", Choice(LOOP_MODES), "As `spec.mode`, in NoETL's older place."),
    ),
    {"cursor": "loops over a cursor are not supported yet."},
)

LOOP_SPEC: Final = Block(
    "loop.spec",
    "How the items of a loop follow each other.",
    (
        Key("mode", Choice(LOOP_MODES), "One after the other, or side by side."),
        Key("max_in_flight", Whole(1, EXECUTIONS_OPEN_MAX), "How many items may be under way at once."),
        Key("policy", Of("loop.policy"), "Where the items run."),
    ),
    {"frame": "it belongs to loops over a cursor, which are not supported yet."},
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
        "auth": "credentials are not supported yet.",
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
