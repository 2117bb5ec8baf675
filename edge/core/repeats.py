"""Messages that came before: by the id their sender gave them, and by the packet a broker sends again. Pure.

Owned by `edge.runtime.subscriptions`; made again from the log after a restart. Both memories are bounded; what they
forget is taken as new, so nothing is lost by it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

_MARK_BYTES: Final = 12


def mark_of(topic: str, payload: bytes) -> bytes:
    """What two deliveries of one message share: its topic and its payload, as 12 bytes."""
    head = topic.encode()
    made = hashlib.blake2b(len(head).to_bytes(4, "big") + head, digest_size=_MARK_BYTES)
    made.update(payload)
    return made.digest()


class Window:
    """The ids of the messages of the last `window_ns`, at most `keys_max` of them."""

    def __init__(self, window_ns: int, keys_max: int) -> None:
        self._window_ns, self._keys_max = window_ns, keys_max
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def find(self, key: str, now_ns: int) -> int | None:
        """The sequence number of the message with this id inside the window; None where there is none."""
        found = self._known.get(key)
        if found is None or now_ns - found[1] >= self._window_ns:
            return None
        return found[0]

    def note(self, key: str, seq: int, at_ns: int) -> None:
        """A message with this id was accepted."""
        self._known.pop(key, None)
        self._known[key] = seq, at_ns
        while self._known:
            _, oldest_ns = next(iter(self._known.values()))
            if len(self._known) <= self._keys_max and at_ns - oldest_ns < self._window_ns:
                return
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)


class Deliveries:
    """The packets of the last deliveries at QoS 1.

    A broker sends what it has no acknowledgement for again, under the same packet id and with its DUP flag (MQTT 5
    §4.4). `count_max` must be no less than it may have out, its overrun included: where the oldest is forgotten
    before it comes again, it is noted anew and drives out the next one just before that comes, and so on through
    all of them.
    """

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._known: OrderedDict[int, tuple[int, bytes]] = OrderedDict()

    def find(self, packet: int, mark: bytes) -> int | None:
        """The sequence number under which a packet sent again was accepted; None where it was not."""
        found = self._known.get(packet)
        return found[0] if found is not None and found[1] == mark else None

    def note(self, packet: int, seq: int, mark: bytes) -> None:
        """A packet's message was accepted."""
        self._known.pop(packet, None)
        self._known[packet] = seq, mark
        if len(self._known) > self._count_max:
            self._known.popitem(last=False)
