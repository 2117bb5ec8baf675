"""The table of a batch: columns declared or taken from the messages, and what no message can break."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from edge.core.codec import encode
from edge.core.limits import SUBSCRIPTION_COLUMNS_MAX
from edge.worker.batch_table import batch_table

CBOR = "application/cbor"


def table_of(*payloads: bytes, columns: list[list[str]] | None = None, kind: str | None = None) -> pa.Table:
    """The table of messages with these payloads."""
    messages = [[seq, f"t/{seq}", 1_000 + seq, kind, payload] for seq, payload in enumerate(payloads, 1)]
    return batch_table(encode([columns, messages]))


def column(table: pa.Table, name: str) -> list[Any]:
    """A column's values."""
    return list(table.column(name).to_pylist())


def test_columns_are_those_of_the_messages_in_the_order_they_come() -> None:
    """Types follow the values; integers beside fractions become fractions, what does not fit becomes JSON."""
    table = table_of(
        b'{"a": 1, "b": "x", "f": 1, "mixed": 1, "flag": true, "deep": {"k": [1]}}',
        b'{"b": "y", "f": 1.5, "mixed": "1", "none": null, "late": 2}',
    )
    own = ["_topic", "_seq", "_received_ns", "_problem"]
    assert table.column_names == ["a", "b", "f", "mixed", "flag", "deep", "none", "late", *own]
    assert [str(table.schema.field(name).type) for name in ("a", "b", "f", "mixed", "flag", "deep", "none")] == [
        "int64", "string", "double", "string", "bool", "string", "string",
    ]  # fmt: skip
    assert column(table, "f") == [1.0, 1.5]
    assert column(table, "mixed") == ["1", '"1"']
    assert column(table, "deep") == ['{"k":[1]}', None]
    assert column(table, "late") == [None, 2]
    assert column(table, "_seq") == [1, 2]
    assert column(table, "_received_ns") == [1_001, 1_002]
    assert column(table, "_problem") == [None, None]


def test_declared_columns_are_kept_whatever_comes() -> None:
    """A value of another type is null and named; other keys are left out."""
    columns = [["n", "int64"], ["f", "float64"], ["raw", "json"]]
    table = table_of(b'{"n": 1.5, "f": 2, "other": 1}', b'{"n": 3, "raw": [1, 2]}', columns=columns)
    assert table.column_names[:3] == ["n", "f", "raw"]
    assert column(table, "n") == [None, 3]
    assert column(table, "f") == [2.0, None]
    assert column(table, "raw") == [None, "[1,2]"]
    assert column(table, "_problem") == ["'n' is no int64.", None]


def test_what_cannot_be_read_is_a_row_with_its_reason() -> None:
    """Broken JSON, another kind of value, a content type nobody knows: a row of nulls each."""
    table = table_of(b'{"n": 1}', b"{", b"[1]", b"")
    assert column(table, "n") == [1, None, None, None]
    problems = column(table, "_problem")
    assert problems[0] is None
    assert all(problems[1:])
    assert "not a map" in problems[2]
    assert "neither JSON nor CBOR" in column(table_of(b"x", kind="text/plain"), "_problem")[0]


def test_cbor_brings_bytes() -> None:
    """Bytes are a binary column; names that are no texts, or the box's own, are left out."""
    payload = encode({"b": b"\x00\xff", "_seq": 9})
    table = table_of(payload, b"\xa1\x01\x02", kind=CBOR)
    assert column(table, "b") == [b"\x00\xff", None]
    assert column(table, "_seq") == [1, 2]
    assert table.column_names[0] == "b"


def test_columns_are_bounded() -> None:
    """More keys than a table may have are named in the row that brings them."""
    names = ", ".join(f'"k{n}": 1' for n in range(SUBSCRIPTION_COLUMNS_MAX + 1))
    table = table_of(f"{{{names}}}".encode())
    assert table.num_columns == SUBSCRIPTION_COLUMNS_MAX + 4
    assert "is left out" in column(table, "_problem")[0]


@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from([None, CBOR, "x"]))
def test_no_payload_breaks_it(payloads: list[bytes], kind: str | None) -> None:
    """Whatever comes: a row for each message, and a reason where there is no map."""
    table = table_of(*payloads, kind=kind)
    assert table.num_rows == len(payloads)
    table.validate(full=True)
