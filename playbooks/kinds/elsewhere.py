"""Published kinds that are not here, each with the reason.

Read by `playbooks.tasks` and `playbooks.reference`. A kind that comes to be here leaves its list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_DATABASE: Final = (
    "It talks to a database server: run it at the centre, and send it rows by http, mqtt or a bundle."
)
_WAREHOUSE: Final = "It moves data between stores of a data centre: run it there, on what the box has sent."
#: Kinds that stay in a data centre, and what to do instead.
CENTRE_KINDS: Final[Mapping[str, str]] = {
    "clickhouse": _DATABASE,
    "container": "It starts containers on a cluster; here run a granted program by `shell`.",
    "ducklake": "Its catalog is a database server; here use `sql` on tables.",
    "gateway": "It calls NoETL's own gateway; a box is reached over MQTT.",
    "gcs": "It writes to a cloud store with the centre's rights; a box sends to the centre.",
    "mysql": _DATABASE,
    "nats": "NATS joins the services of a cluster; here use `mqtt`.",
    "postgres": _DATABASE,
    "snowflake": _WAREHOUSE,
    "snowflake_transfer": _WAREHOUSE,
    "transfer": _WAREHOUSE,
}

_CODE: Final = "Code from elsewhere is not fetched or loaded here; write it under `kind: python`."
#: Kinds that could be here and are not, and what to write instead.
ABSENT_KINDS: Final[Mapping[str, str]] = {
    "agent": "Call the model's own interface by `http`, and loop by a task's policy.",
    "artifact": "A large result is kept by itself; write `output: {store: …}` or `select`.",
    "device": "Devices are reached by a python block with `access.devices`, or over MQTT.",
    "iterator": "It was withdrawn from NoETL; write `loop` on the step.",
    "mcp": "Call the server by `http`, with its JSON-RPC body.",
    "model": "No model runtime is on the box; call one by `http` or a granted program.",
    "playbooks": "Write a task of `kind: playbook` for each, or a loop over one.",
    "provider": "It asks a cloud's own interface; call that by `http`.",
    "quantum": "Submit the job by `http`, and ask how far it is by a rule that jumps.",
    "result": "A reference to a large result is read by itself wherever its name stands.",
    "result_fetch": "A reference to a large result is read by itself wherever its name stands.",
    "rhai": _CODE,
    "script": _CODE,
    "secrets": "Name an alias of the keychain under `auth`.",
    "subscription": "Write a document of its own, `kind: Subscription`.",
    "task_sequence": "Write the tasks as a list under `tool`.",
    "wasm": _CODE,
}
