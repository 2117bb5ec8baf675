"""Topic filters of MQTT, compared: what one may look like, whether two of them can match the same topic. Pure.

Used where subscriptions are compiled and where their blueprints are read. Imports nothing that a daemon must not
load.
"""

from __future__ import annotations

import re
from typing import Final

#: Below this everything belongs to the box itself: requests, calls, answers, status.
OWN_ROOT: Final = "edge/v1/#"
SHARED: Final = "$share/"
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_FILTER_BYTES_MAX: Final = 1_024


def filter_problem(pattern: str) -> str:
    """Why a pattern is no topic filter, or an empty string where it is one (MQTT 5 §4.7.1, §4.8.2)."""
    if len(pattern.encode("utf-8", "replace")) > _FILTER_BYTES_MAX:
        return f"it is longer than {_FILTER_BYTES_MAX} bytes"
    if pattern.startswith(SHARED):
        group, slash, pattern = pattern[len(SHARED) :].partition("/")
        if not group or not slash or "+" in group or "#" in group:
            return "a shared subscription is $share/GROUP/FILTER, with a group without wildcards"
    if not pattern:
        return "it is empty"
    levels = pattern.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "# must stand alone in the last level"
    if any("+" in level and level != "+" for level in levels):
        return "+ must stand alone in its level"
    return "it holds a control character" if _UNSAFE.search(pattern) else ""


def topic_of(pattern: str) -> str:
    """The filter itself, without the group of a shared subscription."""
    return pattern[len(SHARED) :].partition("/")[2] if pattern.startswith(SHARED) else pattern


def overlaps(one: str, other: str) -> bool:
    """Whether some topic matches both filters."""
    mine, theirs = topic_of(one).split("/"), topic_of(other).split("/")
    if _own_of_broker(mine) != _own_of_broker(theirs) and "$" in (mine[0][:1], theirs[0][:1]):
        return False  # a wildcard in the first level does not match $SYS and its kin (§4.7.2)
    while mine and theirs:
        a, b = mine[0], theirs[0]
        if a == "#" or b == "#":
            return True
        if a != b and "+" not in (a, b):
            return False
        mine, theirs = mine[1:], theirs[1:]
    # "a/#" matches "a" too.
    return mine in ([], ["#"]) and theirs in ([], ["#"])


def group_of(pattern: str) -> str:
    """The group of a shared subscription, empty where it is none."""
    return pattern[len(SHARED) :].partition("/")[0] if pattern.startswith(SHARED) else ""


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that matches `narrow` matches `wide`."""
    big, small = topic_of(wide).split("/"), topic_of(narrow).split("/")
    if _own_of_broker(small) and big[0] in ("#", "+"):
        return False
    while big:
        if big[0] == "#":
            return True
        if not small or small[0] == "#" or (big[0] != small[0] and big[0] != "+"):
            return False
        big, small = big[1:], small[1:]
    return not small


def _own_of_broker(levels: list[str]) -> bool:
    return levels[0].startswith("$")
