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
from functools import lru_cache
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


def table_of(sealed: Sealed, *, linked: bool) -> pa.Table:
    """All events of a segment, in order, every link of the chain looked at on the way. Raises SegmentRejected."""
    said = sealed.manifest
    rows: list[tuple[Any, ...]] = []
    clocks: list[tuple[Any, ...]] = []
    for each in sealed.groups():
        group = each.group
        at, parts = group.context.at, group.parts
        clock = (at.wall_ns // 1000, at.wall_trust, at.mono_ns, group.context.boot_id.hex())
        for seq, (envelope, body) in enumerate(zip(parts[::2], parts[1::2], strict=True), group.first_seq):
            rows.append(_row(seq, envelope, body))
            clocks.append(clock)
    columns = dict(zip(_OF_EVENT, zip(*rows, strict=True), strict=True))
    columns |= zip(_OF_CLOCK, zip(*clocks, strict=True), strict=True)
    for name, value in (
        ("box", said.box),
        ("log_id", said.log_id.hex()),
        ("segment", said.number),
        ("linked", linked),
    ):
        columns[name] = pa.repeat(pa.scalar(value, SCHEMA.field(name).type), len(rows))
    try:
        return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise SegmentRejected(f"An event does not fit the tables: {error}.") from error


_OF_CLOCK: Final = ("at_utc", "clock", "mono_ns", "boot_id")
_OF_EVENT: Final = (
    *("execution", "seq", "step", "visit", "iteration", "attempt", "cause"),
    *("type", "status", "code", "digest", "duration_us", "body"),
)
_DEFAULTS: Final[tuple[Any, ...]] = (None, None, None, 0, 1, (), None)
_FIELDS: Final = len(_DEFAULTS)


def _row(seq: int, envelope: bytes, body: bytes) -> tuple[Any, ...]:
    """One event, in the order of `_OF_EVENT`. Raises SegmentRejected."""
    try:
        given = decode(envelope)
        if type(given) is not list:
            raise ValueError("its envelope is no list")
        whole = [*given[:_FIELDS], *_DEFAULTS[len(given) :]]
        code, execution, step, visit, attempt, iteration, cause = whole
        path = "/".join(map(str, iteration)) if iteration else None
        said = _often(code, body) if len(body) <= _OFTEN_BYTES_MAX else _said(code, body)
        return (seq if execution == 0 else execution, seq, step, visit, path, attempt, cause, *said)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise SegmentRejected(f"Event {seq} cannot be read: {error}.") from error


def _said(code: Any, body: bytes) -> tuple[Any, ...]:
    """What a body says: its type, what stands beside it in columns of its own, and all of it as JSON."""
    values = decode(body)
    if type(values) is not dict:
        raise ValueError("its body is no map")
    kind = _TYPES.get(code) or f"number {int(code)}"
    names = _NAMES.get(code, ())
    named = {names[key] if 0 <= key < len(names) else str(key): value for key, value in values.items()}
    problem, digest = named.get("problem"), named.get("digest")
    return (
        kind,
        named.get("status", "completed") if kind == FINISHED else None,
        _text((problem if type(problem) is dict else named).get("code")),
        digest.hex() if type(digest) is bytes else None,
        named.get("duration_us"),
        as_json(named),
    )


#: Intents, ends and the like say the same again and again; what is longer seldom does.
_OFTEN_BYTES_MAX: Final = 64
_often: Final = lru_cache(maxsize=4096)(_said)


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


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
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, default=_other
).encode
