"""Batches of a subscription: whatever arrives, lasts, fails or restarts, each message is in exactly one of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from edge.core.lanes import NS, Batch, Lanes, Rules
from edge.core.repeats import Deliveries, Window, mark_of

RULES = st.builds(
    Rules,
    rows_max=st.integers(1, 5),
    bytes_max=st.integers(1, 60),
    wait_ns=st.integers(0, 3 * NS),
    in_flight_max=st.integers(1, 4),
    ordered=st.booleans(),
    attempts=st.integers(1, 3),
    delay_ns=st.integers(0, 2 * NS),
    backoff=st.sampled_from(["none", "linear", "exponential"]),
    per_s=st.sampled_from([0, 0, 1, 7]),
)
#: `(what, argument)`: a message with that lane, time passing, the end of a running batch, a restart.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.integers(1, 4 * NS)),
        st.tuples(st.just("done"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=80,
)


@dataclass
class Log:
    """What would be in the log: messages by number, dispatches in order, and how batches ended."""

    messages: dict[int, tuple[str | None, int, str | None]] = field(default_factory=dict)
    dispatched: list[tuple[int, Batch]] = field(default_factory=list)
    ended: dict[int, bool] = field(default_factory=dict)
    seq: int = 0


class Run:
    """A subscription at work, with the log beside it."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.log, self.now_ns = rules, Log(), 0
        self.lanes = Lanes(rules)
        self.running: list[tuple[int, Batch]] = []
        self.failures: dict[int, int] = {}

    def drive(self) -> None:
        while (batch := self.lanes.take(self.now_ns)) is not None:
            assert len(self.running) < self.rules.in_flight_max
            if self.rules.ordered:
                assert all(other.lane != batch.lane for _, other in self.running), "two of a lane at once"
            self.log.seq += 1
            self.log.dispatched.append((self.log.seq, batch))
            self.running.append((self.log.seq, batch))

    def message(self, lane: int) -> None:
        self.log.seq += 1
        name = f"k{lane}" if lane else None
        playbook = "other" if lane == 3 and self.log.seq % 3 == 0 else None
        size = 5 + lane * 7
        self.log.messages[self.log.seq] = (name, size, playbook)
        self.lanes.received(self.log.seq, size, self.now_ns, name, playbook)

    def end(self, which: int, *, done: bool) -> None:
        if not self.running:
            return
        execution, batch = self.running.pop(which % len(self.running))
        self.log.ended[execution] = done
        self.lanes.landed()
        if done or not self.lanes.failed(batch.first, self.now_ns):
            self.lanes.settled(batch.first)

    def restart(self) -> None:
        position = self.lanes.position()
        self.lanes = Lanes(self.rules, position)
        events: list[tuple[int, Batch | None]] = [(seq, None) for seq in self.log.messages if seq > position]
        events += [(seq, batch) for seq, batch in self.log.dispatched if batch.last > position]
        newest: dict[int, int] = {}
        for seq, batch in sorted(events, key=lambda event: event[0]):
            if batch is None:
                lane, size, playbook = self.log.messages[seq]
                self.lanes.received(seq, size, self.now_ns, lane, playbook)
            else:
                if batch.first in newest:
                    self.lanes.landed()
                newest[batch.first] = seq
                self.lanes.restored(batch)
        for batch in self.lanes.out:
            if (done := self.log.ended.get(newest[batch.first])) is not None:
                self.lanes.landed()
                if done or not self.lanes.failed(batch.first, self.now_ns):
                    self.lanes.settled(batch.first)


_RESTARTED: list[tuple[str, int]] = [("message", 1), *[("message", 0)] * 5, ("done", 0), ("restart", 0)]


@given(RULES, STEPS)
@example(Rules(rows_max=2, bytes_max=13, wait_ns=1, in_flight_max=2), _RESTARTED)
def test_every_message_is_in_exactly_one_batch(rules: Rules, steps: list[tuple[str, int]]) -> None:
    """Through failures, pauses and restarts: none lost, none twice, each batch within its bounds and of one lane."""
    run = Run(rules)
    for what, argument in steps:
        if what == "message":
            run.message(argument)
        elif what == "wait":
            run.now_ns += argument
        elif what in ("done", "fail"):
            run.end(argument, done=what == "done")
        else:
            run.restart()
        run.drive()
    for _ in range(10_000):
        run.drive()
        if not run.running:
            wake_ns = run.lanes.wake_ns(run.now_ns)
            if wake_ns is None:
                break
            assert wake_ns >= run.now_ns
            run.now_ns = wake_ns
        else:
            run.end(0, done=True)
    assert run.lanes.backlog == 0
    assert run.lanes.in_flight == 0
    assert run.lanes.position() >= max(run.log.messages, default=0)
    check_batches(run.log, rules)


def check_batches(log: Log, rules: Rules) -> None:
    """Each message once among first attempts; lanes in order; attempts in order and bounded."""
    seen: list[int] = []
    last: dict[str | None, int] = {}
    for _, batch in log.dispatched:
        taken = [
            seq
            for seq, (lane, _, _) in log.messages.items()
            if lane == batch.lane and batch.first <= seq <= batch.last
        ]
        assert len(taken) == batch.count <= rules.rows_max
        assert {log.messages[seq][2] for seq in taken} == {batch.playbook}
        size = sum(log.messages[seq][1] for seq in taken)
        assert size <= rules.bytes_max or batch.count == 1
        if batch.attempt == 1:
            assert batch.first > last.get(batch.lane, 0), "out of order"
            last[batch.lane] = batch.last
            seen += taken
        else:
            assert batch.attempt <= rules.attempts
    assert sorted(seen) == sorted(log.messages)


@given(st.integers(1, 50), st.lists(st.integers(0, NS), min_size=1, max_size=200))
def test_a_rate_holds_over_any_stretch(per_s: int, gaps: list[int]) -> None:
    """Never more than one second's worth at once, nor more than the rate over the whole."""
    lanes = Lanes(Rules(per_s=per_s, in_flight_max=1_000, ordered=False))
    now_ns, sent = 10 * NS, 0
    start_ns = now_ns
    for seq, gap in enumerate(gaps, 1):
        now_ns += gap
        lanes.received(seq, 1, now_ns, None, None)
        while (batch := lanes.take(now_ns)) is not None:
            lanes.landed()
            lanes.settled(batch.first)
            sent += batch.count
        assert sent <= per_s + (now_ns - start_ns) / NS * per_s + 1
        if lanes.backlog:
            wake_ns = lanes.wake_ns(now_ns)
            assert wake_ns is not None
            assert now_ns < wake_ns <= now_ns + NS // per_s + 2


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=60))
def test_a_repeated_id_is_found_inside_its_window(keys_max: int, steps: list[tuple[int, int]]) -> None:
    """What is found is the newest with that id and younger than the window; memory stays bounded."""
    window_ns = 6
    window, now_ns = Window(window_ns, keys_max), 0
    noted: dict[str, tuple[int, int]] = {}
    for seq, (key, gap) in enumerate(steps, 1):
        now_ns += gap
        name = f"k{key}"
        found = window.find(name, now_ns)
        if found is not None:
            assert noted[name][0] == found
            assert now_ns - noted[name][1] < window_ns
            continue
        window.note(name, seq, now_ns)
        noted[name] = seq, now_ns
        assert window.find(name, now_ns) == seq
        assert len(window) <= keys_max


def test_a_packet_sent_again_is_found_and_an_id_used_anew_is_not() -> None:
    """The same packet id with other content is another message; what is too long ago is forgotten."""
    known = Deliveries(2)
    known.note(1, 10, mark_of("a", b"x"))
    assert known.find(1, mark_of("a", b"x")) == 10
    assert known.find(1, mark_of("a", b"y")) is None
    assert known.find(1, mark_of("ax", b"")) is None
    known.note(2, 11, mark_of("a", b"x"))
    known.note(3, 12, mark_of("a", b"x"))
    assert known.find(1, mark_of("a", b"x")) is None
