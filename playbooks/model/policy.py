"""The language model of policy: the `spec` blocks of every level, admission, and the rules of tasks.

Read by `playbooks.spec` and `playbooks.policy`.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import (
    CIRCUIT_PROBE_AFTER_S_MAX,
    CIRCUIT_TRIP_AFTER_MAX,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_S_MAX,
    STEP_MEMORY_MB_MAX,
    STEP_MEMORY_MB_MIN,
    STEP_TIMEOUT_MS_MAX,
    WAIT_S_MAX,
)
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
    Number,
    Of,
    Text,
    Tree,
    Whole,
)
from playbooks.shape import BACKOFF, DIRECTIVES, EFFECTS, FAILURE, ON_UNKNOWN

_LENGTH: Final = Duration(STEP_TIMEOUT_MS_MAX)

TIMEOUT: Final = Block(
    "timeout",
    "A time limit in two parts, as NoETL's http tool has it; a claim may take both together.",
    (
        Key("connect", _LENGTH, "Until a request is connected."),
        Key("read", _LENGTH, "Until its whole answer is there."),
    ),
)

_SPEC_KEYS: Final = (
    Key("effect", Choice(EFFECTS), "What the tool does to the world: nothing, ask it, or change it.", EDGE),
    Key("timeout", AnyOf((_LENGTH, Of("timeout"))), "How long one claim may take.", EDGE),
    Key(
        "memory_mb",
        Whole(STEP_MEMORY_MB_MIN, STEP_MEMORY_MB_MAX),
        "How much memory of its own a worker may take for it.",
        EDGE,
    ),
    Key(
        "on_unknown",
        Choice(ON_UNKNOWN),
        "What follows where nobody knows whether a write happened; `ask` fails too, until somebody can be asked.",
        EDGE,
    ),
)
_ACCESS_KEY: Final = Key("access", Of("access"), "What it may touch outside its sandbox.")
_BREAKER_KEY: Final = Key(
    "breaker", AnyOf((Flag(), Of("breaker"))), "Refuse calls to hosts that fail again and again.", EDGE
)

BREAKER: Final = Block(
    "breaker",
    "A circuit breaker for each host that is called, shared by the whole box; `true` takes NoETL's numbers.",
    (
        Key("trip_after", Whole(1, CIRCUIT_TRIP_AFTER_MAX), "Failures in a row that open it: 5.", EDGE),
        Key(
            "probe_after", Duration(CIRCUIT_PROBE_AFTER_S_MAX * 1_000), "Until one call may try: 30 s.", EDGE
        ),
        Key("probe_after_ms", Whole(1, CIRCUIT_PROBE_AFTER_S_MAX * 1_000), "As `probe_after`, in ms.", EDGE),
    ),
    {
        "probe_interval": "a call of a playbook is the probe; nothing is sent beside.",
        "probe_interval_ms": "a call of a playbook is the probe; nothing is sent beside.",
        "downstream": "each host that is called is one by itself.",
    },
)
_SPEC_REFUSED: Final = {
    "next_mode": "write `next.spec.mode`.",
    "retain": "it is not supported yet.",
    "redact": "it is not supported yet.",
}

SPEC: Final = Block(
    "spec",
    "Policy for a step, or the defaults of one; an inner block wins over an outer one.",
    (
        *_SPEC_KEYS,
        Key("policy", Of("spec.policy"), "Who may start, how long it may take, what failure means."),
    ),
    _SPEC_REFUSED,
)

TASK_SPEC: Final = Block(
    "task.spec",
    "Policy for one tool, over its step's.",
    (
        *_SPEC_KEYS,
        Key("policy", Of("task.policy"), "What follows the tool's outcome."),
        Key("result", Of("output"), "As the tool's `output`; this one wins."),
        Key("output", Of("output"), "As `result`."),
    ),
    _SPEC_REFUSED,
)

POLICY: Final = Block(
    "spec.policy",
    "Who may start a step, how long it may take, and what its failure means.",
    (
        Key(
            "admit",
            AnyOf((Of("admit"), ListOf(Of("admit.rule")))),
            "Rules asked before the step starts; where the answer is no, it waits and is asked again.",
        ),
        Key("lifecycle", Of("lifecycle"), "How long it may take."),
        Key("failure", AnyOf((Choice(FAILURE), Of("failure"))), "What its failure means for the execution."),
        _ACCESS_KEY,
        _BREAKER_KEY,
    ),
    {
        "emit": "the log holds every outcome; what else it holds is not the playbook's to choose.",
        "rules": "task policies stand under the tool: tool: {kind: …, spec: {policy: {rules: …}}}.",
    },
)

LIFECYCLE: Final = Block(
    "lifecycle",
    "How long a step may take.",
    (
        Key("timeout_s", Duration(STEP_TIMEOUT_MS_MAX), "How long one claim may take, as `timeout`."),
        Key(
            "deadline_s",
            Duration(WAIT_S_MAX * 1_000),
            "How long the step may take in all, from when it could begin, waits and retries included.",
        ),
    ),
)

FAILURE_BLOCK: Final = Block(
    "failure",
    "What a step's failure means, in NoETL's longer form.",
    (Key("mode", Choice(FAILURE), "The execution fails, or this branch alone ends.", required=True),),
)

ADMIT: Final = Block(
    "admit",
    "Admission: the first rule that holds decides; where none does, the step starts.",
    (
        Key("mode", Choice(("exclusive",)), "The first rule that holds decides; there is no other mode."),
        Key("rules", ListOf(Of("admit.rule")), "The rules, in order.", required=True),
    ),
)

ADMIT_RULE: Final = Block(
    "admit.rule",
    "One admission rule: `when` with `then`, or `else` alone.",
    (
        Key("when", Condition(), "Where it holds; it may look at `workload`, `ctx` and `args`."),
        Key("then", AnyOf((Of("admit.then"), Of("admit.older"))), "What to do where it holds."),
        Key(
            "else",
            AnyOf((Of("admit.then"), Of("admit.older"))),
            "What to do where no rule before it held.",
        ),
    ),
)

ADMIT_THEN: Final = Block(
    "admit.then",
    "What an admission rule decides.",
    (Key("allow", Flag(), "Whether the step may start now.", required=True),),
    dict.fromkeys(
        ("do", "to", "attempts", "delay", "backoff", "set"),
        "control of tasks belongs to the task's own policy.",
    ),
)

ADMIT_OLDER: Final = Block(
    "admit.older",
    "What an admission rule decides, one level further in, as some published playbooks write it.",
    (Key("then", Of("admit.then"), "What it decides.", required=True),),
)

TASK_POLICY: Final = Block(
    "task.policy",
    "What follows a tool's outcome: the first rule that holds decides.",
    (
        Key("mode", Choice(("exclusive",)), "The first rule that holds decides; there is no other mode."),
        Key("on_unmatched", Choice(("continue", "fail")), "What follows where no rule holds."),
        Key("rules", ListOf(Of("rule")), "The rules, in order; needed where more than `access` stands here."),
        _ACCESS_KEY,
        _BREAKER_KEY,
    ),
    dict.fromkeys(("before", "after", "finally"), "NoETL keeps it for later."),
)

RULE: Final = Block(
    "rule",
    "One rule of a tool's policy: `when` with `then`, or `else` alone.",
    (
        Key("when", Condition(), "Where it holds; it may look at `outcome` and all the tool sees."),
        Key("then", AnyOf((Of("then"), Of("then.older"))), "What to do where it holds."),
        Key("else", AnyOf((Of("then"), Of("then.older"))), "What to do where no rule before it held."),
    ),
)

_DELAY: Final = AnyOf((Number(0, RETRY_DELAY_S_MAX), Expression()))
THEN: Final = Block(
    "then",
    "What a rule does.",
    (
        Key(
            "do",
            Choice(DIRECTIVES),
            "Go on, run it again, go to another, end the pipeline, or fail it.",
            required=True,
        ),
        Key(
            "attempts",
            Whole(1, RETRY_ATTEMPTS_MAX),
            "With `retry`: how often it runs in all; else 3.",
        ),
        Key("backoff", Choice(BACKOFF), "With `retry`: how the pause grows from attempt to attempt."),
        Key(
            "delay",
            _DELAY,
            "With `retry`: seconds before the next attempt.",
        ),
        Key("to", Text(), "With `jump`: the task to go on with."),
        Key("set", MapOf(Tree()), "Writes `ctx.name` (or `name`) and `iter.name`."),
        Key("set_ctx", MapOf(Tree()), "Writes into `ctx`."),
        Key("set_iter", MapOf(Tree()), "Writes into `iter`."),
    ),
    {"allow": "it belongs to the step's `policy.admit`."},
)

THEN_OLDER: Final = Block(
    "then.older",
    "What a rule does, one level further in, as some published playbooks write it.",
    (Key("then", Of("then"), "What it does.", required=True),),
)
