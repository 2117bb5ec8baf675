"""Callback tokens: what one stands for, how it is made and read, and whether a callback may still come.

Pure; the runtime mints tokens for the tools of a step and judges what comes back. A token is derived, not stored: it
names one wait (execution, step, visit, item, round) under an HMAC by a key of the log's own. It holds no time: a wall
clock may be wrong on a box that woke up in 1970, so a token is good until its wait is over, which the log knows.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Final

from edge.core.codec import decode, encode
from edge.core.events import CallbackReceived, Event, StepWaiting
from edge.core.limits import CALLBACK_TOKEN_CHARS_MAX
from edge.core.records import record
from edge.core.state import RUNNING, Execution

#: Half of an HMAC-SHA-256 (RFC 2104 §5): nobody guesses 128 bits, and a topic level stays short.
MAC_BYTES: Final = 16
KEY_BYTES: Final = 32
_PURPOSE: Final = b"noetl-edge callback 1\x00"

UNKNOWN: Final = "callback_unknown"
USED: Final = "callback_used"
EXPIRED: Final = "callback_expired"
ENDED: Final = "callback_ended"


@record
class Call:
    """The wait that a token stands for. `step` is its index in the blueprint, `item` that of a loop's item.

    `round` counts the waits for callbacks that the pipeline left behind before it.
    """

    execution: int
    step: int
    visit: int
    item: int | None
    round: int


def mint(key: bytes, log_id: bytes, call: Call) -> str:
    """The token of a wait: lower-case letters and digits, safe as one level of a topic."""
    body = encode([call.execution, call.step, call.visit, call.item, call.round])
    return base64.b32encode(body + _mac(key, log_id, body)).decode("ascii").rstrip("=").lower()


def read(key: bytes, log_id: bytes, token: str) -> Call | None:
    """The wait a token stands for; None where it is not one of this log's. Total: any text will do."""
    if not token.isascii() or len(token) > CALLBACK_TOKEN_CHARS_MAX or token != token.lower():
        return None
    try:
        data = base64.b32decode(token.upper() + "=" * (-len(token) % 8))
    except ValueError:
        return None
    body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, log_id, body)):
        return None
    call = Call(*decode(body))
    # Base 32 has spare bits at its end: of the texts that mean the same bytes only the one minted is good.
    return call if hmac.compare_digest(token, mint(key, log_id, call)) else None


def _mac(key: bytes, log_id: bytes, body: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + log_id + body, "sha256")[:MAC_BYTES]


def refusal(state: Execution, events: Sequence[Event], step: str, call: Call) -> str | None:
    """Why a callback for this wait cannot be taken, as a problem's code; None where it can.

    It can from when its token was handed out, also before the pipeline comes to its wait, until the wait is over.
    """
    iteration = () if call.item is None else (call.item,)
    mine = [
        event
        for event in events
        if event.step == step and event.visit == call.visit and event.iteration == iteration
    ]
    if any(isinstance(event.body, CallbackReceived) and event.body.round == call.round for event in mine):
        return USED
    if state.status != RUNNING or state.problem is not None:
        return ENDED
    known = state.steps.get(step)
    if known is None or known.visit < call.visit:
        return None
    if known.visit > call.visit or known.status in ("done", "failed"):
        return EXPIRED
    waiting = known.waiting
    if call.item is not None:
        loop = known.loop
        if loop is None or any(part.first <= call.item < part.first + part.count for part in loop.parts):
            return EXPIRED
        waiting = loop.waiting.get(call.item)
    begun = [event for event in mine if isinstance(event.body, StepWaiting) and _round(event) >= call.round]
    if not begun:
        return None
    still = _round(begun[-1]) == call.round and waiting is not None and waiting.seq == begun[-1].seq
    return None if still else EXPIRED


def _round(event: Event) -> int:
    assert isinstance(event.body, StepWaiting), event
    return int((event.body.detail or {}).get("round", -1))
