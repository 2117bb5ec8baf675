"""The language model of results: what a tool's `output` says of what it gives.

Read by `playbooks.results`.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import INLINE_BYTES_MAX, LOOP_ITEMS_MAX, PREVIEW_BYTES_MAX
from playbooks.model.parts import AnyOf, Block, Choice, Flag, Key, ListOf, Of, Text, Whole
from playbooks.outputs import STRATEGIES

#: Stores that mean something on one box: made again where the cache loses it, or kept as long as the log.
MADE_AGAIN: Final = ("auto", "memory")
KEPT: Final = ("eventlog", "disk", "object")
SCOPES: Final = ("step", "execution", "workflow")
COMPRESSION: Final = ("none", "gzip", "lz4")

OUTPUT: Final = Block(
    "output",
    "What becomes of a tool's result.",
    (
        Key("store", Of("output.store"), "Where it is kept."),
        Key(
            "select", ListOf(AnyOf((Of("output.part"), Text()))), "Parts that are at hand beside it, by name."
        ),
        Key("output_select", ListOf(Text()), "As `select`, in NoETL's older spelling: paths alone."),
        Key("accumulate", Of("output.accumulate"), "How the results of several runs become one."),
        Key(
            "inline_max_bytes",
            Whole(0),
            f"Above this it is a block of the cache; at most {INLINE_BYTES_MAX:,}.",
        ),
        Key("preview_max_bytes", Whole(0), f"How much of a block is shown; at most {PREVIEW_BYTES_MAX:,}."),
        Key("scope", Choice(SCOPES), "Read and without meaning: a result lives as long as its execution."),
    ),
    {"as": "use the task's `name`."},
)

STORE: Final = Block(
    "output.store",
    "Where a result is kept.",
    (
        Key("kind", Choice((*MADE_AGAIN, *KEPT)), "Made again where it is lost, or recorded."),
        Key("ttl", Text(), "Read and without meaning."),
        Key("compression", Choice(COMPRESSION), "Read and without meaning."),
        Key("scope", Choice(SCOPES), "As `output.scope`."),
    ),
    dict.fromkeys(
        ("driver", "bucket", "prefix", "credential"),
        "results are kept on the box; there is nothing to reach.",
    ),
)

PART: Final = Block(
    "output.part",
    "One part of a result that is at hand beside it.",
    (
        Key("path", Text(), "Where it stands: keys and indices, such as $.data.items[0].id.", required=True),
        Key("as", Text(), "Its name.", required=True),
    ),
)

ACCUMULATE: Final = Block(
    "output.accumulate",
    "How the results of a task that runs several times, or for each item of a loop, become one.",
    (
        Key("enabled", Flag(), "Whether it is on.", required=True),
        Key(
            "strategy",
            Choice(STRATEGIES),
            "A list of them, the last, one map, or their lists as one; tables are listed, for arrow to take as one.",
        ),
        Key("merge_path", Text(), "Where in each result stands what is joined."),
        Key("manifest_as", Text(), "Its name in `iter`; else `accumulated`."),
        Key("on_success", Flag(), "Whether results count; else they do."),
        Key("on_error", Flag(), "Whether errors count; else they do not."),
        Key("max_items", Whole(1, LOOP_ITEMS_MAX), "How many are kept at most."),
    ),
)
