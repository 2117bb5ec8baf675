"""The blocks of a subscription's `spec`, each read to plain data: source, headers, dedup, ordering, retry, columns.

Called by `playbooks.subscription_compile` only. Everything notes its problem in the source and goes on.
"""

from __future__ import annotations

import re
from typing import Any, Final

from edge.core.limits import (
    DEDUP_WINDOW_S_MAX,
    PLAYBOOK_PATH_BYTES_MAX,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_S_MAX,
    SUBSCRIPTION_COLUMNS_MAX,
    SUBSCRIPTION_TOPICS_MAX,
    TIMER_EVERY_MS_MAX,
    TIMER_EVERY_MS_MIN,
)
from playbooks.fields import choice, entries, fields, flag, items, length_ms, text, whole
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model import subscription as model
from playbooks.problems import Source, allowed, suggest
from playbooks.shape import BACKOFF
from playbooks.subscription import COLUMN_TYPES, CONTROLS, MISSED, ORDERINGS, SOURCES
from playbooks.topic_filters import OWN_ROOT, covers, filter_problem, group_of, overlaps

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[\x21-\x7e]{1,128}")
_KEY_LEVEL: Final = re.compile(r"topic(?:\[([0-9]{1,2})\]|\.([0-9]{1,2}))")
_ELSEWHERE: Final = {
    "nats": "NATS is a message system of a data centre",
    "pubsub": "Pub/Sub is a service of a cloud",
    "kafka": "Kafka is a message system of a data centre",
    "webhook": "a webhook is served by NoETL's gateway in a data centre",
}
#: What `dedup: {enabled: true}` means in NoETL.
_WINDOW_S: Final = 300
_RESERVED: Final = ("_topic", "_seq", "_received_ns", "_problem")


# ---- source ----------------------------------------------------------------------------------------------


def read_source(source: Source, block: Marked, spec: dict[str, Marked]) -> dict[str, Any]:
    """Where messages come from."""
    made: dict[str, Any] = {"source": "mqtt", "topics": [], "every_ms": 0, "align": False, "missed": "once"}
    node = spec.get("source")
    kind = text(source, node, "`source`")
    if node is None:
        mend = "Add `source: mqtt` with `topics`, or `source: timer` with `every`."
        source.refuse(block.start, "The subscription has no source.", mend)
    elif kind in _ELSEWHERE:
        mend = "Let a bridge there publish to this box's broker, and write `source: mqtt`."
        source.refuse(node.start, f"`source: {kind}` is not for a box: {_ELSEWHERE[kind]}.", mend)
    elif kind is not None and kind not in SOURCES:
        mend = allowed(SOURCES)
        source.refuse(node.start, f"`source` cannot be {kind!r:.80}.{suggest(kind, SOURCES)}", mend)
    elif kind is not None:
        made["source"] = kind
        own = ("topics", "qos") if kind == "mqtt" else ("every", "align", "missed")
        for key in ("topics", "qos", "every", "align", "missed"):
            if key in spec and key not in own:
                source.refuse(spec[key].start, f"`{key}` means nothing for `source: {kind}`.", "Take it out.")
        made.update(_mqtt(source, node, spec) if kind == "mqtt" else _timer(source, node, spec))
    return made


def _timer(source: Source, node: Marked, spec: dict[str, Marked]) -> dict[str, Any]:
    every = spec.get("every")
    if every is None:
        source.refuse(node.start, "The timer does not say how often it ticks.", "Add `every: 10s`.")
    ms = length_ms(source, every, "`every`", TIMER_EVERY_MS_MAX, least_ms=TIMER_EVERY_MS_MIN)
    align = flag(source, spec.get("align"), "`align`") or False
    missed = choice(source, spec.get("missed"), "`missed`", MISSED) or "once"
    return {"every_ms": ms or TIMER_EVERY_MS_MIN, "align": align, "missed": missed}


def _mqtt(source: Source, node: Marked, spec: dict[str, Marked]) -> dict[str, Any]:
    listed = spec.get("topics")
    if listed is None:
        mend = "Add `topics: [plant/+/temperature]`."
        source.refuse(node.start, "The subscription names no topics.", mend)
    default = whole(source, spec.get("qos"), "`qos`", 0, 1)
    default = 1 if default is None else default
    found: list[tuple[str, int, Marked]] = []
    nodes = (listed,) if isinstance(listed, Scalar) else items(source, listed, "`topics`")
    if listed is not None and not nodes:
        source.refuse(listed.start, "The list of topics is empty.", "Name a topic.")
    for each in nodes:
        topic = _topic(source, each, default)
        if topic is not None:
            found.append((*topic, each))
    if len(found) > SUBSCRIPTION_TOPICS_MAX:
        message = f"A subscription has at most {SUBSCRIPTION_TOPICS_MAX} topics."
        source.refuse(found[SUBSCRIPTION_TOPICS_MAX][2].start, message, "Use wildcards, or split it.")
    return {"topics": _apart(source, found)}


def _topic(source: Source, node: Marked, default: int) -> tuple[str, int] | None:
    qos: int | None = default
    if isinstance(node, Mapping_):
        found = fields(source, node, "A topic", model.TOPIC)
        given = whole(source, found.get("qos"), "`qos`", 0, 1)
        qos = default if given is None else given
        inner = found.get("filter") or found.get("topic")
        if inner is None:
            source.refuse(node.start, "The topic has no `filter`.", "Write `{filter: a/+/b, qos: 1}`.")
            return None
        node = inner
    pattern = text(source, node, "A topic filter")
    if pattern is None:
        return None
    if problem := filter_problem(pattern):
        source.refuse(node.start, f"{pattern!r:.80} is no topic filter: {problem}.", "Correct it.")
        return None
    if overlaps(pattern, OWN_ROOT):
        message = f"{pattern!r:.80} takes in the box's own topics below edge/v1: requests would run twice."
        source.refuse(node.start, message, "Name the topics you mean, such as plant/#.")
        return None
    assert qos is not None
    return pattern, qos


def _apart(source: Source, found: list[tuple[str, int, Marked]]) -> list[list[Any]]:
    """The filters without those that others cover; two that merely overlap would bring a message twice."""
    kept: list[tuple[str, int, Marked]] = []
    for pattern, qos, node in found:
        mine = [each for each in kept if group_of(each[0]) == group_of(pattern)]
        wider = next((each for each in mine if covers(each[0], pattern)), None)
        if wider is not None:
            place = kept.index(wider)
            kept[place] = (wider[0], max(wider[1], qos), wider[2])
            continue
        narrower = [each for each in mine if covers(pattern, each[0])]
        kept = [each for each in kept if each not in narrower]
        other = next((each for each in kept if overlaps(each[0], pattern)), None)
        if other is not None:
            message = (
                f"{pattern!r:.80} and {other[0]!r:.80} can match one topic: its messages would come twice."
            )
            source.refuse(node.start, message, "Use one filter that covers both, or two subscriptions.")
        kept.append((pattern, max([qos, *(each[1] for each in narrower)]), node))
    return [[pattern, qos] for pattern, qos, _ in kept]


# ---- headers, dedup ----------------------------------------------------------------------------------------


def read_headers(source: Source, node: Marked | None) -> dict[str, Any]:
    """Which user properties pass, and which of them steer."""
    found = fields(source, node, "`headers`", model.HEADERS)
    trace = fields(source, found.get("trace"), "`trace`", model.TRACE)
    propagate = choice(source, trace.get("propagate"), "`propagate`", ("none", "w3c"))
    keep = [_header(source, each) for each in items(source, found.get("keep"), "`keep`")]
    made = [_directive(source, each) for each in items(source, found.get("directives"), "`directives`")]
    directives = [each for each in made if each is not None]
    return {"directives": directives, "keep": [name for name in keep if name], "trace": propagate == "w3c"}


def _header(source: Source, node: Marked | None) -> str | None:
    name = text(source, node, "A user property's name")
    if name is not None and node is not None and not _HEADER.fullmatch(name):
        source.refuse(node.start, f"{name!r:.80} cannot be a user property's name.", "Use plain letters.")
        return None
    return name


def _directive(source: Source, node: Marked) -> list[Any] | None:
    found = fields(source, node, "A directive", model.DIRECTIVE)
    header, controls = _header(source, found.get("header")), text(source, found.get("controls"), "`controls`")
    for key in ("header", "controls"):
        if isinstance(node, Mapping_) and key not in found:
            source.refuse(node.start, f"The directive has no `{key}`.", f"Add `{key}:`.")
    values = [
        text(source, each, "An allowed value") for each in items(source, found.get("allowed"), "`allowed`")
    ]
    if header is None or controls is None:
        return None
    at = found["controls"].start
    if controls in ("priority", "dispatch.execution_pool"):
        source.refuse(
            at, f"`controls: {controls}` chooses a pool of workers: {model.POOLS}", allowed(CONTROLS)
        )
    elif controls == "schema_hint":
        mend = "Declare the columns under `table.columns`."
        source.refuse(at, "`controls: schema_hint` is not used here.", mend)
    elif controls not in CONTROLS:
        source.refuse(
            at, f"`controls` cannot be {controls!r:.80}.{suggest(controls, CONTROLS)}", allowed(CONTROLS)
        )
    elif controls == "dispatch.playbook" and not values:
        mend = "Add `allowed: [path/of/a/playbook]`."
        source.refuse(at, "A message may choose only among named playbooks, and none is named.", mend)
    else:
        return [header, controls, [value for value in values if value] if "allowed" in found else None]
    return None


def read_dedup(source: Source, node: Marked | None) -> dict[str, Any]:
    """How long a message's id is remembered; only where it is enabled, as in NoETL."""
    found = fields(source, node, "`dedup`", model.DEDUP)
    enabled = flag(source, found.get("enabled"), "`enabled`") or False
    window = whole(source, found.get("window_secs"), "`window_secs`", 1, DEDUP_WINDOW_S_MAX)
    return {"dedup_window_s": (window or _WINDOW_S) if enabled else 0}


# ---- ordering, retry, dead letters, columns -----------------------------------------------------------------


def read_ordering(source: Source, spec: dict[str, Marked]) -> dict[str, Any]:
    """What waits for what. NoETL keeps it under `spool`, where the log stands here; both places are read."""
    spool = _spool(source, spec.get("spool"))
    node = spec.get("ordering") or spool.get("ordering")
    key_node = spec.get("ordering_key") or spool.get("ordering_key")
    said = choice(source, node, "`ordering`", ORDERINGS)
    key = _key(source, key_node) if key_node is not None else None
    if said == "per_key" and key_node is None:
        assert node is not None
        mend = "Add `ordering_key: topic`, `topic[1]`, `device_id` (of the payload) or `header.NAME`."
        source.refuse(node.start, "`ordering: per_key` does not say what the key is.", mend)
    if said in ("global", "none") and key_node is not None:
        source.refuse(key_node.start, f"`ordering: {said}` has no keys.", "Take it out, or say per_key.")
    # NoETL's default is per_key; where no key is named, nothing tells messages apart, and that is one order for all.
    ordering = said or ("per_key" if key_node is not None else "global")
    return {"ordering": ordering, "key": key if ordering == "per_key" else None}


def _spool(source: Source, node: Marked | None) -> dict[str, Marked]:
    found = fields(source, node, "`spool`", model.SPOOL)
    mode = text(source, found.get("mode"), "`mode`")
    if mode == "off":
        message = "The spool cannot be turned off: every message is in the log before it is acknowledged."
        source.refuse(found["mode"].start, message, "Take `mode` out.")
    else:
        choice(source, found.get("mode"), "`mode`", ("buffer_and_ack", "hybrid"))
    return found


def _key(source: Source, node: Marked) -> list[Any] | None:
    name = text(source, node, "`ordering_key`")
    if name is None:
        return None
    if name == "topic":
        return ["topic", 0, []]
    if match := _KEY_LEVEL.fullmatch(name):
        return ["level", int(match[1] or match[2]), []]
    kind, _, rest = name.partition(".")
    if kind in ("header", "headers") and _HEADER.fullmatch(rest):
        return ["header", 0, [rest]]
    path = (rest if kind == "payload" and rest else name).split(".")
    if all(_NAME.fullmatch(part) for part in path):
        return ["payload", 0, path]
    mend = "Write topic, topic[1], a path into the payload such as device_id, or header.NAME."
    source.refuse(node.start, f"{name!r:.80} cannot be an ordering key.", mend)
    return None


def read_retry(source: Source, spec: dict[str, Marked]) -> dict[str, Any]:
    """How often a failed batch runs again; NoETL's `spool.drain.max_replay_attempts` says the same."""
    spool = {key.value: value for key, value in entries(source, spec.get("spool"), "`spool`")}
    drain = fields(source, spool.get("drain"), "`drain`", model.DRAIN)
    if text(source, drain.get("on_recovery"), "`on_recovery`") == "interleave":
        message = "What waited longest goes first here."
        source.refuse(drain["on_recovery"].start, message, "Take `on_recovery` out.")
    else:
        choice(source, drain.get("on_recovery"), "`on_recovery`", ("ordered_then_live",))
    found = fields(source, spec.get("retry"), "`retry`", model.RETRY)
    replays = whole(source, drain.get("max_replay_attempts"), "`max_replay_attempts`", 1, RETRY_ATTEMPTS_MAX)
    node = found.get("attempts") or found.get("max_attempts")
    attempts = whole(source, node, "`attempts`", 1, RETRY_ATTEMPTS_MAX)
    delay = length_ms(source, found.get("delay"), "`delay`", RETRY_DELAY_S_MAX * 1_000, least_ms=0)
    return {
        "attempts": attempts or replays or 1,
        "delay_ms": 1_000 if delay is None else delay,
        "backoff": choice(source, found.get("backoff"), "`backoff`", BACKOFF) or "none",
    }


def read_dead_letter(source: Source, node: Marked | None) -> dict[str, Any]:
    """Where a message goes that nothing could be done with, besides the log."""
    found = fields(source, node, "`dead_letter`", model.DEAD_LETTER)
    topic = text(source, found.get("topic"), "`topic`")
    if topic is not None:
        wild = any(sign in topic for sign in "+#") or topic.startswith("$") or bool(filter_problem(topic))
        if wild or overlaps(topic, OWN_ROOT) or len(topic) > PLAYBOOK_PATH_BYTES_MAX:
            mend = "Use a plain topic outside of edge/v1 and $."
            source.refuse(found["topic"].start, f"{topic!r:.80} cannot be published to.", mend)
    return {"dead_letter_topic": topic}


def read_columns(source: Source, node: Marked | None) -> list[list[str]] | None:
    """The declared columns of a batch's table, None where they are taken from the messages."""
    found = fields(source, node, "`table`", model.TABLE)
    columns: list[list[str]] = []
    for key, value in entries(source, found.get("columns"), "`columns`"):
        kind = text(source, value, "A column's type")
        if key.value in _RESERVED:
            source.refuse(key.start, f"The column {key.value!r} is made by the box.", "Rename yours.")
        elif kind is not None and kind not in COLUMN_TYPES:
            mend = allowed(COLUMN_TYPES)
            source.refuse(value.start, f"There is no type {kind!r:.80}.{suggest(kind, COLUMN_TYPES)}", mend)
        elif kind is not None:
            columns.append([key.value, kind])
    if len(columns) > SUBSCRIPTION_COLUMNS_MAX:
        assert node is not None
        source.refuse(node.start, f"A table has at most {SUBSCRIPTION_COLUMNS_MAX} columns.", "Keep fewer.")
    return columns or None
