"""A box with subscriptions, and what is read of it: the rig of the tests of subscriptions over the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.core.codec import decode
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, StepDone
from edge.core.subscription_events import (
    MessageReceived,
)
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.worker.claims import FAILED, Outcome
from playbooks.documents import compile_document
from playbooks.subscription import Subscription

MEAN = playbook(
    [
        {
            "step": "rows",
            "tool": {
                "kind": "arrow",
                "table": "{{ workload.table }}",
                "ops": [{"project": {k: f"{{{{ {k} }}}}" for k in ("_seq", "_topic", "n", "_problem")}}],
                "output": "rows",
            },
        }
    ],
    "take/rows",
)
ONE = playbook([{"step": "one", "tool": {"kind": "transform", "value": "{{ workload }}"}}], "take/one")
OTHER = playbook([{"step": "two", "tool": {"kind": "transform", "value": "{{ n }}"}}], "take/other")
TABLE: dict[str, Any] = {"dispatch": {"playbook": "take/rows", "batch_dispatch": True}}


def subscription(path: str = "in/s", **spec: Any) -> Subscription:
    """A compiled subscription of topics below `a/`, one message for each execution unless said otherwise."""
    body = {"source": "mqtt", "topics": ["a/#"], "dispatch": {"playbook": "take/one"}, **spec}
    if body["source"] == "timer":
        del body["topics"]
    source = {
        "apiVersion": "noetl.io/v2",
        "kind": "Subscription",
        "metadata": {"name": "s", "path": path},
        "spec": body,
    }
    made = compile_document(json.dumps(source).encode(), "s.yaml")
    assert isinstance(made, Subscription)
    return made


def timer(**spec: Any) -> Subscription:
    """A compiled timer."""
    return subscription(**{"source": "timer", "every": "10s", **spec})


async def opened(folder: Path, **options: Any) -> Box:
    """A box with the playbooks of these tests."""
    box = Box(folder, **options)
    for each in (MEAN, ONE, OTHER):
        await box.register(each)
    return box


def requests(box: Box) -> list[ExecutionRequested]:
    """The executions of subscriptions, in order."""
    return [event.body for event in box.events() if isinstance(event.body, ExecutionRequested)]


def ranges(box: Box) -> list[list[Any]]:
    """What they took: `[first, last, count, lane, attempt]`."""
    return [request.batch[1:] for request in requests(box) if request.batch is not None]


def of_kind(box: Box, kind: type) -> list[Event]:
    """Events of one type."""
    return [event for event in box.events() if isinstance(event.body, kind)]


def outputs(box: Box) -> list[Any]:
    """The outputs of all steps, in order."""
    return [decode(event.body.value) for event in of_kind(box, StepDone)]  # type: ignore[attr-defined]


def assert_each_once(box: Box) -> None:
    """Every message is in exactly one range, and each range's execution completed once."""
    messages = [event.seq for event in of_kind(box, MessageReceived)]
    taken = [
        seq for first, last, count, _, _ in ranges(box) for seq in messages if first <= seq <= last and count
    ]
    assert taken == messages
    ends = [event.body.status for event in of_kind(box, ExecutionFinished)]  # type: ignore[attr-defined]
    assert ends == ["completed"] * len(ranges(box))


def failing_on(bad: Callable[[Any], bool], box: Box) -> Callable[[Any], list[Outcome]]:
    """A pool that fails claims whose workload is bad."""

    def answer(work: Any) -> list[Outcome]:
        if bad(decode(work.claim.workload)):
            return [Outcome(FAILED, problem={"code": "bad", "message": "It is bad."})]
        return box.pool.work(work)

    return answer
