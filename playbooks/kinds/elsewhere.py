"""Published kinds that are not here, each with the reason.

Read by `playbooks.tasks` only. A kind that comes to be here leaves this list.
"""

from __future__ import annotations

from typing import Final

#: Kinds that come with a later issue.
LATER_KINDS: Final = frozenset(
    {
        "agent",
        "artifact",
        "device",
        "iterator",
        "mcp",
        "model",
        "playbooks",
        "provider",
        "result_fetch",
        "rhai",
        "script",
        "secrets",
        "subscription",
        "task_sequence",
        "wasm",
    }
)
#: Kinds that stay in a data centre.
CENTRE_KINDS: Final = frozenset(
    {
        "clickhouse",
        "container",
        "ducklake",
        "gateway",
        "gcs",
        "mysql",
        "nats",
        "postgres",
        "snowflake",
        "snowflake_transfer",
        "transfer",
    }
)
