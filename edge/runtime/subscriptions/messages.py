"""A message as it arrives: what directives decide for it, and the lane that it waits in.

Called by `edge.runtime.subscriptions.reception`; what an execution takes of it is `edge.core.message_input`. Never
raises over what a message holds.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from edge.core.limits import LANE_BYTES_MAX
from edge.core.message_input import decoded
from edge.core.records import record
from playbooks.subscription import MESSAGE_ID, OrderingKey, Subscription

#: How an execution of a subscription came: nobody is answered.
FORM: Final = "subscription"


@record
class Arrived:
    """A message as the gateway hands it on; `again` says that it may have come before, as the same `packet`.

    `packet` is the broker's id of it, 0 at QoS 0.
    """

    topic: str
    payload: bytes
    content_type: str | None
    headers: dict[str, str]
    packet: int
    retain: bool
    again: bool


def directed(subscription: Subscription, headers: dict[str, str]) -> dict[str, str]:
    """What the directives decide for a message, by what they control; the last one that applies wins, as in NoETL."""
    made: dict[str, str] = {}
    for directive in subscription.directives:
        value = headers.get(directive.header)
        if value is not None and (directive.allowed is None or value in directive.allowed):
            made[directive.controls] = value
    if subscription.dedup_window_s and MESSAGE_ID in headers:
        made.setdefault("idempotency_key", headers[MESSAGE_ID])
    return made


def lane_of(
    key: OrderingKey | None, topic: str, headers: dict[str, str], content_type: str | None, payload: bytes
) -> str | None:
    """The lane a message waits in; None where it has no key, as all of those share one."""
    if key is None:
        return None
    found: Any = topic
    if key.kind == "level":
        levels = topic.split("/")
        found = levels[key.level] if key.level < len(levels) else None
    elif key.kind == "header":
        found = headers.get(key.path[0])
    elif key.kind == "payload":
        found = decoded(content_type, payload)
        for name in key.path:
            found = found.get(name) if isinstance(found, dict) else None
    if found is None or isinstance(found, (dict, list, bytes)):
        return None
    text = found if isinstance(found, str) else str(found)
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= LANE_BYTES_MAX else hashlib.blake2b(raw, digest_size=16).hexdigest()
