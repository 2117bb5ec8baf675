"""What simulated clients ask for, and what must come of it: random playbooks, waits, callbacks, deadlines, children.

Owned by `tests.sim.world`. Each kind judges its answers by the truth: the reference interpreter of tests/properties,
and how much time really passed, which no clock of the box knows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from edge.testing.plain import playbook
from playbooks.blueprint import Blueprint
from playbooks.documents import compile_document
from playbooks.subscription import Subscription
from tests.properties import whole_reference
from tests.properties.whole_playbooks import compiled, models
from tests.sim.network import Asked
from tests.sim.outside import Outside
from tests.sim.virtual_time import BoxClock, S

MODELS: Final = 12
HOUR_S: Final = 3_600
CALLBACK_S: Final = 2 * HOUR_S
TICK_S: Final = 600
WINDOW_S: Final = HOUR_S
#: Clocks are read a moment before or after things happen.
_SLACK_NS: Final = 2 * S
_WAIT: Final = {"name": "rest", "kind": "wait"}

Judge = Callable[[dict[str, Any], Asked], None]


def random_models(number: int) -> list[whole_reference.Model]:
    """Random whole playbooks, the same for the same number."""
    found: list[whole_reference.Model] = []

    @settings(
        max_examples=3 * MODELS,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(models())
    def collect(model: whole_reference.Model) -> None:
        found.append(model)

    collect()
    return found[-MODELS:]


def step(name: str, tool: Any, **more: Any) -> dict[str, Any]:
    """One step."""
    return {"step": name, "tool": tool, **more}


def fixed_playbooks() -> list[Blueprint]:
    """Those that are not random."""
    ask = {
        "name": "ask",
        "kind": "python",
        "code": "result = token",
        "input": {"token": "{{ callback.token }}"},
    }
    answer = {**_WAIT, "callback": True, "timeout": f"{CALLBACK_S}s"}
    each = {"in": "{{ workload.s }}", "iterator": "x", "spec": {"mode": "parallel"}}
    child = {"kind": "playbook", "path": "rest", "input": {"s": "{{ workload.s }}"}}
    return [
        playbook([step("s", {**_WAIT, "seconds": "{{ workload.s }}"})], "rest"),
        playbook([step("s", [ask, answer])], "call"),
        playbook([step("s", {**_WAIT, "duration": "20d"})], "long"),
        playbook([step("s", {**_WAIT, "seconds": "{{ x }}"}, loop=each)], "each"),
        playbook([step("s", child)], "parent"),
        playbook([step("s", {"kind": "transform", "value": "{{ workload }}"})], "take"),
        *effects("once", "fail"),
        *effects("again", "retry"),
    ]


def effects(name: str, on_unknown: str) -> list[Blueprint]:
    """Playbooks that change the world: once, twice in a pipeline, for each of some items."""
    spec = {"on_unknown": on_unknown, "policy": {"access": {"hosts": ["outside:80"]}}}
    write = {"kind": "http", "method": "POST", "url": "http://outside:80/"}
    two = [{"name": "a", **write}, {"name": "b", **write}]
    made = [playbook([step("s", write, spec=spec)], f"{name}-one")]
    made.append(playbook([step("s", two, spec=spec, next=["t"]), step("t", write, spec=spec)], f"{name}-two"))
    for mode in ("sequential", "parallel"):
        loop = {"in": "{{ [1, 2, 3, 4] }}", "iterator": "x", "spec": {"mode": mode}}
        made.append(playbook([step("s", write, loop=loop, spec=spec)], f"{name}-{mode}"))
    return made


#: How many effects each of them has.
EFFECTS: Final = {"one": 1, "two": 3, "sequential": 4, "parallel": 4}


def subscriptions() -> list[Subscription]:
    """Messages with ids, a plain timer and an aligned one."""
    dispatch = {"playbook": "take"}
    specs: dict[str, dict[str, Any]] = {
        "messages": {
            "source": "mqtt",
            "topics": ["a/#"],
            "dedup": {"enabled": True, "window_secs": WINDOW_S},
        },
        "timer": {"source": "timer", "every": f"{TICK_S}s"},
        "aligned": {"source": "timer", "every": f"{TICK_S}s", "align": True},
    }
    made = []
    for path, spec in specs.items():
        body = {**spec, "dispatch": dispatch}
        meta = {"name": path, "path": path}
        source = {"apiVersion": "noetl.io/v2", "kind": "Subscription", "metadata": meta, "spec": body}
        document = compile_document(json.dumps(source).encode(), "s.yaml")
        assert isinstance(document, Subscription)
        made.append(document)
    return made


class Work:
    """Draws what a client asks for next."""

    def __init__(self, number: int, chance: random.Random, clock: BoxClock, outside: Outside) -> None:
        self._chance, self._clock, self._outside = chance, clock, outside
        self._models = random_models(number)
        self._said = [whole_reference.run(model) for model in self._models]
        self.playbooks = fixed_playbooks()
        self.playbooks += [compiled(model, f"m{place}") for place, model in enumerate(self._models)]

    def draw(self, number: int) -> Asked:
        """One more request."""
        chance = self._chance
        kinds = [self._model] * 4 + [self._rest, self._call, self._late, self._each, self._parent]
        kinds += [self._effect] * 3
        return chance.choice(kinds)(number)

    def _asked(
        self, number: int, path: str, given: Any, judge: Judge, deadline_ms: int | None = None
    ) -> Asked:
        return Asked(number, path, json.dumps(given).encode(), judge, deadline_ms)

    def _length_s(self) -> float:
        usual_s = self._chance.choice([1.0, 60.0, HOUR_S, 12 * HOUR_S])
        return round(min(self._chance.expovariate(1 / usual_s), 48 * HOUR_S), 3)

    def _model(self, number: int) -> Asked:
        place = self._chance.randrange(len(self._models))
        said = self._said[place]

        def judge(document: dict[str, Any], asked: Asked) -> None:
            assert document["status"] == said.status, (document, said)
            if said.fatal:
                assert document["error"]["step"] in said.fatal, (document, said)
            else:
                assert _plainly(document["result"]) == said.answer, (document, said)

        return self._asked(number, f"m{place}", {}, judge)

    def _passed_ns(self, asked: Asked) -> int:
        return self._clock.true_ns - asked.first_ns + _SLACK_NS

    def _rested(self, told: dict[str, Any], asked: Asked, length_s: float) -> None:
        """A wait that says how it was judged."""
        assert told["by"] in ("boottime", "wall", "after_power_loss"), told
        if told["by"] == "after_power_loss":
            assert self._clock.boots > asked.boots, "no power cut, and yet nobody knows"
        else:
            assert self._passed_ns(asked) >= length_s * S, ("too early", told, length_s)
            assert told["waited_ms"] >= 0

    def _rest(self, number: int) -> Asked:
        length_s = self._length_s()
        return self._asked(
            number, "rest", {"s": length_s}, lambda d, asked: self._rested(d["result"], asked, length_s)
        )

    def _each(self, number: int) -> Asked:
        lengths = [self._length_s() for _ in range(self._chance.randrange(1, 5))]

        def judge(document: dict[str, Any], asked: Asked) -> None:
            assert len(document["result"]) == len(lengths), document
            for told, length_s in zip(document["result"], lengths, strict=True):
                self._rested(told, asked, length_s)

        return self._asked(number, "each", {"s": lengths}, judge)

    def _parent(self, number: int) -> Asked:
        length_s = self._length_s()
        return self._asked(
            number, "parent", {"s": length_s}, lambda d, asked: self._rested(d["result"], asked, length_s)
        )

    def _call(self, number: int) -> Asked:
        def judge(document: dict[str, Any], asked: Asked) -> None:
            if document["status"] == "completed":
                assert document["result"] == asked.callback, (document, asked.callback)
                return
            error = document["error"]
            assert error["code"] == "callback_timeout", document
            unknown = error["by"] == "after_power_loss" and self._clock.boots > asked.boots
            assert unknown or self._passed_ns(asked) >= CALLBACK_S * S, ("too early", document)

        return self._asked(number, "call", {}, judge)

    def _late(self, number: int) -> Asked:
        deadline_ms = round(self._length_s() * 1_000) + 1

        def judge(document: dict[str, Any], asked: Asked) -> None:
            assert document["error"]["code"] == "deadline_exceeded", document
            in_time = self._passed_ns(asked) >= deadline_ms * 1_000_000
            assert in_time or self._clock.boots > asked.boots, ("too early", document)

        return self._asked(number, "long", {}, judge, deadline_ms)

    def _effect(self, number: int) -> Asked:
        policy, shape = self._chance.choice(["once", "again"]), self._chance.choice(list(EFFECTS))

        def judge(document: dict[str, Any], asked: Asked) -> None:
            times = self._outside.of(document["execution_id"])
            if document["status"] == "completed":
                assert len(times) == EFFECTS[shape], (document, times)
            else:
                assert (policy, document["error"]["code"]) == ("once", "outcome_unknown"), document
            assert policy == "again" or max(times, default=0) <= 1, ("repeated", document, times)

        return self._asked(number, f"{policy}-{shape}", {}, judge)


def _plainly(value: Any) -> Any:
    """As the reference has it: what a wait gave is only said to have waited."""
    if isinstance(value, list):
        return [_plainly(each) for each in value]
    return whole_reference.WAITED if isinstance(value, dict) else value
