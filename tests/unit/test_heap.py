"""When the runtime gives memory back: once after a burst, never while something is open."""

from __future__ import annotations

from collections.abc import Callable

from edge.runtime.process.heap import Trimmer


class Rig:
    """A trimmer with a loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.seq, self.idle, self.trims = 0, True, 0
        self.later: list[Callable[[], None]] = []
        self.trimmer = Trimmer(
            lambda _, call: self.later.append(call), lambda: self.seq, lambda: self.idle, self.trim
        )

    def trim(self) -> None:
        self.trims += 1

    def moment(self) -> None:
        """Let what was put off happen."""
        calls, self.later = self.later, []
        for call in calls:
            call()


def test_a_burst_is_trimmed_once() -> None:
    """After many events and a quiet moment memory is given back, and not again until many more."""
    rig = Rig()
    rig.seq = 5_000
    rig.trimmer.quiet()
    rig.moment()
    rig.seq += 10
    rig.trimmer.quiet()
    rig.moment()
    assert (rig.trims, rig.later) == (1, [])


def test_a_few_requests_set_no_timer() -> None:
    """A box that answers one request now and then never pays for it."""
    rig = Rig()
    rig.seq = 40
    rig.trimmer.quiet()
    assert rig.later == []


def test_work_that_begins_again_puts_it_off() -> None:
    """With something open when the moment is over nothing is done; the next quiet moment does it."""
    rig = Rig()
    rig.seq = 5_000
    rig.trimmer.quiet()
    rig.idle = False
    rig.moment()
    assert rig.trims == 0
    rig.idle = True
    rig.trimmer.quiet()
    rig.moment()
    assert rig.trims == 1


def test_a_burst_with_pauses_is_waited_for() -> None:
    """Events since the quiet moment began mean that it was none: it waits once more."""
    rig = Rig()
    rig.seq = 5_000
    rig.trimmer.quiet()
    rig.seq += 1
    rig.moment()
    assert rig.trims == 0
    rig.moment()
    assert rig.trims == 1
