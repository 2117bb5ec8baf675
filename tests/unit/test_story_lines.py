"""The lines a technician reads: what an event says of itself."""

from __future__ import annotations

import pytest

from edge.cli.story import event_line
from edge.core.clock import Reading
from edge.core.events import BootStarted, Event

AT = Reading(1, 1_795_566_572_000_000_000, 1)


@pytest.mark.parametrize(
    ("seq", "clean", "says"),
    [
        (1, True, "the first start"),
        (9, True, "after a clean stop"),
        (9, False, "not stopped cleanly before"),
    ],
)
def test_a_boot_says_what_came_before_it(seq: int, clean: bool, says: str) -> None:
    """Only a start that follows a stop speaks of one."""
    assert event_line(Event(seq, BootStarted("0.1.0", "kitchen", clean)), AT).endswith(f"box kitchen, {says}")
