"""The language model of a playbook's cases: what `edge playbook test` reads.

Read by `playbooks.cases`.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import LOOP_ITEMS_MAX, VISITS_MAX
from playbooks.model.parts import EDGE, Block, Choice, Key, ListOf, MapOf, Of, Text, Tree, Whole

STATUS: Final = ("completed", "failed", "cancelled", "waiting")
STEP_STATUS: Final = ("done", "failed")

CASES: Final = Block(
    "cases",
    "A file of cases, `NAME.test.yaml` beside the playbook `NAME.yaml`.",
    (
        Key("playbook", Text(), "The playbook's file, from here; else the one of the same name.", EDGE),
        Key("cases", ListOf(Of("case")), "The cases.", EDGE, required=True),
    ),
)

CASE: Final = Block(
    "case",
    "One run of the playbook: what comes in, what the outside answers, what is expected of it.",
    (
        Key("case", Text(), "What it shows.", EDGE, required=True),
        Key("input", MapOf(Tree()), "The request's input.", EDGE),
        Key("table", ListOf(MapOf(Tree())), "The request's table in place of an input, as rows.", EDGE),
        Key(
            "keychain",
            MapOf(MapOf(Text())),
            "Credentials that blocks read, by alias, made up: everybody reads this file.",
            EDGE,
        ),
        Key(
            "effects",
            ListOf(Of("case.effect")),
            "What tools that reach outside gave; they are not run.",
            EDGE,
        ),
        Key(
            "expect",
            Of("case.expect"),
            "What is expected; what is not named may be anything.",
            EDGE,
            required=True,
        ),
    ),
)

EFFECT: Final = Block(
    "case.effect",
    "What one tool gave: `value` or `problem`. They answer its runs in order, the last one up to 1,000 more.",
    (
        Key("step", Text(), "The step.", EDGE, required=True),
        Key("task", Text(), "Its tool, where it has several.", EDGE),
        Key("visit", Whole(0, VISITS_MAX), "For this visit of the step alone; the first is 0.", EDGE),
        Key("item", Whole(0, LOOP_ITEMS_MAX), "For this item of its loop alone; the first is 0.", EDGE),
        Key("value", Tree(), "What it gave.", EDGE),
        Key("problem", Of("case.problem"), "Why it failed.", EDGE),
    ),
)

PROBLEM: Final = Block(
    "case.problem",
    "Why a tool failed, as templates see it in `output.error`.",
    (
        Key("code", Text(), "What kind of problem.", EDGE, required=True),
        Key("message", Text(), "In words.", EDGE),
        Key("mend", Text(), "What would help.", EDGE),
        Key("retryable", Tree(), "Whether another attempt may help.", EDGE),
        Key("status", Tree(), "What status the outside gave.", EDGE),
    ),
)

EXPECT: Final = Block(
    "case.expect",
    "What is expected of a run.",
    (
        Key("status", Choice(STATUS), "How it ended, or that it waits for something that never comes.", EDGE),
        Key("result", Tree(), "Its answer, all of it.", EDGE),
        Key("result_has", Tree(), "What its answer has at least: maps may hold more.", EDGE),
        Key("problem", Text(), "The code of what ended it.", EDGE),
        Key("path", ListOf(Text()), "The steps that came to an outcome, in that order.", EDGE),
        Key("ctx", MapOf(Tree()), "What `ctx` holds at the end at least.", EDGE),
        Key("steps", MapOf(Of("case.step")), "What is expected of steps, by name.", EDGE),
    ),
)

STEP: Final = Block(
    "case.step",
    "What is expected of a step: of its last visit, where it had several.",
    (
        Key(
            "status",
            Choice((*STEP_STATUS, "absent")),
            "How it ended; `absent`: it never began.",
            EDGE,
        ),
        Key("result", Tree(), "Its result, all of it.", EDGE),
        Key("result_has", Tree(), "What its result has at least.", EDGE),
        Key("problem", Text(), "The code of what failed it.", EDGE),
    ),
)

#: The blocks, in the order the reference page has them.
CASE_BLOCKS: Final = (CASES, CASE, EFFECT, PROBLEM, EXPECT, STEP)
