"""Which messages of a subscription make the next batch, and when: rows, bytes, time, order, rate, in flight. Pure.

Owned by `edge.runtime.subscriptions`, which feeds it what was received, dispatched and settled, live and again from
the log after a restart. It knows sequence numbers and sizes, never a payload; moments come as arguments.

A lane is what keeps an order: one for all messages, or one for each key. An ordered lane has one batch out at a time,
so a batch that fails or lasts holds up its own lane and no other. Every message is in exactly one batch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Final

from edge.core.records import record

NS: Final = 1_000_000_000


@record
class Rules:
    """What a subscription asks for. `per_s` 0 means no rate; `backoff` is none, linear or exponential."""

    rows_max: int = 1
    bytes_max: int = 1
    wait_ns: int = 0
    in_flight_max: int = 1
    ordered: bool = True
    attempts: int = 1
    delay_ns: int = 0
    backoff: str = "none"
    per_s: int = 0
    #: A pause between two attempts never grows beyond this.
    delay_ns_max: int = 3_600 * NS


@record
class Batch:
    """Messages `first` to `last` of one lane, `count` of them, for one execution; `attempt` counts from 1.

    `playbook` is the one that a directive chose, None where it is the subscription's own.
    """

    lane: str | None
    first: int
    last: int
    count: int
    playbook: str | None = None
    attempt: int = 1


@dataclass(slots=True, eq=False)
class _Lane:
    #: `(seq, size in bytes, when received, playbook)`, oldest first.
    waiting: deque[tuple[int, int, int, str | None]] = field(default_factory=deque)
    size_bytes: int = 0
    #: How often neighbours ask for different playbooks: the messages before such a place are a whole batch.
    turns: int = 0
    #: Batches of it that are not settled; after a restart those that ended meanwhile are among them.
    out: int = 0
    queued: bool = False


class Lanes:
    """The messages of one subscription that are not settled; those up to `settled_through` are."""

    def __init__(self, rules: Rules, settled_through: int = 0) -> None:
        self.rules = rules
        #: No batch waits for more messages.
        self.hurried = False
        self._lanes: dict[str | None, _Lane] = {}
        self._ready: deque[str | None] = deque()
        self._due: list[tuple[int, int, str | None]] = []
        #: Batches that ran or rest before their next attempt, by their first message.
        self._out: dict[int, Batch] = {}
        self._resting: list[tuple[int, int]] = []
        self._in_flight = 0
        self._tokens = float(max(1, rules.per_s))
        self._tokens_at_ns = 0
        self._last = self.settled_through = settled_through
        self._turn = 0
        #: Messages waiting or in a batch that is not settled.
        self.backlog = 0

    # ---- what happens --------------------------------------------------------------------------------

    def received(self, seq: int, size_bytes: int, at_ns: int, lane: str | None, playbook: str | None) -> None:
        """One more message waits."""
        self._last = seq
        self.backlog += 1
        own = self._lanes.get(lane)
        if own is None:
            own = self._lanes[lane] = _Lane()
        if own.waiting and own.waiting[-1][3] != playbook:
            own.turns += 1
        own.waiting.append((seq, size_bytes, at_ns, playbook))
        own.size_bytes += size_bytes
        if len(own.waiting) == 1 or self._full(own):
            self._consider(lane, own)

    def take(self, now_ns: int) -> Batch | None:
        """The next batch to carry out now, and note that it is out; None where there is none."""
        if self._in_flight >= self.rules.in_flight_max or not self._may_spend(now_ns):
            return None
        if self._resting and self._resting[0][0] <= now_ns:
            _, first = heappop(self._resting)
            again = self._out[first]
            batch = self._out[first] = replace(again, attempt=again.attempt + 1)
            return self._gone(batch)
        while self._due and self._due[0][0] <= now_ns:
            _, _, name = heappop(self._due)
            own = self._lanes.get(name)
            if own is not None and own.waiting and own.waiting[0][2] + self.rules.wait_ns <= now_ns:
                self._queue(name, own)
        while self._ready:
            name = self._ready.popleft()
            own = self._lanes.get(name)
            if own is None or not own.queued:
                continue
            own.queued = False
            if own.waiting and not (self.rules.ordered and own.out):
                return self._gone(self._cut(name, own))
        return None

    def settled(self, first: int) -> None:
        """The batch that begins with this message is over: done, or a dead letter. Its lane goes on."""
        batch = self._out.pop(first)
        self.backlog -= batch.count
        self._free(batch)

    def landed(self) -> None:
        """An execution of a batch ended; it is no longer in flight, whatever becomes of it."""
        self._in_flight -= 1

    def failed(self, first: int, now_ns: int) -> bool:
        """It failed: True where it rests and runs again, False where its attempts are used up."""
        batch = self._out[first]
        if batch.attempt >= self.rules.attempts:
            return False
        heappush(self._resting, (now_ns + self._pause_ns(batch.attempt), first))
        return True

    def again(self) -> None:
        """Look at every lane anew, after the rules changed."""
        self._due.clear()
        for name, own in self._lanes.items():
            if own.waiting:
                self._consider(name, own)

    # ---- what the log says happened -------------------------------------------------------------------

    def restored(self, batch: Batch) -> None:
        """A batch was dispatched before: its messages wait no longer, and it is in flight."""
        if batch.first in self._out:
            self._out[batch.first] = batch
        else:
            own = self._lanes.setdefault(batch.lane, _Lane())
            while own.waiting and own.waiting[0][0] <= batch.last:
                self._pop(own)
            # Those below the noted position were not read again; they count all the same until the batch is settled.
            self.backlog += batch.count
            self._out[batch.first] = batch
            own.out += 1
        self._last = max(self._last, batch.last)
        self._in_flight += 1

    @property
    def out(self) -> list[Batch]:
        """Batches that are not settled, oldest first."""
        return [self._out[first] for first in sorted(self._out)]

    @property
    def in_flight(self) -> int:
        """Batches with an execution under way."""
        return self._in_flight

    def position(self) -> int:
        """The highest sequence number up to which every message is settled."""
        heads = [own.waiting[0][0] for own in self._lanes.values() if own.waiting]
        oldest = min([*heads, *self._out], default=self._last + 1)
        return oldest - 1

    def wake_ns(self, now_ns: int) -> int | None:
        """When `take` may give something without anything happening before; None: not until something does."""
        if self._in_flight >= self.rules.in_flight_max:
            return None
        moments = [heap[0][0] for heap in (self._resting, self._due) if heap]
        if self._ready:
            moments.append(now_ns)
        if not moments:
            return None
        at_ns = min(moments)
        if not self._may_spend(now_ns):
            at_ns = max(at_ns, self._tokens_at_ns + round((1 - self._tokens) / self.rules.per_s * NS) + 1)
        return at_ns

    # ---- inside ----------------------------------------------------------------------------------------

    def _full(self, own: _Lane) -> bool:
        rules = self.rules
        full = len(own.waiting) >= rules.rows_max or own.size_bytes >= rules.bytes_max
        return full or own.turns > 0 or self.hurried

    def _consider(self, name: str | None, own: _Lane) -> None:
        """A lane has a new head, or is full, or is free again."""
        if self.rules.ordered and own.out:
            return
        if self._full(own):
            self._queue(name, own)
        else:
            self._turn += 1
            heappush(self._due, (own.waiting[0][2] + self.rules.wait_ns, self._turn, name))

    def _queue(self, name: str | None, own: _Lane) -> None:
        if not own.queued and not (self.rules.ordered and own.out):
            own.queued = True
            self._ready.append(name)

    def _cut(self, name: str | None, own: _Lane) -> Batch:
        first, size_bytes, _, playbook = self._pop(own)
        last, count = first, 1
        while own.waiting and count < self.rules.rows_max:
            seq, more_bytes, _, wanted = own.waiting[0]
            if wanted != playbook or size_bytes + more_bytes > self.rules.bytes_max:
                break
            self._pop(own)
            last, count, size_bytes = seq, count + 1, size_bytes + more_bytes
        batch = self._out[first] = Batch(name, first, last, count, playbook)
        self.backlog += count  # they wait no longer, and are not settled either
        own.out += 1
        if own.waiting:
            self._consider(name, own)
        return batch

    def _pop(self, own: _Lane) -> tuple[int, int, int, str | None]:
        message = own.waiting.popleft()
        own.size_bytes -= message[1]
        self.backlog -= 1
        if own.waiting and own.waiting[0][3] != message[3]:
            own.turns -= 1
        return message

    def _gone(self, batch: Batch) -> Batch:
        self._in_flight += 1
        self._tokens -= batch.count
        return batch

    def _free(self, batch: Batch) -> None:
        own = self._lanes[batch.lane]
        own.out -= 1
        if own.waiting:
            self._consider(batch.lane, own)
        elif not own.out:
            del self._lanes[batch.lane]

    def _may_spend(self, now_ns: int) -> bool:
        if not self.rules.per_s:
            return True
        gained = (now_ns - self._tokens_at_ns) / NS * self.rules.per_s
        self._tokens = min(float(max(1, self.rules.per_s)), self._tokens + max(0.0, gained))
        self._tokens_at_ns = max(self._tokens_at_ns, now_ns)
        return self._tokens >= 1

    def _pause_ns(self, attempt: int) -> int:
        rules = self.rules
        factor = 1
        if rules.backoff != "none":
            factor = attempt if rules.backoff == "linear" else 1 << min(attempt - 1, 40)
        return min(rules.delay_ns * factor, rules.delay_ns_max)
