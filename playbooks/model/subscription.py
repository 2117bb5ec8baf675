"""The language model of `kind: Subscription`: NoETL's document, with the sources that one box has.

Read by `playbooks.subscription_compile` and `playbooks.subscription_parts`.
"""

from __future__ import annotations

from typing import Final

from edge.core.limits import (
    BATCH_BYTES_MAX,
    BATCH_ROWS_MAX,
    BATCH_WAIT_MS_MAX,
    DEDUP_WINDOW_S_MAX,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_S_MAX,
    SUBSCRIPTION_BACKLOG_MAX,
    SUBSCRIPTION_IN_FLIGHT_MAX,
    TIMER_EVERY_MS_MAX,
)
from playbooks.model.parts import (
    EDGE,
    AnyOf,
    Block,
    Choice,
    Duration,
    Flag,
    Key,
    ListOf,
    MapOf,
    Of,
    Text,
    Whole,
)
from playbooks.shape import BACKOFF
from playbooks.subscription import COLUMN_TYPES, CONTROLS, MISSED, ORDERINGS, PAYLOADS, SOURCES

POOLS: Final = "a box has one pool of workers."
_LOG: Final = "the event log is the spool: every message is in it before it is acknowledged."
_CENTRE: Final = "it names something of a message system in a data centre; a box has `topics` at its broker."

ROOT: Final = Block(
    "subscription",
    "A subscription: messages or ticks, and the playbook that takes them.",
    (
        Key(
            "apiVersion",
            Choice(("noetl.io/v2", "noetl.io/v1")),
            "The version of the language.",
            required=True,
        ),
        Key("kind", Choice(("Subscription",)), "What the document is.", required=True),
        Key("metadata", Of("metadata"), "What it is called, and where it is found.", required=True),
        Key("spec", Of("subscription.spec"), "All the rest.", required=True),
    ),
    {"workflow": "a subscription has none; it names the playbook to run in `spec.dispatch.playbook`."},
)

SPEC: Final = Block(
    "subscription.spec",
    "Where messages come from, and what becomes of them.",
    (
        Key("source", Choice(SOURCES), "Topics at the box's broker, or a timer.", EDGE, required=True),
        Key("mode", Choice(("pull",)), "Read and without meaning: a box asks its broker."),
        Key(
            "activation",
            Choice(("continuous",)),
            "Read and without meaning: messages are taken as they come.",
        ),
        Key(
            "topics",
            AnyOf((Text(), ListOf(AnyOf((Text(), Of("subscription.topic")))))),
            "Topic filters, shared ones ($share/…) too; no two may match one topic. For source mqtt.",
            EDGE,
        ),
        Key(
            "qos",
            Whole(0, 1),
            "The QoS of filters that name none; 1. At 0 the broker may lose messages.",
            EDGE,
        ),
        Key("every", Duration(TIMER_EVERY_MS_MAX), "How far apart the ticks are. For source timer.", EDGE),
        Key("align", Flag(), "Whether ticks come at whole multiples of `every` on the wall clock.", EDGE),
        Key(
            "missed",
            Choice(MISSED),
            "What to do of ticks that nobody was there for; once for all of them.",
            EDGE,
        ),
        Key("runtime", Of("subscription.runtime"), "When a batch is full."),
        Key(
            "dispatch",
            Of("subscription.dispatch"),
            "Which playbook takes the messages, and how.",
            required=True,
        ),
        Key("table", Of("subscription.table"), "The columns of a batch's table.", EDGE),
        Key("headers", Of("subscription.headers"), "Which user properties pass, and which of them steer."),
        Key("dedup", Of("subscription.dedup"), "How long a message's id is remembered."),
        Key("limits", Of("subscription.limits"), "Bounds of rate, of work under way and of what waits."),
        Key(
            "ordering",
            Choice(ORDERINGS),
            "What waits for what; global, or per_key where a key is named.",
            EDGE,
        ),
        Key(
            "ordering_key",
            Text(),
            "The key: topic, topic[1], a path into the payload, or header.NAME.",
            EDGE,
        ),
        Key("spool", Of("subscription.spool"), "NoETL's place of ordering and of attempts."),
        Key("retry", Of("subscription.retry"), "How often what failed runs again.", EDGE),
        Key("dead_letter", Of("subscription.dead_letter"), "Where messages go that failed for good.", EDGE),
    ),
    {
        "auth": "the broker's credentials are the box's own (`broker` in edge.toml), the same for all of them.",
        "ingress": "it verifies what comes in over HTTP, and no subscription of a box does.",
        "cron": "NoETL has none for subscriptions; write `every: 10s`, with `align: true` for whole minutes.",
        "url": _CENTRE,
        "user": _CENTRE,
        "password": _CENTRE,
        "token": _CENTRE,
        "stream": _CENTRE,
        "consumer": _CENTRE,
        "subscription": _CENTRE,
        "endpoint": _CENTRE,
        "topic": _CENTRE,
        "group": _CENTRE,
        "brokers": _CENTRE,
    },
)

TOPIC: Final = Block(
    "subscription.topic",
    "A topic filter with a QoS of its own.",
    (
        Key("filter", Text(), "The filter.", EDGE),
        Key("topic", Text(), "The same as `filter`.", EDGE),
        Key("qos", Whole(0, 1), "The highest QoS its messages come with.", EDGE),
    ),
)

RUNTIME: Final = Block(
    "subscription.runtime",
    "When a batch is full: by rows, bytes or time, whichever comes first.",
    (
        Key("batch", Whole(1, BATCH_ROWS_MAX), "Messages of one batch at most; 100."),
        Key("batch_bytes", Whole(1, BATCH_BYTES_MAX), "Bytes of their payloads at most; 262144.", EDGE),
        Key("timeout_ms", Whole(0, BATCH_WAIT_MS_MAX), "How long the first message waits for others; 1000."),
        Key("timeout", Duration(BATCH_WAIT_MS_MAX), "The same as a length of time.", EDGE),
    ),
)

DISPATCH: Final = Block(
    "subscription.dispatch",
    "Which playbook takes the messages, and how.",
    (
        Key("playbook", Text(), "Its path in the catalog.", required=True),
        Key("payload_from", Choice(PAYLOADS), "What of a message is merged into the input; message.json."),
        Key(
            "batch_dispatch",
            Flag(),
            "One execution for a batch, its table in `workload.table`; else one each.",
        ),
        Key(
            "batch_max", Whole(1, BATCH_ROWS_MAX), "Messages of one batch at most, where fewer than `batch`."
        ),
    ),
    {"execution_pool": "a box has one pool of workers (`workers` in edge.toml)."},
)

TABLE: Final = Block(
    "subscription.table",
    "The columns of a batch's table besides _topic, _seq, _received_ns and _problem.",
    (
        Key(
            "columns",
            MapOf(Choice(COLUMN_TYPES)),
            "Names and types; else they are those of the messages.",
            EDGE,
        ),
    ),
)

HEADERS: Final = Block(
    "subscription.headers",
    "Which MQTT 5 user properties pass the gateway, and which of them steer.",
    (
        Key("directives", ListOf(Of("subscription.directive")), "Properties that may steer."),
        Key("trace", Of("subscription.trace"), "Whether W3C trace context is handed on."),
        Key("keep", ListOf(Text()), "Properties that are handed on as data.", EDGE),
    ),
    {
        "passthrough": "only what is named passes: list the properties to hand on under `keep`.",
        "normalize": "user properties come as they are.",
    },
)

DIRECTIVE: Final = Block(
    "subscription.directive",
    "A user property that may steer.",
    (
        Key("header", Text(), "Its name.", required=True),
        Key("controls", Choice(CONTROLS), "What it decides.", required=True),
        Key("allowed", ListOf(Text()), "The values it may have; others are ignored."),
    ),
    {"map": POOLS},
)

TRACE: Final = Block(
    "subscription.trace",
    "W3C trace context.",
    (Key("propagate", Choice(("none", "w3c")), "Whether `traceparent` goes into the execution."),),
    {"baggage_allowlist": "baggage is not handed on; list it under `headers.keep` to see it as data."},
)

DEDUP: Final = Block(
    "subscription.dedup",
    "How long a message's id (by directive, else user property message-id) is remembered.",
    (
        Key("enabled", Flag(), "Whether it is; no."),
        Key("window_secs", Whole(1, DEDUP_WINDOW_S_MAX), "How long; 300."),
    ),
)

LIMITS: Final = Block(
    "subscription.limits",
    "Bounds of rate, of work under way and of what waits.",
    (
        Key(
            "max_in_flight",
            Whole(1, SUBSCRIPTION_IN_FLIGHT_MAX),
            "Executions at a time; 4, or 1 in one order.",
        ),
        Key("max_dispatch_per_sec", Whole(1, 1_000_000), "Messages carried out in a second."),
        Key(
            "max_backlog", Whole(1, SUBSCRIPTION_BACKLOG_MAX), "Messages accepted ahead of work; 10000.", EDGE
        ),
    ),
)

SPOOL: Final = Block(
    "subscription.spool",
    "NoETL's buffer for outages. " + _LOG.capitalize(),
    (
        Key("mode", Choice(("buffer_and_ack", "hybrid")), "Read and without meaning: it is always so."),
        Key("ordering", Choice(ORDERINGS), "As `spec.ordering`."),
        Key("ordering_key", Text(), "As `spec.ordering_key`."),
        Key("drain", Of("subscription.drain"), "How what waited is worked off."),
    ),
    {
        "backend": _LOG,
        "bucket": _LOG,
        "path": _LOG,
        "credential": _LOG,
        "retention": "messages stay in the log as everything does; `limits.max_backlog` bounds what waits.",
        "circuit": "a circuit breaker belongs to the tool that calls the downstream.",
    },
)

DRAIN: Final = Block(
    "subscription.drain",
    "How what waited is worked off.",
    (
        Key("max_replay_attempts", Whole(1, RETRY_ATTEMPTS_MAX), "As `retry.attempts`."),
        Key(
            "on_recovery", Choice(("ordered_then_live",)), "Read and without meaning: the oldest goes first."
        ),
    ),
    {
        "rate_per_sec": "`limits.max_dispatch_per_sec` holds for all messages.",
        "batch": "`runtime.batch` holds for all messages.",
    },
)

RETRY: Final = Block(
    "subscription.retry",
    "How often what failed runs again, as a new execution; then it is a dead letter.",
    (
        Key("attempts", Whole(1, RETRY_ATTEMPTS_MAX), "Executions in all; 1.", EDGE),
        Key("max_attempts", Whole(1, RETRY_ATTEMPTS_MAX), "The same as `attempts`.", EDGE),
        Key("delay", Duration(RETRY_DELAY_S_MAX * 1_000), "The pause before the second one; a second.", EDGE),
        Key("backoff", Choice(BACKOFF), "How the pause grows.", EDGE),
    ),
)

DEAD_LETTER: Final = Block(
    "subscription.dead_letter",
    "Where messages go that failed for good, besides the log.",
    (Key("topic", Text(), "The topic they are published to.", EDGE),),
)

SUBSCRIPTION_BLOCKS: Final = (
    ROOT,
    SPEC,
    TOPIC,
    RUNTIME,
    DISPATCH,
    TABLE,
    HEADERS,
    DIRECTIVE,
    TRACE,
    DEDUP,
    LIMITS,
    SPOOL,
    DRAIN,
    RETRY,
    DEAD_LETTER,
)
