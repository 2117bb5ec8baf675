"""The compiled form of a `kind: Subscription`: what the log keeps, the runtime works by and the gateway is told of.

Read by the runtime; made by `playbooks.subscription_compile`. Its bytes are canonical CBOR with a version of their
own, and their SHA-256 is the subscription's identity. `Subscription.decode` checks the whole shape, so that nobody
after it has to. Imports no YAML, no Jinja2, no pydantic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import decode, encode_canonical
from edge.core.limits import (
    BATCH_BYTES_MAX,
    BATCH_ROWS_MAX,
    BATCH_WAIT_MS_MAX,
    BLUEPRINT_BYTES_MAX,
    DEDUP_WINDOW_S_MAX,
    PLAYBOOK_PATH_BYTES_MAX,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_S_MAX,
    SUBSCRIPTION_BACKLOG_MAX,
    SUBSCRIPTION_COLUMNS_MAX,
    SUBSCRIPTION_IN_FLIGHT_MAX,
    SUBSCRIPTION_TOPICS_MAX,
    TIMER_EVERY_MS_MAX,
    TIMER_EVERY_MS_MIN,
)
from edge.core.records import record
from playbooks.blueprint_fields import expect, field_of, limited, one_of
from playbooks.shape import BACKOFF
from playbooks.topic_filters import filter_problem, overlaps

VERSION: Final = 1
KIND: Final = "subscription"
SOURCES: Final = ("mqtt", "timer")
ORDERINGS: Final = ("global", "per_key", "none")
#: Where the key of a lane comes from: the whole topic, one level of it (from 0), a path into the payload, a header.
KEY_KINDS: Final = ("topic", "level", "payload", "header")
MISSED: Final = ("skip", "once", "all")
PAYLOADS: Final = ("message.json", "message.body", "message.attributes")
#: The user property that names a message where no directive says which one does.
MESSAGE_ID: Final = "message-id"
CONTROLS: Final = ("dispatch.playbook", "idempotency_key", "content_type")
COLUMN_TYPES: Final = ("bool", "int64", "float64", "string", "binary", "json")


@record
class Directive:
    """A user property that may steer: what it `controls`, and the values it may have (None: any)."""

    header: str
    controls: str
    allowed: tuple[str, ...] | None


@record
class OrderingKey:
    """Where a message's ordering key is found: `kind` of KEY_KINDS, `level` from 0, `path` names."""

    kind: str
    level: int
    path: tuple[str, ...]


@record
class Subscription:
    """A compiled subscription. `digest` is SHA-256 of `data`.

    `topics` are `(filter, QoS)` of source `mqtt`; `every_ms`, `align` and `missed` belong to source `timer`. Where
    `table`, one execution takes a batch of up to `rows_max` messages or `bytes_max` bytes, whichever came within
    `wait_ms` of its first; else each message has an execution of its own. `columns` are `(name, type)` where they
    are declared. `dedup_window_s` is 0 where nothing is compared, `per_s` 0 where there is no rate. A message whose
    execution failed `attempts` times is a dead letter, sent to `dead_letter_topic` where there is one.
    """

    digest: bytes
    data: bytes
    path: str
    name: str
    source: str
    topics: tuple[tuple[str, int], ...]
    every_ms: int
    align: bool
    missed: str
    playbook: str
    payload_from: str
    table: bool
    rows_max: int
    bytes_max: int
    wait_ms: int
    columns: tuple[tuple[str, str], ...] | None
    directives: tuple[Directive, ...]
    keep: tuple[str, ...]
    trace: bool
    dedup_window_s: int
    in_flight_max: int
    per_s: int
    backlog_max: int
    ordering: str
    key: OrderingKey | None
    attempts: int
    delay_ms: int
    backoff: str
    dead_letter_topic: str | None

    @property
    def headers(self) -> tuple[str, ...]:
        """The user properties that the gateway passes on; all others stay outside."""
        named = [*self.keep, *(directive.header for directive in self.directives)]
        if self.key is not None and self.key.kind == "header":
            named.append(self.key.path[0])
        if self.trace:
            named += ("traceparent", "tracestate")
        if self.dedup_window_s:
            named.append(MESSAGE_ID)
        return tuple(dict.fromkeys(named))

    @classmethod
    def decode(cls, data: bytes) -> Subscription:
        """Read a subscription's bytes. Raises ValueError where they are not one."""
        if len(data) > BLUEPRINT_BYTES_MAX:
            raise ValueError(f"a subscription has at most {BLUEPRINT_BYTES_MAX} bytes, this has {len(data)}")
        body = decode(data)
        expect(isinstance(body, dict) and body.get("kind") == KIND, "no subscription")
        expect(body.get("version") == VERSION, "not of a version known here")
        expect(encode_canonical(body) == data, "its bytes are not canonical")
        path, name = field_of(body, "path", str), field_of(body, "name", str)
        expect(0 < len(path.encode()) <= PLAYBOOK_PATH_BYTES_MAX, "path")
        source = one_of(body, "source", SOURCES)
        ordering = one_of(body, "ordering", ORDERINGS)
        key = _key(body.get("key"))
        expect((key is not None) == (ordering == "per_key"), "key")
        timer = source == "timer"
        return cls(
            hashlib.sha256(data).digest(),
            bytes(data),
            path,
            name,
            source,
            _topics(body, source),
            limited(body, "every_ms", TIMER_EVERY_MS_MIN if timer else 0, TIMER_EVERY_MS_MAX if timer else 0),
            field_of(body, "align", bool),
            one_of(body, "missed", MISSED),
            field_of(body, "playbook", str),
            one_of(body, "payload_from", PAYLOADS),
            field_of(body, "table", bool),
            limited(body, "rows_max", 1, BATCH_ROWS_MAX),
            limited(body, "bytes_max", 1, BATCH_BYTES_MAX),
            limited(body, "wait_ms", 0, BATCH_WAIT_MS_MAX),
            _columns(body.get("columns")),
            tuple(_directive(raw) for raw in field_of(body, "directives", list)),
            _texts(body, "keep"),
            field_of(body, "trace", bool),
            limited(body, "dedup_window_s", 0, DEDUP_WINDOW_S_MAX),
            limited(body, "in_flight_max", 1, SUBSCRIPTION_IN_FLIGHT_MAX),
            limited(body, "per_s", 0, 1_000_000),
            limited(body, "backlog_max", 1, SUBSCRIPTION_BACKLOG_MAX),
            ordering,
            key,
            limited(body, "attempts", 1, RETRY_ATTEMPTS_MAX),
            limited(body, "delay_ms", 0, RETRY_DELAY_S_MAX * 1_000),
            one_of(body, "backoff", BACKOFF),
            None if body.get("dead_letter_topic") is None else field_of(body, "dead_letter_topic", str),
        )


def is_subscription(data: bytes) -> bool:
    """Whether bytes claim to be a compiled subscription and not a playbook."""
    try:
        body = decode(data)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("kind") == KIND


def encode_subscription(body: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a subscription's body, as the compiler builds it."""
    return encode_canonical({"version": VERSION, "kind": KIND, **body})


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = field_of(body, name, list)
    expect(all(type(text) is str and text for text in texts), name)
    return tuple(texts)


def _topics(body: Mapping[str, Any], source: str) -> tuple[tuple[str, int], ...]:
    raw = field_of(body, "topics", list)
    expect(len(raw) <= SUBSCRIPTION_TOPICS_MAX, "number of topics")
    expect(bool(raw) == (source == "mqtt"), "topics")
    for topic in raw:
        expect(type(topic) is list and len(topic) == 2 and type(topic[0]) is str, "topic")
        expect(not filter_problem(topic[0]) and type(topic[1]) is int and topic[1] in (0, 1), "topic")
    patterns = [topic[0] for topic in raw]
    pairs = ((one, two) for place, one in enumerate(patterns) for two in patterns[:place])
    expect(not any(overlaps(one, two) for one, two in pairs), "topics overlap")
    return tuple((topic[0], topic[1]) for topic in raw)


def _key(raw: Any) -> OrderingKey | None:
    if raw is None:
        return None
    expect(type(raw) is list and len(raw) == 3 and raw[0] in KEY_KINDS, "key")
    expect(type(raw[1]) is int and 0 <= raw[1] < 128, "key level")
    expect(type(raw[2]) is list and all(type(name) is str and name for name in raw[2]), "key path")
    expect(bool(raw[2]) == (raw[0] in ("payload", "header")), "key path")
    return OrderingKey(raw[0], raw[1], tuple(raw[2]))


def _columns(raw: Any) -> tuple[tuple[str, str], ...] | None:
    if raw is None:
        return None
    expect(type(raw) is list and 0 < len(raw) <= SUBSCRIPTION_COLUMNS_MAX, "columns")
    for column in raw:
        expect(type(column) is list and len(column) == 2 and type(column[0]) is str, "column")
        expect(column[1] in COLUMN_TYPES, f"type of column {column[0]}")
    expect(len({column[0] for column in raw}) == len(raw), "a column stands twice")
    return tuple((column[0], column[1]) for column in raw)


def _directive(raw: Any) -> Directive:
    expect(type(raw) is list and len(raw) == 3 and type(raw[0]) is str and raw[1] in CONTROLS, "directive")
    allowed = raw[2]
    if allowed is not None:
        expect(type(allowed) is list and all(type(value) is str for value in allowed), "allowed")
    expect((allowed is not None) or raw[1] != "dispatch.playbook", "allowed")
    return Directive(raw[0], raw[1], None if allowed is None else tuple(allowed))
