"""`kind: Subscription`: what it compiles to, what is refused, and where the mistake is said to stand."""

from __future__ import annotations

import pytest

from edge.core.codec import decode
from playbooks.blueprint import Blueprint
from playbooks.documents import compile_document
from playbooks.problems import PlaybookRefused, Problem
from playbooks.subscription import OrderingKey, Subscription, encode_subscription, is_subscription
from playbooks.topic_filters import covers, overlaps

HEAD = "apiVersion: noetl.io/v2\nkind: Subscription\nmetadata: {name: s, path: in/s}\n"
MQTT = HEAD + "spec:\n  source: mqtt\n  topics: [plant/+/t]\n  dispatch: {playbook: a/p}\n"
BATCHES = MQTT.replace("a/p}", "a/p, batch_dispatch: true}")
TIMER = HEAD + "spec:\n  source: timer\n  every: 10s\n  dispatch: {playbook: a/p}\n"


def refused(source: str) -> list[Problem]:
    """What is wrong with a source."""
    with pytest.raises(PlaybookRefused) as caught:
        compile_document(source.encode(), "s.yaml")
    return caught.value.problems


def compiled(source: str) -> Subscription:
    """The compiled form of a source that is one."""
    made = compile_document(source.encode(), "s.yaml")
    assert isinstance(made, Subscription)
    return made


def test_defaults_are_noetls() -> None:
    """Without a word about them: one execution per message, the decoded payload as its input, one order, no retry."""
    made = compiled(MQTT)
    assert (made.table, made.rows_max, made.payload_from) == (False, 1, "message.json")
    assert (made.ordering, made.key, made.in_flight_max, made.attempts) == ("global", None, 1, 1)
    assert (made.dedup_window_s, made.per_s, made.headers) == (0, 0, ())
    assert made.topics == (("plant/+/t", 1),)


def test_a_published_subscription_with_another_source_compiles() -> None:
    """NoETL's own words for batches, headers, dedup, limits and the spool mean here what they mean there."""
    made = compiled(
        MQTT.replace("noetl.io/v2", "noetl.io/v1").replace(
            "  dispatch: {playbook: a/p}\n",
            """\
  mode: pull
  activation: continuous
  runtime: {batch: 500, timeout_ms: 3000}
  dispatch: {playbook: a/p, batch_dispatch: true, batch_max: 100}
  headers:
    directives:
      - {header: x-route, controls: dispatch.playbook, allowed: [a/p, a/q]}
      - {header: x-id, controls: idempotency_key}
    trace: {propagate: w3c}
  dedup: {enabled: true, window_secs: 600}
  limits: {max_in_flight: 10, max_dispatch_per_sec: 200}
  spool:
    mode: buffer_and_ack
    ordering: per_key
    ordering_key: device_id
    drain: {max_replay_attempts: 4, on_recovery: ordered_then_live}
""",
        )
    )
    assert (made.table, made.rows_max, made.wait_ms) == (True, 100, 3000)
    assert made.headers == ("x-route", "x-id", "traceparent", "tracestate", "message-id")
    assert (made.dedup_window_s, made.in_flight_max, made.per_s, made.attempts) == (600, 10, 200, 4)
    assert (made.ordering, made.key) == ("per_key", OrderingKey("payload", 0, ("device_id",)))


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("topic", OrderingKey("topic", 0, ())),
        ("topic[1]", OrderingKey("level", 1, ())),
        ("topic.2", OrderingKey("level", 2, ())),
        ("header.x-device", OrderingKey("header", 0, ("x-device",))),
        ("payload.device.id", OrderingKey("payload", 0, ("device", "id"))),
        ("device.id", OrderingKey("payload", 0, ("device", "id"))),
    ],
)
def test_an_ordering_key_comes_from_the_topic_the_payload_or_a_header(written: str, key: OrderingKey) -> None:
    """A key alone says that order holds for each key."""
    made = compiled(MQTT + f"  ordering_key: '{written}'\n")
    assert (made.ordering, made.key) == ("per_key", key)


def test_a_timer_says_how_often_and_what_of_missed_ticks() -> None:
    """`once` is what happens to missed ticks where nothing is said."""
    made = compiled(TIMER)
    assert (made.source, made.every_ms, made.align, made.missed) == ("timer", 10_000, False, "once")
    assert compiled(TIMER + "  align: true\n  missed: all\n").missed == "all"


def test_filters_that_others_cover_are_left_out() -> None:
    """The broker is asked for no topic twice; the higher QoS stays."""
    made = compiled(MQTT.replace("[plant/+/t]", "[{filter: plant/#, qos: 0}, plant/a/t, other/x]"))
    assert made.topics == (("plant/#", 1), ("other/x", 1))


def marked(source: str) -> tuple[str, int, int]:
    """The source without its `¶`, and the line and column where that stood."""
    before, _, after = source.partition("¶")
    return before + after, before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HEAD + "spec:\n  source: ¶kafka\n  dispatch: {playbook: p}\n", "message system of a data centre"),
        (HEAD + "spec:\n  source: ¶nats\n  dispatch: {playbook: p}\n", "source: nats"),
        (HEAD + "spec:\n  source: ¶pubsub\n  dispatch: {playbook: p}\n", "service of a cloud"),
        (HEAD + "spec:\n  source: ¶webhook\n  dispatch: {playbook: p}\n", "gateway in a data centre"),
        (HEAD + "spec:\n  source: ¶mqt\n  dispatch: {playbook: p}\n", "Did you mean 'mqtt'"),
        (HEAD + "spec:\n  ¶topics: [a]\n  dispatch: {playbook: p}\n", "no source"),
        (HEAD + "spec:\n  source: ¶mqtt\n  dispatch: {playbook: p}\n", "names no topics"),
        (HEAD + "spec:\n  source: mqtt\n  topics: ¶[]\n  dispatch: {playbook: p}\n", "list of topics is empty"),
        (HEAD + "spec:\n  ¶source: mqtt\n  topics: [a]\n", "names no playbook"),
        (MQTT + "  mode: ¶push\n", "is a webhook"),
        (MQTT + "  activation: ¶scheduled\n", "source: timer"),
        (MQTT + "  ¶auth: alias\n", "the box's own"),
        (MQTT + "  ¶ingress: {}\n", "over HTTP"),
        (MQTT + "  ¶stream: S\n", "in a data centre"),
        (MQTT + "  every: ¶5s\n", "means nothing for `source: mqtt`"),
        (MQTT + "  ¶workflow: []\n", "cannot have the key 'workflow'"),
        (HEAD + "¶workflow: []\nspec: {source: mqtt, topics: [a], dispatch: {playbook: p}}\n", "names the playbook"),
        (MQTT.replace("plant/+/t", "¶a/#/b"), "alone in the last level"),
        (MQTT.replace("plant/+/t", "¶a+/b"), "alone in its level"),
        (MQTT.replace("plant/+/t", "¶'#'"), "requests would run twice"),
        (MQTT.replace("plant/+/t", "¶edge/+/box/status"), "requests would run twice"),
        (MQTT.replace("plant/+/t", "¶$share/g/+/v1/#"), "requests would run twice"),
        (MQTT.replace("plant/+/t", "plant/+/t, ¶plant/a/+"), "would come twice"),
        (MQTT.replace("plant/+/t", "plant/#, ¶$share/g/plant/a"), "would come twice"),
        (MQTT.replace("plant/+/t", "{filter: a, qos: ¶2}"), "0 to 1"),
        (MQTT.replace("a/p}", "a/p, ¶execution_pool: iot}"), "one pool of workers"),
        (MQTT.replace("a/p}", "a/p, batch_dispatch: true, payload_from: ¶message.body}"), "A batch is a table"),
        (MQTT + "  table: ¶{columns: {a: int64}}\n", "makes none"),
        (BATCHES + "  table: {columns: {¶_seq: int64}}\n", "made by the box"),
        (BATCHES + "  table: {columns: {a: ¶int}}\n", "Did you mean 'int64'"),
        (MQTT + "  headers: {directives: [{header: h, controls: ¶priority}]}\n", "one pool of workers"),
        (MQTT + "  headers: {directives: [{header: h, controls: ¶dispatch.playbook}]}\n", "none is named"),
        (MQTT + "  headers: {directives: [{header: h, controls: ¶schema_hint}]}\n", "not used here"),
        (MQTT + "  headers: {¶passthrough: data}\n", "only what is named passes"),
        (MQTT + "  spool: {¶backend: s3}\n", "the event log is the spool"),
        (MQTT + "  spool: {mode: ¶off}\n", "cannot be turned off"),
        (MQTT + "  spool: {¶circuit: {}}\n", "belongs to the tool"),
        (MQTT + "  spool: {drain: {on_recovery: ¶interleave}}\n", "waited longest"),
        (MQTT + "  ordering: ¶per_key\n", "does not say what the key is"),
        (MQTT + "  ordering: none\n  ordering_key: ¶topic\n", "has no keys"),
        (MQTT + "  ordering_key: ¶'topic[x]'\n", "cannot be an ordering key"),
        (MQTT + "  limits: {max_in_flight: ¶4}\n", "one execution at a time"),
        (MQTT + "  dead_letter: {topic: ¶a/#}\n", "cannot be published to"),
        (MQTT + "  dead_letter: {topic: ¶edge/v1/box/request/x}\n", "cannot be published to"),
        (MQTT + "  retry: {attempts: ¶0}\n", "1 to 100"),
        (TIMER.replace("10s", "¶1ms"), "100 ms to"),
        (TIMER.replace("10s", "¶often"), "length of time"),
        (TIMER + "  ¶cron: '* * * * *'\n", "NoETL has none"),
        (TIMER + "  headers: ¶{}\n", "means nothing for a timer"),
        (TIMER.replace("a/p}", "a/p, batch_dispatch: ¶true}"), "execution of its own"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_where_it_stands(source: str, said: str) -> None:
    """Each mistake is one problem with its place; what one box cannot do is named, not dropped."""
    text, line, column = marked(source)
    problems = refused(text)
    assert [(problem.line, problem.column) for problem in problems] == [(line, column)], problems
    assert said in str(problems[0])


def test_every_mistake_is_found_in_one_run() -> None:
    """Mistakes in several blocks are all said at once, in order."""
    source = MQTT + "  auth: x\n  mode: push\n  spool: {bucket: b}\n"
    assert [problem.line for problem in refused(source)] == [8, 9, 10]


def test_a_playbook_is_still_a_playbook() -> None:
    """The same command takes both kinds; only a file that says so is a subscription."""
    source = HEAD.replace("Subscription", "Playbook") + "workflow: [{step: a, next: []}]\n"
    made = compile_document(source.encode(), "p.yaml")
    assert isinstance(made, Blueprint)
    assert not is_subscription(made.data)
    assert "Allowed: Playbook" in str(refused(source.replace("Playbook", "Other"))[0])


def test_what_was_compiled_reads_back_to_the_same() -> None:
    """The bytes are canonical, and a change in them is refused."""
    made = compiled(MQTT + "  ordering_key: topic\n")
    assert Subscription.decode(made.data) == made
    assert is_subscription(made.data)
    body = decode(made.data)
    assert isinstance(body, dict)
    for key, value in [
        ("source", "kafka"),
        ("topics", [["#/a", 1]]),
        ("key", None),
        ("rows_max", 0),
        ("version", 2),
    ]:
        fields = {name: known for name, known in body.items() if name not in ("version", "kind")}
        with pytest.raises(ValueError, match="not a blueprint"):
            Subscription.decode(encode_subscription({**fields, key: value}))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a/b", "a/b", True),
        ("a/+", "+/b", True),
        ("a/#", "a", True),
        ("a/#", "b/#", False),
        ("a/+/c", "a/b", False),
        ("+/b", "$SYS/b", False),
        ("#", "$SYS/#", False),
        ("$share/g/a/#", "a/b", True),
    ],
)
def test_filters_overlap_where_one_topic_matches_both(one: str, other: str, *, same: bool) -> None:
    """The comparison is symmetric."""
    assert overlaps(one, other) is overlaps(other, one) is same


def test_a_filter_covers_what_it_matches_at_least() -> None:
    """Covering is what matching is for filters."""
    assert covers("a/#", "a/+/c")
    assert covers("a/+", "a/b")
    assert not covers("a/+", "a/#")
    assert not covers("+/x", "$SYS/x")
    assert covers("a/#", "a")
    assert covers("a/+/c", "a/b/c")
    assert not covers("a/+", "a/b/c")
