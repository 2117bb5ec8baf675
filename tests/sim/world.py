"""The simulated world: one box, its clients, and everything that may happen to them, drawn from one seed.

Run by `tests.sim.__main__`. What happened is told in lines whose digest stays the same for the same seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.core.codec import decode
from edge.core.errors import StorageFailed
from edge.core.events import TaskDone
from edge.core.limits import KIB
from edge.core.settings import HOLD, OLDEST, THIN
from edge.runtime.retention.terms import Terms
from edge.store import upstream
from tests.sim.checks import Checks
from tests.sim.disk import Disk
from tests.sim.life import Life
from tests.sim.network import Asked, Gateway, Message, Network
from tests.sim.outside import Outside
from tests.sim.virtual_time import BoxClock, LifeLoop, SimLoop
from tests.sim.work import HOUR_S, Work, subscriptions

_KEYS: Final = 40
_ANSWER_AGAIN_S: Final = 6 * HOUR_S


class World:
    """One run."""

    def __init__(self, folder: Path, number: int, loop: SimLoop) -> None:
        self.chance, self.loop, self.folder = random.Random(number), loop, folder
        self.clock = BoxClock(loop)
        self.outside = Outside(self._carried_out)
        self.work = Work(number, self.chance, self.clock, self.outside)
        self.terms = self._terms()
        self.disk = Disk(str(folder / "journal"), self.chance)
        #: Nothing goes wrong any longer, so that everything may end.
        self.calm = False
        self.network = Network(loop, self.chance, lambda: self.calm)
        self.gateway = Gateway(loop, self.chance)
        self.gateway.on_receipt, self.gateway.on_answer = self._receipt, self._answer
        self.gateway.on_refused = self._refused
        self.boot = self.chance.randbytes(16)
        self.life: Life | None = None
        self.asked: dict[str, Asked] = {}
        self.messages: list[Message] = []
        self.numbers: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.told = hashlib.sha256()
        self.checks = Checks(self)

    def tell(self, *words: object) -> None:
        """A line of what happened."""
        line = " ".join(map(str, (f"{self.clock.true_ns / 1e9:.6f}", *words)))
        self.told.update(line.encode() + b"\n")
        if os.environ.get("SIM_TELL"):
            print(line)

    @contextlib.contextmanager
    def machine(self) -> Any:
        """In place of the machine's clock, chance and drive."""
        before = time.monotonic, time.perf_counter_ns, os.urandom, asyncio.to_thread
        ticks = itertools.count(0, 50_000)  # what a worker does takes that long
        time.monotonic, os.urandom = self.loop.time, self.chance.randbytes
        time.perf_counter_ns = lambda: next(ticks)
        asyncio.to_thread = self._at_once  # type: ignore[assignment]
        self.disk.install()
        self.outside.install()
        try:
            yield
        finally:
            time.monotonic, time.perf_counter_ns, os.urandom, asyncio.to_thread = before
            self.disk.remove()
            self.outside.remove()

    # ---- the runtime -----------------------------------------------------------------------------------

    def start(self) -> None:
        """The runtime starts; the gateway finds it a moment later."""
        loop = LifeLoop(self.loop)
        try:
            self.life = Life(self, loop, self._drive_refused)
        except StorageFailed as error:
            self.tell("refused at the start", error.message)
            self.loop.call_later(5.0, self.start)
            return
        self.checks.began(self.life)
        self._connect(self.life)

    def _connect(self, life: Life) -> None:
        def connect() -> None:
            if self.life is life and not self.gateway.connected:
                self.gateway.connect(life)

        self.loop.call_later(self.chance.expovariate(1 / 2.0), connect)

    async def furnish(self) -> None:
        """Playbooks and subscriptions; nothing goes wrong meanwhile."""
        self.start()
        life = self.life
        assert life is not None
        for blueprint in self.work.playbooks:
            life.engine.catalog.register(blueprint.data, lambda path, new: None)
            await life.gate.flushed()  # all in one group would not fit into a segment
        for each in subscriptions():
            life.subscriptions.register(each.data, lambda path, new: None)
        await life.gate.flushed()
        self.numbers = {intake.subscription.path: intake.number for intake in life.subscriptions.all()}

    def _ended(self, what: str) -> Life:
        life = self.life
        assert life is not None
        self.tell(what, life.gate.durable_seq)
        self.counts[what] += 1
        self.gateway.disconnect()
        self.life = None
        life.loop.over = True
        return life

    def _finish_job(self, life: Life) -> None:
        """The job under way gets as far as it gets, and what workers were at, too; nobody hears of it."""
        job = life.jobs["journal"].under_way
        if job is not None and self.chance.random() < 0.6:
            with contextlib.suppress(StorageFailed):
                job()
        for work in life.pool.waiting:
            if self.chance.random() < 0.5:
                life.pool.work(work)

    def kill(self) -> None:
        """The process dies; what it wrote stays."""
        life = self._ended("kill")
        self._finish_job(life)
        life.leave()
        self.loop.call_later(self.chance.choice([0.3, 0.3, 5.0, 400.0]), self.start)

    def cut(self) -> None:
        """The power fails, and comes back some time later."""
        life = self._ended("cut")
        self.disk.power_fails = True
        self._finish_job(life)
        life.leave()
        self.disk.cut()
        off_s = self.chance.expovariate(1 / self.chance.choice([10.0, 600.0, 6 * HOUR_S]))
        self.loop.call_later(off_s, self._power, round(off_s * 1e9))

    def _power(self, off_ns: int) -> None:
        self.boot = self.chance.randbytes(16)
        shows = self.chance.choice(["true", "last", "last", "1970"])
        self.clock.boot(shows, off_ns)
        self.tell("boot", shows)
        if self.calm or self.chance.random() < 0.85:
            self.loop.call_later(self.chance.uniform(0, 200), self.clock.synchronise)
        self.start()

    def _drive_refused(self) -> None:
        if self.life is None:
            return
        life = self._ended("refused")
        life.leave()
        self.loop.call_later(5.0, self.start)

    async def stop(self) -> None:
        """An update: the runtime ends in order and starts again."""
        life = self.life
        assert life is not None
        await life.gate.flushed()
        if self.life is not life:
            return  # the drive refused meanwhile
        self.tell("stop", life.gate.durable_seq)
        self.gateway.disconnect()
        self.life = None
        await life.stop()
        self.loop.call_later(1.0, self.start)

    # ---- retention, and the world outside ----------------------------------------------------------------

    def _terms(self) -> Terms:
        """How long this box keeps its log."""
        chance = self.chance
        centre, age_s = chance.random() < 0.4, chance.choice([0, 6 * HOUR_S, 24 * HOUR_S])
        budget_bytes = chance.choice([0, 500 * KIB, 1_000 * KIB])
        policy = chance.choice([OLDEST, THIN] if not age_s else [OLDEST, THIN, HOLD])
        return Terms(centre, age_s, budget_bytes, policy)

    def store_upstream(self) -> None:
        """The centre has the log up to some event, and sync writes down its receipt."""
        groups = self.checks.ends
        if self.terms.centre and groups:
            through, link = groups[-1] if self.calm else self.chance.choice(groups[-40:])
            life = self.life
            if life is not None:
                upstream.write(self.folder, upstream.Receipt(life.journal.log_id, through, link))
                self.checks.receipted = max(self.checks.receipted, through)

    def _carried_out(self, execution_id: str, step: str) -> None:
        self.counts["effects"] += 1
        self.checks.effect(int(execution_id.rpartition("-")[2]), step)

    # ---- clients ---------------------------------------------------------------------------------------

    def ask(self) -> None:
        """A client asks for something, and again until it has its answer."""
        asked = self.work.draw(len(self.asked))
        asked.first_ns, asked.boots = self.clock.true_ns, self.clock.boots
        self.asked[asked.name] = asked
        self.tell("ask", asked.name, asked.playbook)
        self._send(asked)

    def _send(self, asked: Asked) -> None:
        if asked.answer is not None:
            return
        self.network.carry(lambda: self.gateway.request(asked))
        asked.again_s = min(2 * asked.again_s, HOUR_S)
        again_s = asked.again_s if asked.seq is None else _ANSWER_AGAIN_S
        self.loop.call_later(self.chance.uniform(0.5, 1.5) * again_s, self._send, asked)

    def _receipt(self, asked: Asked, seq: int) -> None:
        self.checks.accepted(asked, seq)
        self.network.carry(lambda: self._told_receipt(asked, seq))

    def _told_receipt(self, asked: Asked, seq: int) -> None:
        self.tell("receipt", asked.name, seq)
        asked.seq = seq

    def _refused(self, asked: Asked, problem: dict[str, Any]) -> None:
        assert problem["code"] == "storage_full", f"{asked.name} was refused: {problem}"
        self.counts["refusals"] += 1

    def _answer(self, request_id: str, execution: int, payload: bytes) -> None:
        asked = self.asked[request_id]
        self.checks.answered(asked, execution, payload)
        self.network.carry(lambda: self._told_answer(asked, payload))

    def _told_answer(self, asked: Asked, payload: bytes) -> None:
        if asked.answer is None:
            self.tell("answer", asked.name)
            self.counts["answers"] += 1
        asked.answer = payload

    def call_back(self) -> None:
        """Somebody uses a token, perhaps for the second time."""
        life = self.life
        calls = [each for each in self.asked.values() if each.playbook == "call"]
        waiting = [each for each in calls if each.seq is not None and each.answer is None]
        if life is None or not waiting:
            return
        asked = self.chance.choice(waiting)
        assert asked.seq is not None
        durable = life.gate.events_of(asked.seq, last=life.gate.durable_seq)
        bodies = [event.body for event in durable if isinstance(event.body, TaskDone)]
        token = next((decode(body.value) for body in bodies if body.task == "ask" and body.value), None)
        if token is not None:
            asked.callback = {"n": asked.number}
            payload = b'{"n": %d}' % asked.number
            self.counts["callbacks"] += 1
            self.network.carry(lambda: self.gateway.callback(token, payload, self._called))

    def _called(self, how: str) -> None:
        allowed = ("received", "callback_used", "callback_expired", "callback_ended")
        assert how in allowed, f"a callback was {how}"
        self.tell("callback", how)

    def publish(self) -> None:
        """A message for the subscription, perhaps with an id that came before."""
        key = f"k{self.chance.randrange(_KEYS)}" if self.chance.random() < 0.6 else None
        number = len(self.messages) + 1
        message = Message(self.numbers["messages"], number % 65_535 + 1, b'{"n": %d}' % number, key)
        self.messages.append(message)
        self._publish(message)

    def _publish(self, message: Message) -> None:
        """As a broker does: once, and again only over a new connection, which the gateway's hold stands for."""
        self.counts["messages"] += 1
        delay_s = self.chance.expovariate(1 / 0.01)
        self.loop.call_later(delay_s, self.gateway.message, message)

    def later(self, usual_s: float, call: Callable[[], object]) -> None:
        """Some time from now."""
        self.loop.call_later(self.chance.expovariate(1 / usual_s), call)

    async def _at_once(self, job: Callable[..., Any], *arguments: Any) -> Any:
        """In place of a thread: a job that happens all at once, a moment later."""
        await self.loop.pass_s(0.001)
        return job(*arguments)
