"""The kind `mqtt`: publish to a granted topic, or ask there and take the answer.

Called through `playbooks.kinds`. A hosted task: the worker evaluates its parts, the runtime and the gateway carry it
out (`edge.runtime.downstreams.mqtt`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.access import Access
from edge.core.limits import STEP_TIMEOUT_MS, STEP_TIMEOUT_MS_MAX
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, flag, text, timeout_ms, whole
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.parts import (
    EDGE,
    AnyOf,
    Block,
    Choice,
    Duration,
    Flag,
    Key,
    MapOf,
    Template,
    Text,
    Tree,
    Whole,
)
from playbooks.problems import Source
from playbooks.templates import compile_tree, has_template

ACTIONS: Final = ("publish", "request")
_MQTT: Final = Block(
    "mqtt",
    "Publishes a message, or asks by one and takes the answer; its topic is granted under `access.topics`.",
    (
        Key("action", Choice(ACTIONS), "Publishes by itself; a `request` waits for the answer to it.", EDGE),
        Key("topic", Template(), "Where to.", EDGE, required=True),
        Key("payload", Tree(), "A text or bytes as they are, anything else as JSON, or as CBOR.", EDGE),
        Key("qos", Whole(0, 1), "By itself 1: the broker has it when the task is done.", EDGE),
        Key("retain", Flag(), "Whether the broker keeps it for who comes later.", EDGE),
        Key("properties", AnyOf((MapOf(Tree()), Template())), "User properties; null leaves one out.", EDGE),
        Key("content_type", Text(), "What the payload is; `application/cbor` makes it CBOR.", EDGE),
        Key(
            "timeout",
            Duration(STEP_TIMEOUT_MS_MAX),
            "Until the broker has it, or the answer is here: 30 s.",
            EDGE,
        ),
    ),
)


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    topic = found.get("topic")
    if topic is None:
        source.refuse(tool.start, "An mqtt tool needs `topic`.", "Write topic: site/door/state.")
    elif not isinstance(topic, Scalar) or not isinstance(topic.value, str) or not topic.value:
        source.refuse(topic.start, "`topic` must be a text.", "Quote it.")
    action = choice(source, found.get("action"), "`action`", ACTIONS) or "publish"
    qos = whole(source, found.get("qos"), "`qos`", 0, 1)
    retain = flag(source, found.get("retain"), "`retain`")
    if retain and action == "request":
        source.refuse(found["retain"].start, "A request is not retained.", "Take `retain` out.")
    tree: NodeList = ["dict"]
    for key in ("topic", "payload", "properties"):
        if key in found:
            tree += [key, compile_tree(source, found[key], resolve)]
    return {
        "action": action,
        "message": tree,
        "qos": 1 if qos is None else qos,
        "retain": bool(retain),
        "content_type": text(source, found.get("content_type"), "`content_type`"),
        "timeout_ms": timeout_ms(source, found.get("timeout")) or STEP_TIMEOUT_MS,
    }


def _natural(config: Mapping[str, Any]) -> str:
    return "write"


def _check(source: Source, found: dict[str, Marked], tool: Mapping_, access: Access) -> None:
    """The topic is granted, as far as it is written out."""
    node = found.get("topic")
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        return
    written = not has_template(node.value)
    if access.may_publish(node.value) if written else access.topics:
        return
    pattern = node.value if written else "site/#"
    mend = f'Grant it in the step: spec: {{policy: {{access: {{topics: ["{pattern}"]}}}}}}.'
    source.refuse(node.start, "The topic of this message is not granted.", mend)


MQTT: Final = Kind(_MQTT, _read, effects=("write", "read"), natural=_natural, check=_check)
