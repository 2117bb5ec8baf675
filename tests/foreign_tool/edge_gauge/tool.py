"""The tool itself, loaded by the worker that runs it."""

from collections.abc import Mapping
from typing import Any

from edge.core.errors import ToolFailed
from edge.tools.contract import ToolContext

UNITS = ("bar", "°C", "rpm")


class GaugeTool:
    """Writes a reading with its unit."""

    kind = "gauge"
    author_code = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """The text. Raises ToolFailed `gauge_unit`."""
        keys = context.render(config["keys"])
        if keys["unit"] not in UNITS:
            raise ToolFailed(
                f"{keys['unit']!r:.40} is no unit.",
                code="gauge_unit",
                mend=f"Write one of {', '.join(UNITS)}.",
            )
        return f"{keys.get('value', 0)} {keys['unit']}"


TOOL = GaugeTool()
