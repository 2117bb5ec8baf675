"""Playbooks of one loop, run on a box, and what was committed of it: the rig of the tests of loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edge.core.events import LoopItems
from edge.testing.box import Box
from edge.testing.plain import playbook


def looping(given: Any, tool: Any, mode: str = "parallel", **step: Any) -> list[dict[str, Any]]:
    """One step over the items, and one that answers with what it collected."""
    spec = step.pop("loop_spec", {})
    loop = {"in": given, "iterator": "x", "spec": {"mode": mode, **spec}}
    return [
        {"step": "each", "loop": loop, "tool": tool, "next": ["after"], **step},
        {"step": "after", "tool": {"kind": "transform", "value": "{{ each }}"}},
    ]


def value(given: Any) -> dict[str, Any]:
    return {"kind": "transform", "value": given}


def code(text: str, effect: str = "read") -> dict[str, Any]:
    return {"kind": "python", "code": text, "spec": {"effect": effect}}


async def run(box: Box, steps: list[dict[str, Any]], **root: Any) -> Any:
    await box.register(playbook(steps, **root))
    box.submit("t")
    await box.settle()
    return box.document().get("result", box.document().get("error"))


def committed(box: Box, execution: int | None = None) -> Counter[int]:
    """How often each index has a committed outcome."""
    wanted = execution if execution is not None else box.receipts[0].seq
    bodies = [e.body for e in box.engine.events_of(wanted) if isinstance(e.body, LoopItems)]
    return Counter(index for body in bodies for index in range(body.first, body.first + body.count))
