"""Circuit breakers on the real engine, with a real server and virtual time: tripping, probing, restarts, resets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.errors import RequestRefused
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.loopback import Server, serving
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from playbooks.blueprint import Blueprint
from playbooks.compile import check_playbook

NS_PER_S = 1_000_000_000


class Downstream:
    """A server that is up or down, and how often it was asked."""

    def __init__(self, server: Server) -> None:
        self.server, self.up = server, True
        server.answers["/"] = lambda h: h.say(200, b"1") if self.up else h.say(503, b"")
        server.answers["/wrong"] = lambda h: h.say(400, b"")

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def asked(self) -> int:
        return len(self.server.seen)

    def step(self, path: str = "/", breaker: Any = None, **more: Any) -> dict[str, Any]:
        policy = {
            "access": {"hosts": ["127.0.0.1"]},
            "breaker": breaker or {"trip_after": 3, "probe_after": "10s"},
        }
        tool = {"name": "call", "kind": "http", "url": self.server.url(path), **more}
        return {"step": "s", "spec": {"policy": policy}, "tool": tool}


@pytest.fixture
def downstream() -> Iterator[Downstream]:
    with serving({}) as server:
        yield Downstream(server)


async def call(box: Box) -> str:
    """One execution: "ok" or its error's code."""
    box.submit("t")
    await box.settle()
    document = box.document()
    return "ok" if document["status"] == "completed" else str(document["error"]["code"])


def turns(box: Box) -> list[str]:
    return [event.type for event in box.events() if isinstance(event.body, CircuitOpened | CircuitClosed)]


async def open_it(box: Box, downstream: Downstream, blueprint: Blueprint) -> None:
    await box.register(blueprint)
    downstream.up = False
    assert [await call(box) for _ in range(4)] == ["http_status"] * 3 + ["circuit_open"]


async def test_it_opens_after_failures_in_a_row(box: Box, downstream: Downstream) -> None:
    """So many failures in a row open it; then calls fail at once, with the time until one may try."""
    await open_it(box, downstream, playbook([downstream.step()]))
    assert downstream.asked == 3
    assert 0 < box.document()["error"]["retry_after_ms"] <= 10_000
    assert turns(box) == ["circuit.opened"]
    (known,) = box.engine.executor.circuits.listed()
    assert (known["downstream"], known["state"], known["failures"]) == (downstream.name, "open", 3)


async def test_a_success_in_between_counts_anew(box: Box, downstream: Downstream) -> None:
    """Failures that do not follow one another open nothing, and what the caller did wrong is none."""
    await box.register(playbook([downstream.step()]))
    for up in (False, False, True, False, False):
        downstream.up = up
        await call(box)
    await box.register(playbook([downstream.step("/wrong")]))
    assert await call(box) == "http_status"
    assert turns(box) == []


async def test_one_call_probes(tmp_path: Path, downstream: Downstream) -> None:
    """After its time one call tries, no two; its failure opens it again, its success closes it."""
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    await open_it(box, downstream, playbook([downstream.step()]))
    clock.advance(10 * NS_PER_S)
    box.submit("t")
    box.submit("t")
    await box.settle()
    codes = [answer.payload for answer in box.answers[-2:]]
    assert [b"circuit_open" in code for code in codes] == [False, True]
    assert downstream.asked == 4
    assert await call(box) == "circuit_open"
    clock.advance(10 * NS_PER_S)
    downstream.up = True
    assert [await call(box), await call(box)] == ["ok", "ok"]
    assert turns(box) == ["circuit.opened", "circuit.opened", "circuit.closed"]
    assert box.engine.executor.circuits.listed() == []
    await box.close()


async def test_a_probe_that_does_not_come_to_it_leaves_it_to_another(
    tmp_path: Path, downstream: Downstream
) -> None:
    """A worker that dies over the probe does not keep the circuit half-open for ever."""
    clock = ManualClock()
    box = Box(tmp_path, clock=clock)
    await open_it(box, downstream, playbook([downstream.step()]))
    clock.advance(10 * NS_PER_S)
    downstream.up = True
    work = box.pool.work
    answers = iter([Lost()])
    box.pool.answer = lambda claim: next(answers, None) or work(claim)
    assert await call(box) == "ok"
    assert turns(box) == ["circuit.opened", "circuit.closed"]
    await box.close()


async def test_it_is_open_after_a_restart(tmp_path: Path, downstream: Downstream) -> None:
    """What stands in the log holds in the next runtime, and its time goes on by the clocks."""
    clock = ManualClock()
    box = Box(tmp_path / "a", clock=clock)
    await open_it(box, downstream, playbook([downstream.step()]))
    again = Box(box.photograph(tmp_path / "b"), clock=clock)
    await box.close()
    assert await call(again) == "circuit_open"
    assert downstream.asked == 3
    clock.advance(11 * NS_PER_S)
    downstream.up = True
    assert await call(again) == "ok"
    third = Box(again.photograph(tmp_path / "c"), clock=clock)
    await again.close()
    assert third.engine.executor.circuits.listed() == []
    await third.close()


async def test_retries_of_one_claim_stop_too(box: Box, downstream: Downstream) -> None:
    """A policy that tries again at once meets the open circuit within its claim, and can jump away."""
    downstream.up = False
    step = downstream.step()
    rule = {"when": "{{ output.error.kind == 'server_error' }}", "then": {"do": "retry", "attempts": 10}}
    away = {"else": {"then": {"do": "continue", "set": {"ctx.why": "{{ [output.error.kind, _attempt] }}"}}}}
    step["tool"]["spec"] = {"policy": {"rules": [rule, away]}}
    step["tool"] = [step["tool"], {"name": "end", "kind": "transform", "value": "{{ ctx.why }}"}]
    await box.register(playbook([step]))
    assert await call(box) == "ok"
    assert box.document()["result"] == ["circuit_open", 4]
    assert downstream.asked == 3
    assert turns(box) == ["circuit.opened"]


async def test_it_is_shared_by_playbooks_and_names_its_host(box: Box, downstream: Downstream) -> None:
    """Another playbook with a breaker meets the same circuit; one without is not held."""
    await open_it(box, downstream, playbook([downstream.step()]))
    await box.register(playbook([downstream.step()], path="other"))
    plain = downstream.step()
    del plain["spec"]["policy"]["breaker"]
    await box.register(playbook([plain], path="plain"))
    for path, code in (("other", "circuit_open"), ("plain", "http_status")):
        box.submit(path)
        await box.settle()
        assert box.document()["error"]["code"] == code


async def test_by_hand(box: Box, downstream: Downstream) -> None:
    """`edge circuit reset` closes it, in the log; what is not open cannot be reset."""
    await open_it(box, downstream, playbook([downstream.step()]))
    said: list[str] = []
    box.engine.executor.circuits.reset(downstream.name, lambda: said.append("closed"))
    assert said == []
    await box.gate.flushed()
    assert said == ["closed"]
    downstream.up = True
    assert await call(box) == "ok"
    with pytest.raises(RequestRefused):
        box.engine.executor.circuits.reset(downstream.name, lambda: None)


def test_numbers() -> None:
    """`true` takes NoETL's numbers, `false` switches an outer one off, a task's goes over its step's."""
    http = {"kind": "http", "url": "http://h/"}

    def breaker(step: Any, task: Any = None) -> Any:
        spec = {} if task is None else {"spec": {"policy": {"breaker": task}}}
        policy = {"access": {"hosts": ["h"]}, "breaker": step}
        made = playbook([{"step": "s", "spec": {"policy": policy}, "tool": {**http, **spec}}]).steps[0]
        assert not made.pipeline
        found = made.tasks[0].breaker
        return None if found is None else (found.trip_after, found.probe_after_ms)

    assert breaker(True) == (5, 30_000)
    assert breaker({"trip_after": 2, "probe_after_ms": 500}) == (2, 500)
    assert breaker({"probe_after": "2m"}, {"trip_after": 1}) == (1, 30_000)
    assert breaker(True, False) is None


@pytest.mark.parametrize(
    ("breaker", "said"),
    [
        ("{trip_after: ¶0}", "whole number"),
        ("{probe_after: ¶soon}", "length of time"),
        ("{¶probe_interval: 5}", "a call of a playbook is the probe"),
        ("¶[]", "must be a map"),
    ],
)
def test_refusals(breaker: str, said: str) -> None:
    """Numbers that are none are refused at their place."""
    head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\nworkflow:\n  - step: a\n"
    line = "    spec: {policy: {breaker: "
    before, _, after = breaker.partition("¶")
    source = f"{head}{line}{before}{after}}}}}\n    tool: {{kind: noop}}\n"
    (problem,) = check_playbook(source.encode(), "p.yaml")
    assert said in problem.message
    assert problem.column == len(line) + len(before) + 1
