"""The last retained message of each topic, in memory. Pure.

Owned by `broker.EmbeddedBroker`. Must never grow past its bounds: a new topic above them is refused, never
another one evicted.
"""

from __future__ import annotations

from edge.core import limits
from gateway.embedded_broker.session import QUEUED_MAX, Publication
from gateway.embedded_broker.topics import matches

#: Topics with a retained message; a new subscriber's queue holds them all.
RETAINED_MAX = 8_192
RETAINED_BYTES_MAX = 8 * limits.PAYLOAD_BYTES_MAX

assert RETAINED_MAX < QUEUED_MAX


class RetainedMessages:
    """topic → the last message published to it with the retain flag (MQTT 5 §3.3.1.3)."""

    def __init__(self) -> None:
        self._kept: dict[str, Publication] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def has_room(self, publication: Publication) -> bool:
        """True where `keep` would stay inside the bounds."""
        if not publication.payload:
            return True
        old = self._kept.get(publication.topic)
        held_bytes = self._held_bytes + publication.size_bytes - (old.size_bytes if old else 0)
        return held_bytes <= RETAINED_BYTES_MAX and (old is not None or len(self) < RETAINED_MAX)

    def keep(self, publication: Publication) -> None:
        """Keep it in place of the topic's last one; an empty payload only removes that."""
        self._remove(publication.topic)
        if publication.payload:
            assert self.has_room(publication)
            self._kept[publication.topic] = publication
            self._held_bytes += publication.size_bytes

    def matching(self, pattern: str, now_s: float) -> list[Publication]:
        """What a new subscriber to `pattern` is owed; expired ones are forgotten on the way."""
        found = [publication for topic, publication in self._kept.items() if matches(pattern, topic)]
        gone = [publication for publication in found if publication.expired(now_s)]
        for publication in gone:
            self._remove(publication.topic)
        return [publication for publication in found if not publication.expired(now_s)]

    def _remove(self, topic: str) -> None:
        old = self._kept.pop(topic, None)
        if old is not None:
            self._held_bytes -= old.size_bytes
