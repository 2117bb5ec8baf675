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


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A box with its homes in `tmp_path`."""
    made = Box(tmp_path)
    yield made
    await made.close()
