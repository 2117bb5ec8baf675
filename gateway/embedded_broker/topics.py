"""Which subscriptions a topic reaches: one tree of filters. Pure.

Owned by `broker.EmbeddedBroker`. Must never be asked about a filter or a topic that `gateway.mqtt.names` calls
invalid; walks as deep as a topic has levels, without recursion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: Shared subscriptions begin with this (MQTT 5 §4.8.2); the broker refuses them.
SHARED_PREFIX = "$share/"


def matches(pattern: str, topic: str) -> bool:
    """True where the filter covers the topic (MQTT 5 §4.7)."""
    # A wildcard in the first level does not reach topics of the server's own, §4.7.2.
    if topic.startswith("$") and pattern[0] in "#+":
        return False
    wanted, levels = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True  # the parent level too, §4.7.1.2: "sport/#" covers "sport"
        if place == len(levels):
            return False
        if level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels) or wanted[len(levels) :] == ["#"]


class _Node(Generic[Value]):
    __slots__ = ("below", "held")

    def __init__(self) -> None:
        self.below: dict[str, _Node[Value]] = {}
        #: owner → value
        self.held: dict[str, Value] = {}


class FilterTree(Generic[Value]):
    """Values held under (filter, owner)."""

    def __init__(self) -> None:
        self._root: _Node[Value] = _Node()

    def put(self, pattern: str, owner: str, value: Value) -> bool:
        """Hold `value`; True where (pattern, owner) held none before."""
        node = self._root
        for level in pattern.split("/"):
            node = node.below.setdefault(level, _Node())
        new = owner not in node.held
        node.held[owner] = value
        return new

    def remove(self, pattern: str, owner: str) -> bool:
        """Forget (pattern, owner) and the branches that nothing needs any more; False where unknown."""
        path = [self._root]
        levels = pattern.split("/")
        for level in levels:
            below = path[-1].below.get(level)
            if below is None:
                return False
            path.append(below)
        if path[-1].held.pop(owner, None) is None:
            return False
        for place in range(len(levels), 0, -1):
            if path[place].held or path[place].below:
                break
            del path[place - 1].below[levels[place - 1]]
        return True

    def match(self, topic: str) -> Iterator[tuple[str, Value]]:
        """Every (owner, value) whose filter covers the topic; an owner once per filter."""
        levels = topic.split("/")
        own = topic.startswith("$")
        # (node, levels of the topic already matched)
        todo: list[tuple[_Node[Value], int]] = [(self._root, 0)]
        while todo:
            node, place = todo.pop()
            wildcards = place > 0 or not own
            if wildcards and (rest := node.below.get("#")) is not None:
                yield from rest.held.items()
            if place == len(levels):
                yield from node.held.items()
                continue
            if wildcards and (single := node.below.get("+")) is not None:
                todo.append((single, place + 1))
            if (exact := node.below.get(levels[place])) is not None:
                todo.append((exact, place + 1))
