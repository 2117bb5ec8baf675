"""What every event's body is: the root of the closed set of `edge.core.events`.

Apart from it, so that the set can be written down in several files. Nothing here may look at a clock, a file or a
socket.
"""

from __future__ import annotations

from typing import ClassVar

from edge.core.records import record


@record
class Body:
    """What happened; each subclass is one event type."""

    CODE: ClassVar[int]
    TYPE: ClassVar[str]
