"""What a centre says of each segment that came, in the words that go over the wire. For boxes and centres.

Owns the words only; `edge.central.ingest` gives them, `edge.sync` acts on them. None is ever given another meaning.
"""

from __future__ import annotations

from typing import Final

STORED: Final = "stored"
"""It joins the beginning of its log; the receipt speaks of it."""
ALREADY: Final = "already"
"""It was there."""
PARKED: Final = "parked"
"""It is whole and kept, but one before it is not there yet."""
FORK: Final = "fork"
"""It is of another history than what is there: kept apart, and a person must look."""
REJECTED: Final = "rejected"
"""It was changed, cut, or is nobody's: nothing of it is believed, and the same bytes will never be taken."""
LEFT: Final = "left"
"""It lies where a courier takes it on; what the centre says of it is known when its receipt comes back."""

VERDICTS: Final = (STORED, ALREADY, PARKED, FORK, REJECTED)
"""What a centre gives."""
ARRIVED: Final = (STORED, ALREADY, PARKED, LEFT)
"""After these a box need not send the segment again, unless the next state says otherwise."""
