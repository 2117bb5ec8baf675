"""What must hold in the simulated world: after every step, at every start, and in the end.

Owned by `tests.sim.world`. It reads the log as anybody may, and what clients were told. A claim that does not hold
ends the run with an AssertionError.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from edge.core.carried import held_by, logical
from edge.core.chain import Context
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, StepStarted, TaskDone
from edge.core.retention_events import RETENTION_BODIES, Carried, ExecutionCarried, LogPruned
from edge.core.state import RUNNING, fold
from edge.core.subscription_events import MessageReceived
from edge.store.index_prune import pruned_of
from edge.store.journal import read_groups
from tests.sim.virtual_time import S
from tests.sim.work import TICK_S, WINDOW_S

if TYPE_CHECKING:
    from tests.sim.life import Life
    from tests.sim.network import Asked
    from tests.sim.world import World

_LOOKED_AT: Final = 3
_AGAIN_EVENTS: Final = 400


class Checks:
    """All claims about one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: When each boot began, in true time.
        self._boots: dict[bytes, int] = {}
        #: Groups that were read: by their first event, what they hold.
        self._groups: dict[int, bytes] = {}
        #: Where groups that were read end: `(last event, the chain's link after it)`.
        self.ends: list[tuple[int, bytes]] = []
        #: What the centre has, and up to where the log was pruned.
        self.receipted = self._pruned = 0
        #: Every event that was read, by its number: its bytes with those of its group's context.
        self._events: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._histories: dict[int, list[Event]] = {}
        self._messages: list[Event] = []
        self._true_ns: dict[int, int] = {}
        self._seen = 0
        self._requests: dict[str, int] = {}
        self._receipts: dict[str, int] = {}
        self._answers: dict[int, bytes] = {}
        self._places: Counter[tuple[Any, ...]] = Counter()
        self._keys: dict[str, int] = {}
        self._ticks: dict[int, int] = {}
        self._unknown: Counter[int] = Counter()
        self._taken: dict[int, int] = {}

    # ---- as it goes ------------------------------------------------------------------------------------

    def began(self, life: Life) -> None:
        """A runtime started: what was durable before is there, byte for byte."""
        boot, clock = self._world.boot, self._world.clock
        self._boots.setdefault(boot, clock.true_ns - clock.read().mono_ns + S)
        folder = self._world.folder / "journal"
        self._pruned = max(self._pruned, pruned_of(life.eventlog)[0])
        found = {
            group.first_seq: data
            for _, group, data in read_groups(folder, max(0, self._seen - _AGAIN_EVENTS))
        }
        for first, digest in self._groups.items():
            if first > max(self._seen - _AGAIN_EVENTS // 2, self._pruned):
                assert first in found, f"durable events from {first} on are gone"
                assert hashlib.sha256(found[first]).digest() == digest, (
                    f"durable events from {first} on changed"
                )
        for name, seq in self._receipts.items():
            assert seq <= life.journal.last_seq, f"the receipt of {name} was for event {seq}, which is gone"

    def step(self) -> None:
        """After every step."""
        life = self._world.life
        if life is None:
            return
        numbers = sorted(life.engine.executor.open)
        for seq in self._world.chance.sample(numbers, min(_LOOKED_AT, len(numbers))):
            live = life.engine.executor.open[seq]
            history = logical(life.gate.events_of(seq))
            assert live.state == fold(history), f"execution {seq} is not what its log says"
            known = [event for event in history if event.seq <= self._seen]
            assert known == self._histories.get(seq, []), f"the history of {seq} changed"
        self.read()

    def effect(self, execution: int, step: str) -> None:
        """The world outside is about to be changed."""
        life = self._world.life
        if life is None:  # by a worker that lives on for a moment
            return
        durable = life.gate.events_of(execution, last=life.gate.durable_seq)
        intended = any(isinstance(e.body, StepStarted) and e.step == step for e in durable)
        assert intended, f"execution {execution} changes the world, and its intent is not durable"

    def accepted(self, asked: Asked, seq: int) -> None:
        """A receipt left the box."""
        life = self._world.life
        assert life is None or seq <= life.gate.durable_seq, (
            f"{asked.name} was accepted before it was durable"
        )
        known = self._receipts.setdefault(asked.name, seq)
        assert known == seq, f"{asked.name} was accepted as {known} and as {seq}"

    def answered(self, asked: Asked, execution: int, payload: bytes) -> None:
        """An answer left the box."""
        life = self._world.life
        if life is not None:
            history = logical(life.gate.events_of(execution))
            ends = [e for e in history if isinstance(e.body, ExecutionFinished)]
            assert len(ends) == 1, f"{asked.name} ended {len(ends)} times"
            assert ends[0].seq <= life.gate.durable_seq, f"{asked.name} was answered before it was durable"
        if self._answers.setdefault(execution, payload) != payload:
            raise AssertionError(f"{asked.name} was answered twice, differently")
        if asked.answer is None:
            document = json.loads(payload)
            self._not_given_up(document)
            asked.judge(document, asked)

    def _not_given_up(self, document: dict[str, Any]) -> None:
        code = (document.get("error") or {}).get("code")
        given_up = ("resume_limit", "worker_lost", "not_reproducible", "cache_lost")
        assert code not in given_up, f"nothing here takes so many attempts: {document}"

    # ---- the log ---------------------------------------------------------------------------------------

    def read(self, *, ended: bool = False) -> None:
        """What became durable since the last look; all there is where the runtime ended in order."""
        life = self._world.life
        durable = life.gate.durable_seq if life is not None else 2**63 if ended else self._seen
        if durable <= self._seen:
            return
        for header, group, data in read_groups(self._world.folder / "journal", self._seen):
            if group.last_seq > durable:
                break  # in the file, and nobody has been told
            self._groups[group.first_seq] = hashlib.sha256(data).digest()
            self.ends.append((group.last_seq, group.check(group.previous, header.epoch_key)))
            for place, event in enumerate(group.events()):
                true_ns = self._true_ns[event.seq] = self._truth_ns(group.context)
                if isinstance(event.body, RETENTION_BODIES):
                    self._retained(event, true_ns)
                    continue
                self._events[event.seq] = (group.context_bytes, *group.parts[2 * place : 2 * place + 2])
                self._histories.setdefault(event.execution or 0, []).append(event)
                self._event(event, true_ns)
            self._seen = group.last_seq

    def _truth_ns(self, context: Context) -> int:
        return self._boots[context.boot_id] + context.at.mono_ns - S

    def _retained(self, event: Event, true_ns: int) -> None:
        """What is carried says what it said; what was pruned might go."""
        body, terms = event.body, self._world.terms
        if isinstance(body, Carried):
            copied = (body.context, body.envelope, body.body)
            assert copied == self._events[body.seq], f"event {body.seq} was carried as something else"
        elif isinstance(body, ExecutionCarried):
            request, *_, end = held_by(event)
            history = self._histories[request.seq]
            assert isinstance(history[-1].body, ExecutionFinished), f"{request.seq} has not ended"
            assert end.seq == history[-1].seq
            assert body.age_s <= (true_ns - self._true_ns[end.seq]) / S + 1, f"{request.seq} is not that old"
        elif isinstance(body, LogPruned):
            self._pruned = body.through
            assert not terms.centre or body.through <= self.receipted, "the centre does not have it"
            if body.cause == "age":
                following = min(seq for seq in self._true_ns if seq > body.through)
                assert true_ns - self._true_ns[following] >= terms.age_s * S, "pruned too early"
            self._world.counts[f"pruned by {body.cause}"] += 1

    def _event(self, event: Event, true_ns: int) -> None:
        body = event.body
        if isinstance(body, ExecutionRequested) and body.request_id is not None:
            known = self._requests.setdefault(body.request_id, event.seq)
            assert known == event.seq, f"{body.request_id} is in the log twice: {known}, {event.seq}"
        elif isinstance(body, ExecutionRequested) and body.batch is not None:
            _, first, last, _, _, attempt = body.batch
            assert attempt == 1, f"a batch that cannot fail was tried again: {body.batch}"
            assert self._taken.setdefault(first, last) == last
        elif isinstance(body, MessageReceived):
            self._messages.append(event)
            self._message(event, body, true_ns)
        elif isinstance(body, TaskDone):
            place = (event.execution, event.step, event.visit, event.iteration, body.number)
            self._places[place] += 1
            assert self._places[place] == 1, f"a task has two outcomes: {place}"

    def _message(self, event: Event, body: MessageReceived, true_ns: int) -> None:
        if body.tick is not None:
            self._tick(event, true_ns, body.tick)
        elif body.key is not None:
            before = self._keys.get(body.key)
            early = before is not None and true_ns - before < WINDOW_S * S
            assert not early, f"id {body.key} was taken twice within its window"
            self._keys[body.key] = true_ns

    def _tick(self, event: Event, true_ns: int, tick: list[Any]) -> None:
        assert event.execution is not None
        number, before = tick[0], self._ticks.get(event.execution, 0)
        assert number > before, f"tick {number} after {before}"
        self._ticks[event.execution] = number
        if tick[5:] == ["unknown"]:
            self._unknown[event.execution] += 1
        if event.execution == self._world.numbers["timer"]:
            spare = self._unknown[event.execution] + 1
            assert number <= true_ns / S / TICK_S + spare, f"tick {number} is early"

    # ---- in the end ------------------------------------------------------------------------------------

    def all_ended(self) -> bool:
        """Whether every client has its answer, the broker keeps no message, and nothing is open."""
        life = self._world.life
        if life is None or any(asked.answer is None for asked in self._world.asked.values()):
            return False
        if not all(message.taken for message in self._world.messages):
            return False
        waits = life.gate.durable_seq < life.gate.next_seq - 1
        backlog = sum(intake.lanes.backlog for intake in life.subscriptions.all())
        return (
            not waits and not life.engine.executor.open and not life.engine.executor.parking and not backlog
        )

    def end(self) -> None:
        """All that must hold of a whole log."""
        self.read(ended=True)
        for _, group, data in read_groups(self._world.folder / "journal"):
            assert self._groups[group.first_seq] == hashlib.sha256(data).digest()
        for seq, events in self._histories.items():
            if isinstance(events[0].body, ExecutionRequested):
                assert fold(events).status != RUNNING, f"execution {seq} has no end"
        for name, seq in self._receipts.items():
            assert self._requests[name] == seq
        assert sorted(self._receipts) == sorted(self._world.asked), "a request has no receipt"
        ranges = Counter(self._taken)
        for event in self._messages:
            assert ranges[event.seq] == event.seq, f"message {event.seq} was in no batch of its own"
        self._each_message(self._messages)
        self._end_of_timers()

    def _each_message(self, messages: list[Event]) -> None:
        bodies = [e.body for e in messages if isinstance(e.body, MessageReceived) and e.body.tick is None]
        payloads = Counter(body.payload for body in bodies)
        assert max(payloads.values(), default=1) == 1, "a message is in the log twice"
        keys = {body.key for body in bodies}
        for message in self._world.messages:
            assert message.taken, f"message {message.packet} was never confirmed"
            assert message.payload in payloads or message.key in keys

    def _end_of_timers(self) -> None:
        """No tick is forgotten: numbers count what was missed, too, where a clock could say how much that was."""
        number = self._world.numbers["timer"]
        if not self._unknown[number]:
            assert self._ticks[number] >= self._world.clock.true_ns / S / TICK_S - 2, "ticks are missing"
