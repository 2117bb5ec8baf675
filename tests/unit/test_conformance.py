"""Constructs of NoETL's language, one small playbook each, in the style of published ones: what they mean there they
mean here. The table in playbooks/DESIGN.md refers to these by name.
"""

from __future__ import annotations

import textwrap

import pytest

from edge.core.codec import decode, encode
from edge.core.events import ExecutionRequested, StepDone, StepFailed
from edge.core.state import fold
from edge.testing.box import Box
from playbooks.compile import compile_playbook
from tests.unit.conformance_example import HEAD, Example
from tests.unit.conformance_routing import ROUTING
from tests.unit.conformance_tools import TOOLS

EXAMPLES: dict[str, Example] = ROUTING | TOOLS


def test_no_example_hides_another() -> None:
    """Names of examples are those of one set, whatever file they stand in."""
    assert len(EXAMPLES) == len(ROUTING) + len(TOOLS)


@pytest.mark.parametrize("name", list(EXAMPLES))
async def test_means_here_what_it_means_there(box: Box, name: str) -> None:
    """Path, answer and ctx of one construct's playbook."""
    example = EXAMPLES[name]
    source = HEAD + textwrap.dedent(example.source)
    blueprint = await box.register(compile_playbook(source.encode(), f"{name}.yaml"))
    box.submit(blueprint.path, encode(example.given), content_type="application/cbor", form="local")
    await box.settle_with_pauses()
    events = box.events()
    seq = next(event.seq for event in events if isinstance(event.body, ExecutionRequested))
    mine = [event for event in events if event.seq == seq or event.execution == seq]
    state = fold(mine)
    assert (state.problem or {}).get("code") == example.problem, state.problem
    assert state.status == ("completed" if example.problem is None else "failed")
    assert [event.step for event in mine if isinstance(event.body, StepDone | StepFailed)] == example.path
    assert state.ctx == (example.ctx or {})
    if example.result is not None:
        assert decode(box.answers[-1].payload)["result"] == example.result
