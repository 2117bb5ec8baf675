"""The `arrow` kind: column expressions over one table. Pure. (Being written.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.errors import ToolFailed
from edge.tools.contract import ToolContext


class ArrowTool:
    """Runs compiled column operations on one table."""

    kind: Final = "arrow"
    author_code: Final = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Not there yet."""
        raise ToolFailed("The arrow tool is not there yet.")


TOOL: Final = ArrowTool()
