"""The `noop` kind: does nothing and answers null, for steps that only route.

Called by workers through the registry. Must never look at its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.tools.contract import ToolContext


class NoopTool:
    """Answers None."""

    kind: Final = "noop"
    author_code: Final = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Return None."""
        return None


TOOL: Final = NoopTool()
