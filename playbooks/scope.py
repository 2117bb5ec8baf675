"""The names an expression sees, and which wins where two things have one name.

Called once per evaluation site by the scheduler and the workers. A bare name is looked up in this order:

1. the fixed names: `workload`, `ctx`, `execution_id`, `args`, and inside a tool `input` = `input_data`;
2. the step's own inputs (inside a tool), then what the token carries: `args` is both, the inputs first;
3. results of steps that have run, by step name;
4. `ctx` values, newest patch wins;
5. `workload` values.

4 and 5 are not copied into the scope: a name node looks there when the scope itself has no such key, so a
scope costs the same whatever the workload holds, and stays right where a caller replaces `ctx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def build_scope(
    workload: Mapping[str, Any],
    ctx: Mapping[str, Any],
    results: Mapping[str, Any],
    execution_id: str,
    inputs: Mapping[str, Any] | None,
    args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A scope for `evaluate`. Values are shared, not copied; `inputs` is None outside a tool."""
    fixed = {"workload": workload, "ctx": ctx, "execution_id": execution_id}
    if args:
        if inputs is None:
            return {**results, **args, **fixed, "args": args}
        inputs = {**args, **inputs}
    elif inputs is None:
        return {**results, **fixed, "args": {}}
    return {**results, **inputs, **fixed, "args": inputs, "input": inputs, "input_data": inputs}
