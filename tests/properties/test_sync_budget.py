"""The budget of a link: never over, used nearly whole, whatever is killed and wherever the clocks go."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED, Reading
from edge.sync.budget import DAY_NS, METERED, S_NS, Bucket, Budget
from edge.sync.meter import Meter
from edge.testing.clock import ManualClock

DAY_BYTES = 5_000_000
PIECE = 10_000


class Life:
    """A box that sends whenever it may, restarts and loses its power; what it sent, by day and in all."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.clock, self._folder, self._budget = ManualClock(), folder, budget
        self._boots = 0
        self.sent = 0
        self.by_day: Counter[int] = Counter()
        self.on_ns = 0
        self.days_seen: set[int] = set()
        self._see()
        self.meter = self._made()

    def _made(self) -> Meter:
        return Meter({METERED: self._budget}, self._folder, self.clock, bytes([self._boots] * 16))

    def _see(self) -> None:
        if self.clock.now.wall_trust == WALL_SYNCHRONISED:
            self.days_seen.add(self.clock.now.wall_ns // DAY_NS)

    def send(self, pieces: int) -> None:
        """As many pieces as may go now, up to so many."""
        for _ in range(pieces):
            if self.meter.wait_s(METERED, PIECE):
                return
            self.meter.spend(METERED, PIECE)
            self.sent += PIECE
            self.by_day[self.clock.now.wall_ns // DAY_NS] += PIECE

    def advance(self, by_ns: int) -> None:
        """Time goes on with the box switched on."""
        self.clock.advance(by_ns)
        self.on_ns += by_ns
        self._see()

    def jump(self, wall_ns: int, trust: int) -> None:
        """Somebody or something sets the wall clock."""
        self.clock.set_wall(wall_ns, trust)
        self._see()

    def restart(self, *, killed: bool, reboot: bool) -> None:
        """The process ends, in order or not, and with it perhaps the box; it comes back at once."""
        if not killed:
            self.meter.close()
        if reboot:
            self._boots += 1
            self.clock.now = replace(self.clock.now, mono_ns=3 * S_NS)
        self.meter = self._made()


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 600)),
    st.tuples(st.just("advance"), st.integers(1, 30 * 3_600)),
    st.tuples(st.just("restart"), st.integers(0, 3)),
)
JUMPS = st.tuples(
    st.just("jump"),
    st.tuples(
        st.one_of(st.integers(0, 400), st.integers(20_000, 21_500)),
        st.sampled_from((WALL_IMPLAUSIBLE, WALL_UNCONFIRMED, WALL_SYNCHRONISED)),
    ),
)


def _live(life: Life, actions: list[tuple[str, object]]) -> None:
    for name, value in actions:
        if name == "send":
            assert isinstance(value, int)
            life.send(value)
        elif name == "advance":
            assert isinstance(value, int)
            life.advance(value * S_NS)
        elif name == "restart":
            assert isinstance(value, int)
            life.restart(killed=bool(value & 1), reboot=bool(value & 2))
        else:
            assert isinstance(value, tuple)
            life.jump(value[0] * DAY_NS + 1, value[1])


@settings(max_examples=25, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_a_day_never_gets_more_than_its_bound(memory: Path, actions: list[tuple[str, object]]) -> None:
    """With a clock that is right no day of the calendar sees a byte above its bound, over kills and restarts too."""
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        life = Life(Path(folder), Budget(day_bytes=DAY_BYTES))
        _live(life, actions)
    assert all(sent <= DAY_BYTES for sent in life.by_day.values()), life.by_day


@settings(max_examples=40, deadline=None)
@given(actions=st.lists(st.one_of(ACTIONS, JUMPS), max_size=60))
def test_a_clock_that_jumps_opens_no_day_anew(memory: Path, actions: list[tuple[str, object]]) -> None:
    """A new day is one more day of being on, or a day of a clock that is believed: no other reading gives bytes."""
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        life = Life(Path(folder), Budget(day_bytes=DAY_BYTES))
        _live(life, actions)
    days = 1 + life.on_ns // DAY_NS + len(life.days_seen)
    assert life.sent <= days * DAY_BYTES


def test_an_unbelieved_clock_gives_nothing(tmp_path: Path) -> None:
    """Day after day by a clock that nobody confirms: until the box was on for 24 hours the bound stays used up."""
    life = Life(tmp_path, Budget(day_bytes=DAY_BYTES))
    life.jump(20_500 * DAY_NS, WALL_UNCONFIRMED)
    life.restart(killed=False, reboot=True)
    life.send(600)
    used = life.sent
    for day in range(20_501, 20_530):
        life.jump(day * DAY_NS, WALL_UNCONFIRMED)
        life.restart(killed=False, reboot=day % 2 == 0)
        life.send(600)
    life.jump(0, WALL_IMPLAUSIBLE)
    life.send(600)
    assert life.sent == used
    life.advance(DAY_NS)
    life.send(600)
    assert life.sent == 2 * used


def test_ninety_eight_percent_of_a_day_are_used(tmp_path: Path) -> None:
    """What is not urgent uses at least 98 % of each day's bound, though the process is killed once in each."""
    life = Life(tmp_path, Budget(day_bytes=DAY_BYTES))
    for _ in range(10):
        life.send(10_000)
        life.advance(DAY_NS)
    assert 0.98 <= life.sent / (10 * DAY_BYTES) <= 1


def test_a_kill_forgets_one_share(tmp_path: Path) -> None:
    """After a kill at most one share of 64 of the bound counts as spent that was not; after a stop nothing does."""
    life = Life(tmp_path, Budget(day_bytes=DAY_BYTES))
    life.send(100)
    life.restart(killed=True, reboot=False)
    life.send(10_000)
    assert DAY_BYTES * (1 - 2 / 64) - PIECE <= life.sent <= DAY_BYTES


def test_urgent_ones_have_a_share_of_their_own(tmp_path: Path) -> None:
    """When all that routine may use is used, something urgent still goes the same day."""
    life = Life(tmp_path, Budget(day_bytes=DAY_BYTES))
    life.send(10_000)
    assert life.meter.wait_s(METERED, PIECE) > 0
    assert life.meter.wait_s(METERED, PIECE, urgent=True) == 0


def test_a_month_that_is_used_up_waits_for_the_next(tmp_path: Path) -> None:
    """A bound of a month holds over its days, and the calendar's next month opens it."""
    life = Life(tmp_path, Budget(month_bytes=2 * DAY_BYTES))
    life.jump(20_515 * DAY_NS, WALL_SYNCHRONISED)  # 2026-03-03
    for _ in range(28):
        life.send(10_000)
        life.advance(DAY_NS)
        life.restart(killed=True, reboot=True)
    assert life.sent <= 2 * DAY_BYTES
    before = life.sent
    life.advance(DAY_NS)
    life.send(10)
    assert life.sent == before + 10 * PIECE


def test_the_drive_is_written_only_where_a_bound_needs_it(tmp_path: Path) -> None:
    """A rate alone writes nothing; a day's bound used up whole writes some 64 times."""
    life = Life(tmp_path, Budget(bytes_per_s=125_000))
    life.advance(60 * S_NS)
    life.send(50)
    life.restart(killed=False, reboot=False)
    assert life.sent
    assert not list(tmp_path.iterdir())
    writes = set()
    life = Life(tmp_path, Budget(day_bytes=DAY_BYTES))
    for _ in range(500):
        life.send(1)
        writes.add((tmp_path / "spent").read_bytes())
    assert len(writes) <= 65


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 10_000_000),
    st.lists(st.tuples(st.integers(0, 5 * S_NS), st.integers(1, 64_000)), min_size=1, max_size=50),
)
def test_the_rate_is_never_exceeded(rate: int, turns: list[tuple[int, int]]) -> None:
    """From its start no bucket gives one byte more than rate times time, nor wastes any while somebody waits."""
    bucket, now_ns, sent = Bucket(rate, 1 << 20, 0), 0, 0
    for pause_ns, size in turns:
        now_ns += pause_ns
        bucket.fill(now_ns)
        wait_ns = bucket.wait_ns(size)
        now_ns += wait_ns
        bucket.fill(now_ns)
        assert bucket.wait_ns(size) == 0
        bucket.take(size)
        sent += size
        assert sent * S_NS <= rate * now_ns
    busy, at_ns, total = Bucket(rate, 1 << 20, 0), 0, 0
    for _, size in turns:
        at_ns += busy.wait_ns(size)
        busy.fill(at_ns)
        busy.take(size)
        total += size
    assert total * S_NS >= 0.98 * rate * at_ns


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, caplog: object) -> None:
    """A damaged file of counts does not stop the upload; it counts from 0 and says so."""
    (tmp_path / "spent").write_bytes(b"\xff")
    clock = ManualClock()
    meter = Meter({METERED: Budget(day_bytes=DAY_BYTES)}, tmp_path, clock, bytes(16))
    assert meter.wait_s(METERED, PIECE) == 0
    assert meter.left(METERED).day_bytes == DAY_BYTES
    assert isinstance(clock.read(), Reading)
    assert "cannot be read" in getattr(caplog, "text", "")
