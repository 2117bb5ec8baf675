"""Tool kinds: what each takes under `tool:`, and what becomes of it in the blueprint.

One module for each kind. Asked by `playbooks.tasks`, `playbooks.steps` and `playbooks.executor`. A new kind is a
module here, a line in KINDS, a line in `playbooks.shape.CONFIG_TREES` and one in `edge.tools.registry`.
"""

from __future__ import annotations

from typing import Final

from playbooks.kinds.arrow import ARROW
from playbooks.kinds.elsewhere import CENTRE_KINDS, LATER_KINDS
from playbooks.kinds.http import HTTP
from playbooks.kinds.kind import Kind
from playbooks.kinds.mqtt import MQTT
from playbooks.kinds.plain import NOOP, TRANSFORM
from playbooks.kinds.playbook import PLAYBOOK
from playbooks.kinds.python import PYTHON
from playbooks.kinds.shell import SHELL
from playbooks.kinds.sql import DUCKDB, SQL
from playbooks.kinds.wait import WAIT

__all__ = ["CENTRE_KINDS", "KINDS", "LATER_KINDS", "Kind"]

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
