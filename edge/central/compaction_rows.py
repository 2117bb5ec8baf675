"""A segment's events as rows of the central tables: fixed columns for the envelope, the body whole as JSON.

The schema is the same for every box and every release and is never inferred: what a body holds is one text, and the
few fields that the views need stand beside it. Called by `edge.central.compaction` for each segment, and it walks the
segment's groups to their end, which is the deep check. It must never need to know an event's type to keep the event:
a newer box's goes in under its number.

Ids are texts: DuckDB has given no rows for binary ids behind a bloom filter.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

import pyarrow as pa

from edge.core.codec import decode
from edge.core.errors import SegmentRejected
from edge.core.events import BODIES
from edge.core.values import TableRef, ValueRef
from edge.segments.sealed import Sealed

#: What the rows mean: tables of another projection are made again from the segments.
PROJECTION: Final = f"1.{max(body.CODE for body in BODIES)}.{len(BODIES)}"

_T, _I = pa.string(), pa.int64()
SCHEMA: Final = pa.schema(
    [
        pa.field("box", _T, nullable=False),
        pa.field("log_id", _T, nullable=False),
        pa.field("execution", _I),
        pa.field("seq", _I, nullable=False),
        pa.field("type", _T, nullable=False),
        pa.field("step", _T),
        pa.field("visit", pa.int32(), nullable=False),
        pa.field("iteration", _T),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("cause", _I),
        pa.field("at_utc", pa.timestamp("us"), nullable=False),
        pa.field("clock", pa.int8(), nullable=False),
        pa.field("mono_ns", _I, nullable=False),
        pa.field("boot_id", _T, nullable=False),
        pa.field("status", _T),
        pa.field("code", _T),
        pa.field("digest", _T),
        pa.field("duration_us", _I),
        pa.field("segment", _I, nullable=False),
        pa.field("linked", pa.bool_(), nullable=False),
        pa.field("body", _T, nullable=False),
    ]
)

_NAMES: Final = {body.CODE: tuple(f.name for f in fields(body)) for body in BODIES}
_TYPES: Final = {body.CODE: body.TYPE for body in BODIES}
FINISHED: Final = "playbook.execution.finished"
#: Fields that hold a value as CBOR inside: shown as what they hold.
_CBOR_FIELDS: Final = frozenset({"value", "items", "results", "iter", "result", "blueprint"})
_DIGEST_BYTES: Final = 32


class Rows:
    """Columns that grow event by event, and become one Arrow table."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def table(self) -> pa.Table:
        """All of them. Raises SegmentRejected where a number does not fit its column."""
        try:
            return pa.table(self.columns, schema=SCHEMA)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise SegmentRejected(f"An event does not fit the tables: {error}.") from error


def table_of(sealed: Sealed, *, linked: bool) -> pa.Table:
    """All events of a segment, in order, every link of the chain looked at on the way. Raises SegmentRejected."""
    rows = Rows()
    said = sealed.manifest
    columns = rows.columns
    clocks: list[tuple[int, int, int, str, int]] = []
    for each in sealed.groups():
        group = each.group
        at = group.context.at
        clocks.append(
            (
                at.wall_ns // 1000,
                at.wall_trust,
                at.mono_ns,
                group.context.boot_id.hex(),
                len(group.parts) // 2,
            )
        )
        _add(columns, group.first_seq, group.parts)
    count = len(columns["seq"])
    columns["box"] = [said.box] * count
    columns["log_id"] = [said.log_id.hex()] * count
    columns["segment"] = [said.number] * count
    columns["linked"] = [linked] * count
    for place, name in enumerate(("at_utc", "clock", "mono_ns", "boot_id")):
        columns[name] = [row[place] for row in clocks for _ in range(row[4])]
    return rows.table()


def _add(columns: dict[str, list[Any]], first_seq: int, parts: list[bytes]) -> None:
    """The events of one group, into the columns that differ from event to event."""
    for seq, (envelope, body) in enumerate(zip(parts[::2], parts[1::2], strict=True), first_seq):
        try:
            _add_event(columns, seq, decode(envelope), decode(body))
        except (ValueError, TypeError, IndexError) as error:
            raise SegmentRejected(f"Event {seq} cannot be read: {error}.") from error


def _add_event(columns: dict[str, list[Any]], seq: int, envelope: Any, body: Any) -> None:
    if type(envelope) is not list or type(body) is not dict:
        raise ValueError("it is no event")
    given = [*envelope[:_FIELDS], *_DEFAULTS[len(envelope) :]]
    code, execution, step, visit, attempt, iteration, cause = given
    kind = _TYPES.get(code) or f"number {int(code)}"
    names = _NAMES.get(code, ())
    named = {names[key] if 0 <= key < len(names) else str(key): value for key, value in body.items()}
    problem, digest = named.get("problem"), named.get("digest")
    columns["execution"].append(seq if execution == 0 else execution)
    columns["seq"].append(seq)
    columns["type"].append(kind)
    columns["step"].append(step)
    columns["visit"].append(visit)
    columns["iteration"].append("/".join(map(str, iteration)) if iteration else None)
    columns["attempt"].append(attempt)
    columns["cause"].append(cause)
    columns["status"].append(named.get("status", "completed") if kind == FINISHED else None)
    columns["code"].append(_text((problem if type(problem) is dict else named).get("code")))
    columns["digest"].append(digest.hex() if type(digest) is bytes else None)
    columns["duration_us"].append(named.get("duration_us"))
    columns["body"].append(as_json(named))


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


_DEFAULTS: Final[tuple[Any, ...]] = (None, None, None, 0, 1, (), None)
_FIELDS: Final = len(_DEFAULTS)


def as_json(named: dict[str, Any]) -> str:
    """A body as JSON: values that stand in it as CBOR are opened, digests are hexadecimal, other bytes base64."""
    for name, value in named.items():
        if type(value) is bytes:
            named[name] = _opened(name, value)
    try:
        return _ENCODE(named)
    except (ValueError, TypeError):  # a number that JSON has no sign for, or a key that is no text
        return _ENCODE(_plain(named))


def _opened(name: str, value: bytes) -> Any:
    if name in _CBOR_FIELDS:
        try:
            return decode(value)
        except ValueError:
            return _readable(value)
    if name == "payload":
        return _payload(value)
    return _readable(value)


def _payload(value: bytes) -> Any:
    """What came in is JSON as a rule; what is not stays text, or base64. Half a character can be written nowhere."""
    try:
        if b"\\ud" not in value.lower():
            return json.loads(value.decode())
    except (ValueError, RecursionError):
        pass
    return _readable(value)


def _readable(value: bytes) -> Any:
    if len(value) == _DIGEST_BYTES:
        return value.hex()
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _other(value: Any) -> Any:
    """What JSON does not know by itself."""
    if type(value) is bytes:
        return _readable(value)
    if isinstance(value, TableRef):
        return {"key": value.key, "digest": value.digest.hex(), "bytes": value.size_bytes, "rows": value.rows}
    if isinstance(value, ValueRef):
        return {"key": value.key, "digest": value.digest.hex(), "bytes": value.size_bytes}
    return str(value)


def _plain(value: Any) -> Any:
    if type(value) is dict:
        return {key if type(key) is str else str(key): _plain(each) for key, each in value.items()}
    if type(value) is list:
        return [_plain(each) for each in value]
    if type(value) is float and not math.isfinite(value):
        return str(value)
    return value


_ENCODE: Final[Callable[[Any], str]] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_other
).encode
