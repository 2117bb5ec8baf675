"""Tool kinds: what each takes under `tool:`, and what becomes of it in the blueprint.

One module for each kind. Asked by `playbooks.tasks`, `playbooks.steps` and `playbooks.executor`. A new kind is a
module here, a line in KINDS, a line in `playbooks.shape.CONFIG_TREES` and one in `edge.tools.registry`.
"""

from __future__ import annotations

from typing import Final

from playbooks.kinds.arrow import ARROW
from playbooks.kinds.elsewhere import ABSENT_KINDS, CENTRE_KINDS
from playbooks.kinds.foreign import foreign_kind, foreign_names
from playbooks.kinds.http import HTTP
from playbooks.kinds.kind import Kind
from playbooks.kinds.mqtt import MQTT
from playbooks.kinds.plain import NOOP, TRANSFORM
from playbooks.kinds.playbook import PLAYBOOK
from playbooks.kinds.python import PYTHON
from playbooks.kinds.shell import SHELL
from playbooks.kinds.sql import DUCKDB, SQL
from playbooks.kinds.wait import WAIT

__all__ = ["ABSENT_KINDS", "CENTRE_KINDS", "KINDS", "Kind", "all_kinds", "kind_of"]

KINDS: Final[dict[str, Kind]] = {
    "arrow": ARROW,
    "duckdb": DUCKDB,
    "http": HTTP,
    "mqtt": MQTT,
    "noop": NOOP,
    "playbook": PLAYBOOK,
    "python": PYTHON,
    "shell": SHELL,
    "sql": SQL,
    "transform": TRANSFORM,
    "wait": WAIT,
}


def kind_of(name: str) -> Kind | None:
    """The kind of that name: ours, or else an installed package's."""
    return KINDS.get(name) or (None if name in CENTRE_KINDS or name in ABSENT_KINDS else foreign_kind(name))


def all_kinds() -> dict[str, Kind]:
    """Ours, and those of installed packages, by name."""
    found = {name: kind_of(name) for name in [*foreign_names(), *KINDS]}
    return {name: kind for name, kind in sorted(found.items()) if kind is not None}
