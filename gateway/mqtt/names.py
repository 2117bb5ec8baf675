"""What MQTT allows as a topic name and as a topic filter (MQTT 5 §4.7). Pure.

Called by the sessions before they send and by the embedded broker on what it receives. Must never raise:
names come from outside, and an invalid one sent on would end our own connection.
"""

from __future__ import annotations

import re

from edge.core.limits import TOPIC_BYTES_MAX

_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
#: MQTT 5 §1.5.4 forbids NUL and lets a receiver end the connection for the others; mosquitto does.
_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NONCHARACTERS}]")


def topic_problem(topic: str) -> str:
    """Why `topic` cannot be published to, or an empty string where it can (MQTT 5 §3.3.2.1, §4.7.3)."""
    if not topic:
        return "it is empty"
    if "#" in topic or "+" in topic:
        return "it holds a wildcard"
    return text_problem(topic)


def filter_problem(pattern: str) -> str:
    """Why `pattern` cannot be subscribed to, or an empty string where it can (MQTT 5 §4.7.1)."""
    if not pattern:
        return "it is empty"
    levels = pattern.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "# is not alone in the last level"
    if any("+" in level and level != "+" for level in levels):
        return "+ is not alone in its level"
    return text_problem(pattern)


def text_problem(text: str) -> str:
    """Why `text` cannot be an MQTT string, or an empty string where it can (MQTT 5 §1.5.4)."""
    if text.isascii():
        if not text.isprintable():
            return "it holds a control character"
        return "" if len(text) <= TOPIC_BYTES_MAX else "it is longer than 65,535 bytes"
    if _UNSAFE.search(text):
        return "it holds a control character or a code point that is no character"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return "" if size <= TOPIC_BYTES_MAX else "it is longer than 65,535 bytes"
