"""Topic filters against a reference that is too simple to be wrong."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded_broker.topics import FilterTree, matches
from gateway.mqtt.names import filter_problem, topic_problem

LEVELS = st.sampled_from(["", "a", "b", "$x", "ä", "a b"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.one_of(LEVELS, st.just("+")), min_size=0, max_size=5),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def reference(pattern: str, topic: str) -> bool:
    """MQTT 5 §4.7 as a regular expression."""
    if topic.startswith("$") and pattern[0] in "+#":
        return False
    if pattern == "#":
        return True
    tail = ""
    if pattern.endswith("/#"):
        pattern, tail = pattern[:-2], "(/.*)?"
    body = "/".join("[^/]*" if level == "+" else re.escape(level) for level in pattern.split("/"))
    return re.fullmatch(body + tail, topic, re.DOTALL) is not None


@given(FILTERS, TOPICS)
def test_one_filter(pattern: str, topic: str) -> None:
    assert filter_problem(pattern) == ""
    assert topic_problem(topic) == ""
    assert matches(pattern, topic) is reference(pattern, topic)


@given(st.lists(st.tuples(FILTERS, st.sampled_from("xyz")), max_size=20), TOPICS, st.data())
def test_the_tree(entries: list[tuple[str, str]], topic: str, data: st.DataObject) -> None:
    tree: FilterTree[str] = FilterTree()
    held: dict[tuple[str, str], str] = {}
    for pattern, owner in entries:
        assert tree.put(pattern, owner, pattern) is ((pattern, owner) not in held)
        held[pattern, owner] = pattern
    if held:
        for pattern, owner in data.draw(st.lists(st.sampled_from(sorted(held)), unique=True)):
            assert tree.remove(pattern, owner) is True
            assert tree.remove(pattern, owner) is False
            del held[pattern, owner]
    expected = sorted((owner, pattern) for pattern, owner in held if reference(pattern, topic))
    assert sorted(tree.match(topic)) == expected
    for pattern, owner in list(held):
        assert tree.remove(pattern, owner) is True
    assert tree._root.below == {}, "branches were left behind"


@given(st.text(alphabet="a/+#$\0", max_size=8))
def test_names_say_why_or_nothing(text: str) -> None:
    levels = text.split("/")
    valid = (
        text != ""
        and "\0" not in text
        and all(level == "+" or "+" not in level for level in levels)
        and all("#" not in level for level in levels[:-1])
        and (levels[-1] == "#" or "#" not in levels[-1])
    )
    assert (filter_problem(text) == "") is valid
    assert (topic_problem(text) == "") is (text != "" and not set(text) & set("+#\0"))
