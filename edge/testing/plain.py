"""Folded state as plain JSON, and short playbooks as blueprints: what tests compare and what they start from."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from playbooks.blueprint import Blueprint
from playbooks.compile import compile_playbook


def plain(value: Any) -> Any:
    """Any value of the fold, as JSON can say it: bytes as {"hex": …}, dataclasses as maps with their name.

    Fields at their default are left out, so that a field added later does not change what an old log folds to.
    """
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made: dict[str, Any] = {"is": type(value).__name__}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if item != _default(field):
                made[field.name] = plain(item)
        return made
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def playbook(steps: list[dict[str, Any]], path: str = "t", **root: Any) -> Blueprint:
    """A blueprint, compiled from its workflow given as Python values (JSON is YAML)."""
    source = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": path.rpartition("/")[2], "path": path},
        **root,
        "workflow": steps,
    }
    return compile_playbook(json.dumps(source).encode(), f"{path}.yaml")
