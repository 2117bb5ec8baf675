"""Where a plain result goes: into the reply where it is small, else into a block of the cache.

Called by `edge.worker.hydrate` and `edge.worker.pipeline`. It decides by size and by what the tool's `output`
says; it never looks at effects and never opens the log.
"""

from __future__ import annotations

import json
from typing import Any, Final

from edge.core.codec import check_plain, decode, encode
from edge.core.errors import PayloadInvalid, ToolFailed
from edge.core.limits import SELECTED_BYTES_MAX, VALUE_BYTES_MAX
from edge.core.values import ValueRef
from edge.store.cache import BlockStore
from playbooks.deferred import Deferred
from playbooks.outputs import Output, selected

_BYTES_SHOWN: Final = 32


def encoded(output: Any, name: str) -> bytes:
    """A plain output as CBOR. Raises ToolFailed where it cannot be kept."""
    try:
        value = encode(check_plain(output))
    except PayloadInvalid as error:
        raise ToolFailed(
            f"Step {name} returned what cannot be kept: {error.message}",
            mend="Return numbers, texts, lists, maps or one table.",
            code="result_invalid",
        ) from error
    if len(value) > VALUE_BYTES_MAX:
        raise ToolFailed(
            f"Step {name} returned {len(value)} bytes; a value may have {VALUE_BYTES_MAX}.",
            mend="Return a table (pyarrow.Table), or less.",
            code="result_too_large",
        )
    return value


def kept(blocks: BlockStore, key: str, name: str, how: Output, output: Any) -> bytes | ValueRef:
    """A plain output as its CBOR bytes, or as the block `key` where it is over the inline bound.

    Raises ToolFailed, CacheMiss, Unavailable.
    """
    data = encoded(output, name)
    if len(data) <= how.inline_bytes:
        return data
    parts = selected(how, output) or None
    if parts is not None and len(encode(parts)) > SELECTED_BYTES_MAX:
        raise ToolFailed(
            f"Step {name} selects more than {SELECTED_BYTES_MAX} bytes of its result.",
            mend="Select single values; the whole result is there on demand.",
            code="selected_too_large",
        )
    digest = blocks.write_bytes(key, data)
    return ValueRef(key, digest, len(data), preview_of(output, how.preview_bytes), parts)


def fetched_later(blocks: BlockStore, ref: ValueRef) -> Deferred:
    """A large value as templates see it: read when they ask for more than its selected parts."""
    return Deferred(ref.selected or {}, lambda: decode(blocks.read_bytes(ref)))


def preview_of(value: Any, length: int) -> str:
    """The first `length` characters of a value as JSON."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False, default=_shown).iterencode(value):
        text += part[:length]
        if len(text) >= length:
            break
    return text[:length]


def _shown(value: Any) -> str:
    """Bytes, and whatever else JSON has no word for."""
    return value[:_BYTES_SHOWN].hex() if type(value) is bytes else str(value)[:_BYTES_SHOWN]
