"""What a message from a peer looks like: judged at the door, so that behind it every error is our own.

Called by `edge.runtime.api.socket` for each message. Pure. Must never let through what would fail further in only by
its shape: there nobody could tell a peer's nonsense from a mistake of ours, and the one ends a connection, the other
the process.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Final

_TEXT: Final = (str,)
_NUMBER: Final = (int,)
_BYTES: Final = (bytes,)
_FLAG: Final = (bool,)
_MAYBE_TEXT: Final = (str, NoneType)
_MAYBE_BYTES: Final = (bytes, NoneType)
_MAYBE_NUMBER: Final = (int, NoneType)
_MAYBE_MAP: Final = (dict, NoneType)

#: By a message's first element, what may stand in each place behind it.
SHAPES: Final[dict[str, tuple[tuple[type, ...], ...]]] = {
    "hello": (_TEXT,),
    # token, playbook, principal, request id, form, response topic, correlation, content type, receipt, deadline ms,
    # traceparent, payload
    "submit": (
        _NUMBER, _TEXT, _TEXT, _MAYBE_TEXT, _TEXT, _MAYBE_TEXT, _MAYBE_BYTES, _MAYBE_TEXT, _FLAG, _MAYBE_NUMBER,
        _MAYBE_TEXT, _BYTES,
    ),
    # token, callback token, content type, payload
    "callback": (_NUMBER, _TEXT, _MAYBE_TEXT, _BYTES),
    # token, operation, arguments
    "call": (_NUMBER, _TEXT, (dict,)),
    "delivered": (_NUMBER,),
    # code, principal, playbook, request id
    "refusal": (_TEXT, _TEXT, _TEXT, _MAYBE_TEXT),
    "admitted": (_NUMBER,),
    # number, how, reason code
    "published": (_NUMBER, _TEXT, _NUMBER),
    # number, content type, payload
    "replied": (_NUMBER, _MAYBE_TEXT, _BYTES),
    # of subscriptions (`edge.runtime.api.subscription_door`)
    "source": (_NUMBER,),
    "attending": (_NUMBER, _MAYBE_TEXT),
    # token, number, topic, payload, content type, headers, packet, retained, again
    "message": (_NUMBER, _NUMBER, _TEXT, _BYTES, _MAYBE_TEXT, _MAYBE_MAP, _NUMBER, _FLAG, _FLAG),
    "dead_sent": (_NUMBER,),
}  # fmt: skip


def check_shape(message: list[Any]) -> None:
    """Raises ValueError where a message is of no known kind, or its parts are not what its kind has."""
    kind = message[0]
    shape = SHAPES.get(kind) if type(kind) is str else None
    if shape is None:
        raise ValueError(f"a message of unknown kind {kind!r:.60}")
    if len(message) != len(shape) + 1:
        raise ValueError(f"a {kind} of {len(message) - 1} parts, where it has {len(shape)}")
    for place, allowed in enumerate(shape, 1):
        if type(message[place]) not in allowed:
            raise ValueError(f"a {kind} whose part {place} is {type(message[place]).__name__}")
    if kind == "message" and not all(
        type(text) is str for pair in (message[6] or {}).items() for text in pair
    ):
        raise ValueError("a message with a header that is no text")
