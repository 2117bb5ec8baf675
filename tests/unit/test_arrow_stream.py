"""Arrow streams: our short way of writing and reading gives what Arrow's own stream classes give, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from edge.core.errors import PayloadInvalid
from edge.store.arrow_stream import own_table, serialized, table_from_stream, validated_table

NUMBERS = pa.table({"a": [1.5, None, 3.0], "b": [1, 2, 3]})
TABLES = {
    "numbers": NUMBERS,
    "texts": pa.table({"t": ["x", None, "äöü"], "b": [b"1", b"", None]}),
    "no rows": NUMBERS.slice(0, 0),
    "no columns": pa.table({}),
    "one chunk of a slice": NUMBERS.slice(1, 1),
    "chunks": pa.concat_tables([NUMBERS, NUMBERS.slice(1)]),
    "nested": pa.table({"l": [[1, 2], None, []], "s": [{"x": 1}, None, {"x": 3}]}),
    "dictionary": pa.table({"d": pa.array(["x", "y", "x"]).dictionary_encode()}),
    "dictionary inside": pa.table(
        {"s": pa.array([["x"], ["y"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))}
    ),
    "times": pa.table({"at": [datetime(2026, 1, 2, tzinfo=UTC)], "d": [Decimal("1.25")]}),
    "metadata": NUMBERS.replace_schema_metadata({"made": "here"}),
    "null type": pa.table({"n": pa.nulls(3)}),
    "many columns": pa.table({f"c{at}": [at] for at in range(700)}),
}


def by_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("name", TABLES)
def test_we_write_what_arrow_writes(name: str) -> None:
    """The bytes, and so the digests in the log, are those of Arrow's stream writer."""
    assert serialized(TABLES[name]) == by_arrow(TABLES[name])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_we_read_what_was_written(name: str, again: bool) -> None:
    """Both ways of reading give the table back, schema metadata too, also where the schema is known already."""
    table, stream = TABLES[name], by_arrow(TABLES[name])
    for _ in range(1 + again):
        for read in (own_table(pa.py_buffer(stream)), table_from_stream(stream)):
            assert read.equals(table)
            assert read.schema.equals(table.schema, check_metadata=True)
            read.validate(full=True)


def test_reading_refers_to_the_bytes() -> None:
    """Reading a stream of one batch lets Arrow allocate nothing."""
    block = pa.py_buffer(by_arrow(NUMBERS))
    own_table(block)
    before = pa.total_allocated_bytes()
    tables = [own_table(block), validated_table(block)]
    assert pa.total_allocated_bytes() == before
    assert len(tables) == 2


def test_a_stream_cut_anywhere_is_refused_or_whole() -> None:
    """A prefix of a stream is refused, or is a whole table of what stands in it (Arrow needs no end mark)."""
    stream = by_arrow(NUMBERS)
    for end in range(len(stream)):
        try:
            read = table_from_stream(stream[:end])
        except PayloadInvalid:
            continue
        assert read.equals(NUMBERS) or read.num_rows == 0


def test_two_columns_of_one_name_are_refused_from_outside_only() -> None:
    """Our own table may have them (its maker said so), a payload may not; and the one teaches not the other."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    stream = by_arrow(table)
    assert serialized(table) == stream
    assert own_table(pa.py_buffer(stream)).equals(table)
    with pytest.raises(PayloadInvalid, match="share a name"):
        table_from_stream(stream)
