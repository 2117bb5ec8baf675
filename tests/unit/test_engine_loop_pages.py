"""Loops whose items page through something: pauses, intents and records of each item by itself."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import StepStarted, TaskDone
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.plain import playbook
from tests.unit.loop_rig import committed, looping


def then(do: str, when: str | None = None, **more: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"then": {"do": do, **more}}
    return {"when": when, **rule} if when is not None else {"else": rule}


def task(name: str, text: str, effect: str, *rules: Any, **given: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"effect": effect, **({"policy": {"rules": list(rules)}} if rules else {})}
    return {"name": name, "kind": "python", "code": text, "input": given, "spec": spec}


#: NoETL's canonical shape: a parallel loop, and for each item pages fetched in order, with retries between.
PAGES: list[dict[str, Any]] = [
    {
        "name": "init",
        "kind": "noop",
        "spec": {"policy": {"rules": [then("continue", set_iter={"page": 1, "got": []})]}},
    },
    task(
        "fetch",
        "if page == 2 and attempt < 3: raise ValueError('busy')\nresult = {'page': page, 'more': page < x}",
        "read",
        then("retry", "{{ output.status == 'error' }}", attempts=5, delay=0.5, backoff="exponential"),
        then("continue", set={"iter.got": "{{ iter.got + [output.data.page] }}"}),
        page="{{ iter.page }}",
        attempt="{{ _attempt }}",
    ),
    task("store", "result = page * 100", "write", then("continue"), page="{{ iter.page }}"),
    {
        "name": "paginate",
        "kind": "transform",
        "value": "{{ iter.got }}",
        "spec": {
            "policy": {
                "rules": [
                    then("jump", "{{ fetch.more }}", to="fetch", set={"iter.page": "{{ iter.page + 1 }}"}),
                    then("break"),
                ]
            }
        },
    },
]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_pages_for_each_item(box: Box, mode: str) -> None:
    """Each item pages through by itself, pauses without a worker, and stores every page once behind its intent."""
    await box.register(playbook(looping([3, 1, 2], PAGES, mode)))
    box.submit("t")
    pauses = await box.settle_with_pauses()
    assert box.document()["result"] == [[1, 2, 3], [1], [1, 2]]
    assert sorted(pauses) == [500, 500, 1000, 1000]
    events = box.engine.events_of(box.receipts[0].seq)
    stored = Counter(e.iteration for e in events if isinstance(e.body, TaskDone) and e.body.task == "store")
    assert stored == {(0,): 3, (1,): 1, (2,): 2}
    started = Counter((e.iteration, e.body.number) for e in events if isinstance(e.body, StepStarted))
    assert set(started.values()) == {1}


async def test_a_cut_in_the_pages_repeats_no_recorded_page(tmp_path: Path) -> None:
    """Cut at every flush, items go on from their own record: no stored page has a second outcome."""
    steps = looping([3, 1, 2], PAGES, spec={"on_unknown": "retry"})
    whole = Box(tmp_path / "whole")
    await whole.register(playbook(steps))
    whole.submit("t")
    pictures = []
    while True:
        await whole.gate.flushed()
        pictures.append(whole.photograph(tmp_path / f"cut{len(pictures)}"))
        if not whole.pool.run():
            if not whole.pauses:
                break
            whole.pauses.pop(0)[1]()
    execution = whole.receipts[0].seq
    await whole.close()
    assert len(pictures) > 10
    for picture in pictures[::3]:
        again = Box(picture)
        await again.settle_with_pauses()
        state = again.engine.state_of(execution)
        events = again.engine.events_of(execution)
        assert fold(events) == state
        assert state.status == "completed"
        assert committed(again, execution) == Counter(range(3))
        done = Counter((e.iteration, e.body.number) for e in events if isinstance(e.body, TaskDone))
        assert set(done.values()) == {1}, "a task of an item has one recorded outcome"
        await again.close()
        shutil.rmtree(picture)
