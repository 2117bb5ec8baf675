"""The topic grammar: what a request's topic says, and where an answer may go."""

from __future__ import annotations

import pytest

from edge.core.errors import RequestRefused
from gateway.topics import RequestTopic, may_answer_to, parse


def test_both_forms_of_a_request_are_taken_apart() -> None:
    """The MQTT 5 form has no request id in its topic, the other one has."""
    assert parse("b", "edge/v1/b/request/ada/line/one") == RequestTopic("ada", "line/one", None)
    assert parse("b", "edge/v1/b/call/ada/r-1/line/one") == RequestTopic("ada", "line/one", "r-1")


@pytest.mark.parametrize(
    "topic",
    [
        "edge/v1/b/request/ada",
        "edge/v1/b/request//line",
        "edge/v1/b/request/ada/line//one",
        "edge/v1/b/call/ada/r-1",
        "edge/v1/other/request/ada/line",
        "edge/v1/b/status",
        "edge/v1/b/request/ada/../x",
        "",
    ],
)
def test_what_is_no_request_is_refused_by_name(topic: str) -> None:
    """A topic that lacks a level or names another box is `topic_invalid`, with how to mend it."""
    with pytest.raises(RequestRefused) as refused:
        parse("b", topic)
    assert refused.value.problem_code == "topic_invalid"
    assert refused.value.mend


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("answers/ada", True),
        ("edge/v1/b/response/ada/r-1", True),
        ("edge/v1/b/response/eve/r-1", False),
        ("edge/v1/b/request/eve/line", False),
        ("edge/v1/other/request/ada/line", False),
        ("$SYS/x", False),
        ("answers/+", False),
        ("", False),
    ],
)
def test_answers_go_only_where_the_caller_could(topic: str, allowed: bool) -> None:
    """The gateway publishes with its own rights, so a response topic must not reach further than the caller."""
    assert may_answer_to("b", "ada", topic) is allowed
