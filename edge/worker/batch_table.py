"""The messages of a subscription's batch as one Arrow table.

Called by `edge.worker.hydrate` when a step looks at the table; made from what the claim carries, so that the runtime
never opens a payload for it. The same messages give the same table. It must never fail over one message: what cannot
be read becomes a row of nulls, with the reason in `_problem`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pyarrow as pa

from edge.core.codec import decode, decode_cbor_payload, decode_json_payload
from edge.core.errors import PayloadInvalid
from edge.core.limits import SUBSCRIPTION_COLUMNS_MAX
from edge.core.values import TableRef

_TYPES: Final = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "json": pa.string(),
}
_INT64: Final = 2**63


def is_batch(ref: TableRef) -> bool:
    """Whether a request's table is a batch of messages: its rows are known, its columns are not."""
    return ref.rows is not None and ref.columns is None


def batch_table(data: bytes) -> pa.Table:
    """The table of a batch: a row for each message, in the order they were received.

    `data` is CBOR of `[[column, type]] or null, [[seq, topic, received ns, content type, payload], …]`. After the
    messages' own columns come `_topic`, `_seq`, `_received_ns` and `_problem` (null where the row is whole).
    """
    declared, messages = _parts(data)
    rows: list[dict[str, Any]] = []
    problems: list[str | None] = []
    for _, _, _, content_type, payload in messages:
        row, problem = _row(content_type, payload)
        rows.append(row)
        problems.append(problem)
    columns = [(str(name), str(kind)) for name, kind in declared] if declared else _inferred(rows, problems)
    names = [name for name, _ in columns]
    arrays = [_column(name, kind, rows, problems) for name, kind in columns]
    own = {
        "_topic": pa.array([message[1] for message in messages], pa.string()),
        "_seq": pa.array([message[0] for message in messages], pa.int64()),
        "_received_ns": pa.array([message[2] for message in messages], pa.int64()),
        "_problem": pa.array(problems, pa.string()),
    }
    return pa.table([*arrays, *own.values()], names=[*names, *own])


def _parts(data: bytes) -> tuple[list[Any] | None, list[Any]]:
    made = decode(data)
    assert isinstance(made, list), "the runtime sends two lists"
    return made[0], made[1]


def _row(content_type: str | None, payload: bytes) -> tuple[dict[str, Any], str | None]:
    """What a message says by column, or why it says nothing."""
    kind = (content_type or "application/json").split(";")[0].strip().lower()
    try:
        if kind == "application/cbor":
            value = decode_cbor_payload(payload)
        elif kind == "application/json":
            value = decode_json_payload(payload)
        else:
            return {}, f"The content type {kind!r:.80} is neither JSON nor CBOR."
    except PayloadInvalid as error:
        return {}, error.message
    if type(value) is not dict:
        return {}, f"The payload is {type(value).__name__}, not a map."
    # Names with an underscore are the box's; CBOR allows keys that are no names at all.
    return {name: item for name, item in value.items() if type(name) is str and name[:1] != "_"}, None


def _inferred(rows: list[dict[str, Any]], problems: list[str | None]) -> list[tuple[str, str]]:
    """The columns of what the messages say, in the order in which they first say it."""
    kinds: dict[str, str | None] = {}
    for place, row in enumerate(rows):
        for name, value in row.items():
            if name not in kinds and len(kinds) >= SUBSCRIPTION_COLUMNS_MAX:
                problems[place] = (
                    f"A table has at most {SUBSCRIPTION_COLUMNS_MAX} columns; {name!r:.80} is left out."
                )
                continue
            known, kind = kinds.get(name), _kind(value)
            if known is None or kind is None:
                kinds[name] = known or kind
            elif known != kind:
                numbers = {known, kind} == {"int64", "float64"}
                kinds[name] = "float64" if numbers else "json"
    return [(name, kind or "string") for name, kind in kinds.items()]


def _kind(value: Any) -> str | None:
    if value is None:
        return None
    if type(value) is int:
        return "int64" if -_INT64 <= value < _INT64 else "json"
    plain = {bool: "bool", float: "float64", str: "string", bytes: "binary"}
    return plain.get(type(value), "json")


def _column(name: str, kind: str, rows: list[dict[str, Any]], problems: list[str | None]) -> pa.Array:
    cells = []
    for place, row in enumerate(rows):
        cell = row.get(name)
        if cell is not None:
            cell = _cell(kind, cell)
            if cell is None and problems[place] is None:
                problems[place] = f"{name!r:.80} is no {kind}."
        cells.append(cell)
    return pa.array(cells, _TYPES[kind])


def _cell(kind: str, value: Any) -> Any:
    """A value as its column holds it; None where it cannot."""
    if kind == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=lambda other: other.hex())
    if kind == "float64" and type(value) is int:
        return float(value) if abs(value) <= 2**53 else None
    if kind == "int64":
        return value if type(value) is int and -_INT64 <= value < _INT64 else None
    wanted = {"bool": bool, "float64": float, "string": str, "binary": bytes}[kind]
    return value if type(value) is wanted else None
