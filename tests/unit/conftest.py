"""The real engine in one process, closed again after each test.

Used by the tests of the engine; whoever needs a box with other settings makes one of its own. Must never start a
process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.testing.box import Box
from tests.in_memory import memory, tmp_path

__all__ = ["memory", "tmp_path"]


@pytest.fixture(params=["before it serves", "by and by"])
def taken_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """When a runtime takes up what the log leaves open: by and by what seems to rest, where that is very much."""
    if request.param == "by and by":
        monkeypatch.setattr("edge.runtime.executions.engine._TAKEN_UP_MAX", 0)
    return str(request.param)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A box with its homes in `tmp_path`."""
    made = Box(tmp_path)
    yield made
    await made.close()
