"""Arrow IPC streams: the bytes of a table, and a table of bytes that we or somebody else wrote.

Owns the stream format of blocks and payloads (uncompressed). Called by `edge.store.cache`, workers and whoever
sends or shows a table. Must never copy a table's data on reading, and never import numpy.

A stream from outside is validated in full before use: Arrow itself ends the process on damaged streams (45 of
60 batches of damaged streams did in our measurements), so validation runs where a crash is cheap, in a worker.

The usual stream is a schema and one batch. Arrow's stream classes cost 20 to 45 µs on it, mostly for parsing the
same schema again and again; reading the two messages with the schema kept costs 5 to 15 (measured in a worker
under load). Everything else takes Arrow's own way.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pyarrow as pa

from edge.core.errors import PayloadInvalid

OPTIONS: Final = pa.ipc.IpcWriteOptions()
_MEND_STREAM: Final = "Send an Arrow IPC stream as pyarrow.ipc.new_stream writes it, uncompressed."
#: Columns of a table from outside; a record batch carries every one even when it has no rows.
_COLUMNS_MAX: Final = 1_024
#: What a message and the end of a stream begin with (Arrow columnar format, "Encapsulated message format").
_CONTINUATION: Final = b"\xff\xff\xff\xff"
_END: Final = _CONTINUATION + bytes(4)
_HEAD_BYTES: Final = 8
#: Schemas kept by the bytes of their message; all of them were checked. A worker meets few.
_SCHEMAS_MAX: Final = 64
_SCHEMA_BYTES_MAX: Final = 16 * 1024
_schemas: dict[bytes, pa.Schema] = {}


def stream_from_table(table: pa.Table) -> bytes:
    """The table as one Arrow IPC stream, uncompressed."""
    return serialized(table)


def stream_from_rows(rows: list[dict[str, Any]]) -> bytes:
    """Rows as one Arrow IPC stream. Raises PayloadInvalid where a column's values are of several kinds."""
    try:
        return serialized(pa.Table.from_pylist(rows))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        mend = "Let all values of a column be of one kind."
        raise PayloadInvalid(f"These rows are no table: {error}", mend=mend) from error


def serialized(table: pa.Table) -> bytes:
    """The same bytes as `pa.RecordBatchStreamWriter` writes, at a third of its cost for a small table."""
    schema = table.schema
    head = schema.serialize().to_pybytes()
    if head not in _schemas and _kept_schema(head) is None:
        sink = pa.BufferOutputStream()
        writer = pa.RecordBatchStreamWriter(sink, schema, options=OPTIONS)
        writer.write_table(table)
        writer.close()
        return bytes(sink.getvalue().to_pybytes())
    return b"".join([head, *(batch.serialize() for batch in table.to_batches()), _END])


def own_table(block: pa.Buffer) -> pa.Table:
    """The table of a stream that our own `serialized` made, as its digest says; nothing is copied."""
    found = _single_batch(block)
    if found is None:
        return pa.RecordBatchStreamReader(block).read_all()
    schema, message = found
    return pa.Table.from_batches([pa.ipc.read_record_batch(message, schema)], schema)


def table_from_stream(data: bytes) -> pa.Table:
    """The table of an Arrow IPC stream from outside, validated in full. Raises PayloadInvalid.

    The table refers to `data`; nothing is copied. A damaged stream may end the process inside Arrow in
    spite of all checks: call this where that is cheap.
    """
    return validated_table(pa.py_buffer(data))


def validated_table(block: pa.Buffer) -> pa.Table:
    """The table of a stream nobody vouches for: framing, schema, then every batch in full, then use."""
    try:
        found = _single_batch(block)
        if found is None:
            return _validated_stream(block)
        schema, message = found
        if _is_compressed(bytes(message.metadata)):
            raise PayloadInvalid("The Arrow stream is compressed.", mend=_MEND_STREAM)
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
        _check_rows(batch.num_rows, block)
        return pa.Table.from_batches([batch], schema)
    except PayloadInvalid:
        raise
    except (pa.ArrowException, OSError, MemoryError, ValueError, struct.error, OverflowError) as error:
        raise PayloadInvalid(f"The Arrow stream is damaged: {error}.", mend=_MEND_STREAM) from error


def _single_batch(block: pa.Buffer) -> tuple[pa.Schema, pa.Message] | None:
    """Schema and batch of a stream of just these two; None for any other, however it differs."""
    head = block.slice(0, _HEAD_BYTES).to_pybytes()
    if len(head) < _HEAD_BYTES or head[:4] != _CONTINUATION:
        return None
    schema_bytes = _HEAD_BYTES + int.from_bytes(head[4:], "little")
    if schema_bytes > min(_SCHEMA_BYTES_MAX, block.size - 2 * _HEAD_BYTES):
        return None
    name = block.slice(0, schema_bytes).to_pybytes()
    schema = _schemas.get(name)
    if schema is None:
        schema = _kept_schema(name)
        if schema is None:
            return None
    rest = block.slice(schema_bytes)
    batch_head = rest.slice(0, _HEAD_BYTES).to_pybytes()
    if batch_head[:4] != _CONTINUATION or batch_head == _END:
        return None
    message = pa.ipc.read_message(rest)
    end = _HEAD_BYTES + int.from_bytes(batch_head[4:], "little") + message.body.size
    if message.type != "record batch" or rest.slice(end).to_pybytes() != _END:
        return None
    return schema, message


def _kept_schema(name: bytes) -> pa.Schema | None:
    """Read and keep a sound schema; None where it has dictionaries, which come as messages of their own."""
    schema = pa.ipc.read_schema(pa.py_buffer(name))
    try:
        _check_schema(schema)
    except (PayloadInvalid, ValueError):
        return None  # refused on the long way where it came from outside
    if _has_dictionaries(schema):
        return None
    if len(_schemas) >= _SCHEMAS_MAX:
        _schemas.clear()
    _schemas[name] = schema
    return schema


def _has_dictionaries(schema: pa.Schema) -> bool:
    return any(_is_dictionary(kind) for kind in schema.types)


def _is_dictionary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_is_dictionary(kind.field(at).type) for at in range(kind.num_fields))


def _validated_stream(block: pa.Buffer) -> pa.Table:
    _refuse_compressed(block)
    reader = pa.ipc.open_stream(block)
    _check_schema(reader.schema)
    batches = []
    rows = 0
    for batch in reader:
        batch.validate(full=True)
        rows += batch.num_rows
        _check_rows(rows, block)
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _check_rows(rows: int, block: pa.Buffer) -> None:
    """Columns without buffers may claim any number of rows; a real one needs at least a bit for each."""
    if rows > 8 * block.size:
        raise PayloadInvalid(f"The Arrow stream claims {rows} rows in {block.size} bytes.", mend=_MEND_STREAM)


def _check_schema(schema: pa.Schema) -> None:
    names = schema.names  # Raises UnicodeDecodeError (a ValueError) where a name is not UTF-8.
    if len(names) > _COLUMNS_MAX:
        raise PayloadInvalid(f"The table has {len(names)} columns; {_COLUMNS_MAX} is the most.")
    if len(set(names)) != len(names) or "" in names:
        raise PayloadInvalid(
            "Two columns of the table share a name, or one has none.", mend="Name every column differently."
        )
    for kind in schema.types:
        _check_names_inside(kind)


def _check_names_inside(kind: pa.DataType) -> None:
    """Read every name inside a type: one that is not UTF-8 would raise at whoever looks at it later."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for at in range(kind.num_fields):
        inner = kind.field(at)
        assert isinstance(inner.name, str)
        _check_names_inside(inner.type)


def _refuse_compressed(block: pa.Buffer) -> None:
    """Refuse compressed buffers: a few bytes may claim gigabytes, which Arrow allocates before it looks."""
    reader = pa.ipc.MessageReader.open_stream(block)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type != "schema" and _is_compressed(bytes(message.metadata)):
            raise PayloadInvalid("The Arrow stream is compressed.", mend=_MEND_STREAM)


def _is_compressed(metadata: bytes) -> bool:
    """Whether a batch's flatbuffer sets `RecordBatch.compression` (format/Message.fbs, Schema.fbs)."""
    header = _table_field(metadata, _offset(metadata, 0), 2)
    if header is None:
        return False
    batch = _offset(metadata, header)
    # A dictionary batch (id, data, isDelta) holds its record batch in its second field.
    kind = _table_field(metadata, _offset(metadata, 0), 1)
    if kind is not None and metadata[kind] == 2:
        data = _table_field(metadata, batch, 1)
        if data is None:
            return False
        batch = _offset(metadata, data)
    return _table_field(metadata, batch, 3) is not None


def _offset(data: bytes, at: int) -> int:
    (relative,) = struct.unpack_from("<I", data, at)
    return int(at + relative)


def _table_field(data: bytes, table: int, index: int) -> int | None:
    """Where field `index` of the flatbuffer table at `table` stands, or None where it is not set."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    if vtable < 0:
        raise ValueError("a table's layout lies outside the message")
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    slot = 4 + 2 * index
    if slot + 2 > vtable_bytes:
        return None
    (relative,) = struct.unpack_from("<H", data, vtable + slot)
    return int(table + relative) if relative else None
