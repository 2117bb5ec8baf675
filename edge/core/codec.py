"""CBOR in and out: deterministic for what we write, strict for what comes from outside.

The only door to cbor2. Blueprints are encoded canonically (sorted keys, RFC 8949 §4.2), because their digest
is their identity. Events and frames are arrays and maps emitted in a fixed order and hashed as stored
bytes: canonical sorting would cost five times as much (measured 7.0 µs against 1.4 µs).

cbor2 with its defaults accepts what hangs or confuses us (measured: tag 4 with a huge exponent hangs a later
`int()`, tag 35 hands over a catastrophic regex, duplicate keys and trailing bytes pass), so every decoder
here refuses tags, indefinite lengths and duplicate keys; payloads from outside may have no trailing bytes.
"""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any, Final

import cbor2

from edge.core.errors import PayloadInvalid
from edge.core.limits import VALUE_DEPTH_MAX
from edge.core.values import BlockRef, TableRef, ValueRef

#: Content types of the payloads that a box reads.
JSON: Final = "application/json"
CBOR: Final = "application/cbor"
ARROW: Final = "application/vnd.apache.arrow.stream"

#: Private CBOR tag of a table reference inside our own frames and events (never accepted from outside).
TABLE_TAG: Final = 40_961
#: The same of a reference to a large value.
VALUE_TAG: Final = 40_962

#: Depth of our own frames: a value at full depth inside an outcome inside a frame.
_FRAME_DEPTH_MAX: Final = VALUE_DEPTH_MAX + 32

Value = Any
"""A plain value (None, bool, int, float, str, bytes, list of values, dict of str to values) or a BlockRef."""


def _encode_other(encoder: cbor2.CBOREncoder, value: object) -> None:
    if type(value) is ValueRef:
        # As bytes: what stands inside a tag is decoded to values of other types, which cannot be changed.
        selected = None if value.selected is None else encode(value.selected)
        parts = [value.key, value.digest, value.size_bytes, value.preview, selected]
        encoder.encode(cbor2.CBORTag(VALUE_TAG, parts))
        return
    if type(value) is not TableRef:
        raise TypeError(f"{type(value).__name__} is not a value")
    columns = None if value.columns is None else list(value.columns)
    body = [value.key, value.digest, value.size_bytes, value.rows, columns]
    encoder.encode(cbor2.CBORTag(TABLE_TAG, body))


def encode(value: object) -> bytes:
    """Deterministic for what we build: keys in the order given, shortest integers, no references."""
    return cbor2.dumps(value, default=_encode_other)


def encode_canonical(value: object) -> bytes:
    """RFC 8949 §4.2.1 core deterministic encoding: the same value gives the same bytes everywhere."""
    return cbor2.dumps(value, canonical=True)


def _refuse_tag(*_: object) -> Any:
    raise PayloadInvalid("The CBOR payload carries a tag.", mend="Send plain numbers, texts, lists and maps.")


_KNOWN_TAGS: Final = (
    *range(6),
    25,
    *range(28, 31),
    *range(35, 38),
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
)
_REFUSE: Final[dict[int, Any]] = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)


def _decode_own_tag(tag: cbor2.CBORTag, *_: object) -> BlockRef:
    if tag.tag == VALUE_TAG:
        key, digest, size_bytes, preview, selected = tag.value
        return ValueRef(key, digest, size_bytes, preview, None if selected is None else decode(selected))
    if tag.tag != TABLE_TAG:
        raise ValueError(f"tag {tag.tag} is not one of ours")
    key, digest, size_bytes, rows, columns = tag.value
    return TableRef(key, digest, size_bytes, rows, None if columns is None else tuple(columns))


def decode(data: bytes | memoryview) -> Any:
    """Decode a frame or event of our own. Raises ValueError where it is not one."""
    try:
        return cbor2.loads(
            data,
            tag_hook=_decode_own_tag,
            max_depth=_FRAME_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=_REFUSE,
        )
    except (cbor2.CBORError, EOFError) as error:
        raise ValueError(f"not a frame of ours: {error}") from error


def decode_cbor_payload(data: bytes) -> Value:
    """Decode a CBOR payload from outside. Raises PayloadInvalid; no tags, no surprises, no trailing bytes."""
    stream = BytesIO(data)
    try:
        value = cbor2.load(
            stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSE,
            max_depth=VALUE_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            read_size=1,
        )
    except PayloadInvalid:
        raise
    except (cbor2.CBORError, ValueError, EOFError, RecursionError, OverflowError) as error:
        raise PayloadInvalid(f"The payload is not valid CBOR: {error}.", mend="Check the encoder.") from error
    if stream.tell() != len(data):
        raise PayloadInvalid(
            f"The CBOR payload ends at byte {stream.tell()} but {len(data)} came.", mend="Send one item only."
        )
    return check_plain(value)


def decode_json_payload(data: bytes) -> Value:
    """Decode a JSON payload from outside. Raises PayloadInvalid naming line and column."""
    try:
        value = json.loads(data, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except PayloadInvalid:
        raise
    except json.JSONDecodeError as error:
        raise PayloadInvalid(
            f"The payload is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}.",
            mend="Send UTF-8 JSON, or name another content type.",
        ) from error
    except UnicodeDecodeError as error:
        raise PayloadInvalid(
            f"The payload is not UTF-8 at byte {error.start}.", mend="Send UTF-8 JSON."
        ) from error
    except RecursionError as error:
        raise PayloadInvalid(
            f"The value is nested deeper than {VALUE_DEPTH_MAX}.", mend="Flatten it."
        ) from error
    except ValueError as error:  # Python bounds the digits it makes a number of
        raise PayloadInvalid("An integer does not fit in 64 bits.", mend="Send it as text.") from error
    return check_plain(value)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PayloadInvalid(f"The key {twice!r} stands twice in one JSON object.", mend="Keep one of them.")
    return made


def _refuse_constant(name: str) -> Any:
    raise PayloadInvalid(f"{name} is not JSON.", mend="Send null where there is no number.")


def check_plain(value: Any, depth: int = 0) -> Value:
    """The value itself if it is plain, finite and no deeper than VALUE_DEPTH_MAX; else PayloadInvalid."""
    if depth > VALUE_DEPTH_MAX:
        raise PayloadInvalid(f"The value is nested deeper than {VALUE_DEPTH_MAX}.", mend="Flatten it.")
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _check_text(value)
    if value is None or kind is bool or kind is bytes:
        return value
    if kind is int:
        if not -(2**63) <= value < 2**64:
            raise PayloadInvalid("An integer does not fit in 64 bits.", mend="Send it as text.")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise PayloadInvalid("A number is not finite.", mend="Send null where there is no number.")
        return value
    if kind is list or kind is tuple:
        for item in value:
            check_plain(item, depth + 1)
        return value
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise PayloadInvalid(f"A map key is {type(key).__name__}, not text.", mend="Use text keys.")
            if not key.isascii():
                _check_text(key)
            check_plain(item, depth + 1)
        return value
    raise PayloadInvalid(f"A value is {kind.__name__}.", mend="Use numbers, texts, bytes, lists and maps.")


def _check_text(text: str) -> str:
    """JSON may hold half a character (a lone surrogate); it can be written down nowhere."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PayloadInvalid(
            f"A text holds half a character at place {error.start}.", mend="Send whole Unicode characters."
        ) from error
    return text
