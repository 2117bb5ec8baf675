"""The `transform` kind: one value, made by the playbook's own expressions. Pure.

Called by workers through the registry. Must never do more than render: bounds and errors are the evaluator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.errors import ToolFailed
from edge.tools.contract import ToolContext


class TransformTool:
    """Renders `config["value"]` in the step's scope."""

    kind: Final = "transform"
    author_code: Final = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Return the rendered value. Raises EvaluationFailed from the evaluator."""
        if "value" not in config:
            raise ToolFailed(
                f"Step {context.step!r}: a transform has no `value`.", mend="Write `value:` under the tool."
            )
        return context.render(config["value"])


TOOL: Final = TransformTool()
