"""The real engine in one process, closed again after each test; a centre, and the log of a pump guard.

Used by the tests of the engine and of the centre; whoever needs others makes them. Must never start a process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.testing.box import Box
from tests.in_memory import memory, tmp_path

if TYPE_CHECKING:
    from tests.unit.central_rig import Centre, Pump

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


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    """A centre's folder; the libraries of its tables are loaded for who asks."""
    from tests.unit.central_rig import Centre

    return Centre(tmp_path / "centre")


@pytest.fixture
def pump(tmp_path: Path) -> Pump:
    """A box's log that a test writes."""
    from tests.unit.central_rig import Pump

    return Pump(tmp_path / "pump")
