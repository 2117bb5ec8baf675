"""When a lost connection to the broker is made again, and when somebody must be told that it never lasts.

Used by the daemon for the session of requests and by `gateway.source` for each subscription's. Two boxes of one name
(a copied SD card) take every session from each other: each connection succeeds and is taken over at once, so only how
long it lasted tells. It never connects, sleeps or reads a clock itself.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final

from gateway.mqtt import BrokerAddress
from gateway.mqtt.reasons import TAKEN_OVER

logger = logging.getLogger(__name__)

_AWAY_S: Final = 0.2
_AWAY_S_MAX: Final = 5.0
_SHORT_S: Final = 0.2
_SHORT_S_MAX: Final = 60.0
#: Where the broker did not say that somebody took the session: it may have crashed, and is up again in a moment.
_UNTOLD_S_MAX: Final = 1.0
#: A connection that lasted this long, and twice as long as was waited for it, was a good one.
_STEADY_S: Final = 10.0
#: After so many short ones in a row, with a broker that is there each time, somebody is told.
_SHORT_MAX: Final = 4
#: Told again where it was not seen for so long in between.
_FORGOTTEN_S: Final = 600.0


class Clash:
    """Somebody else comes under this box's name: said once, however many connections and times see it."""

    def __init__(self, address: BrokerAddress, box: str) -> None:
        self._address, self._box = address, box
        self._seen_s: float | None = None

    def seen(self, what: str, now_s: float) -> None:
        """A connection, `what` in words, keeps being ended."""
        before_s, self._seen_s = self._seen_s, now_s
        if before_s is None or now_s - before_s > _FORGOTTEN_S:
            logger.error(
                "The broker at %s keeps ending this connection (%s); it is tried less and less often. If another box "
                "of the same name %r is connected there, give one of them another name (`box` in edge.toml).",
                self._address,
                what,
                self._box,
            )


class Reconnects:
    """The waits of one session, `what` in words. `chance()` gives 0 to 1."""

    def __init__(self, what: str, clash: Clash, chance: Callable[[], float] = random.random) -> None:
        self.what = what
        self._clash, self._chance = clash, chance
        self._away_s, self._short_s = _AWAY_S, _SHORT_S
        self._waited_s = 0.0
        self._short = 0

    @property
    def level(self) -> int:
        """How loud the coming and going of this session is logged: once the clash is told, it is no news."""
        return logging.DEBUG if self._short >= _SHORT_MAX else logging.WARNING

    def away(self) -> float:
        """The broker was not there: wait so many seconds."""
        wait_s, self._away_s = self._away_s, min(self._away_s * 1.5, _AWAY_S_MAX)
        self._short, self._short_s = 0, _SHORT_S
        return wait_s

    def lost(self, lasted_s: float, now_s: float, reason: str = "") -> float:
        """A connection ended that had lasted so long, for the broker's `reason`: wait so many seconds.

        None after one that was good; up to a minute where the session was taken over, else up to a second.
        """
        self._away_s = _AWAY_S
        if lasted_s >= max(_STEADY_S, 2 * self._waited_s):
            self._short, self._short_s, self._waited_s = 0, _SHORT_S, 0.0
            return 0.0
        self._short += 1
        if self._short >= _SHORT_MAX:
            self._clash.seen(self.what, now_s)
        # Not all of it: two that wait equally long would meet each time.
        most_s = _SHORT_S_MAX if TAKEN_OVER in reason else _UNTOLD_S_MAX
        self._waited_s = min(self._short_s, most_s) * (0.5 + self._chance() / 2)
        self._short_s = min(self._short_s * 2, most_s)
        return self._waited_s
