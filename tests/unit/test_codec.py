"""CBOR and JSON in and out: what is taken, what is refused, what comes back the same."""

from __future__ import annotations

import contextlib
import json

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.codec import (
    check_plain,
    decode,
    decode_cbor_payload,
    decode_json_payload,
    encode,
    encode_canonical,
)
from edge.core.errors import PayloadInvalid
from edge.core.limits import VALUE_DEPTH_MAX
from edge.core.values import TableRef

texts = st.text(st.characters(codec="utf-8"), max_size=10)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_plain_values_come_back(value: object) -> None:
    """Every plain value survives our own codec and the strict reader of payloads."""
    data = encode(value)
    assert decode(data) == value
    assert decode_cbor_payload(data) == value


@given(st.dictionaries(texts, st.integers(), min_size=2, max_size=5))
def test_canonical_bytes_do_not_depend_on_order(value: dict[str, int]) -> None:
    """The canonical form of a map is the same however it was built."""
    assert encode_canonical(value) == encode_canonical(dict(reversed(value.items())))


@pytest.mark.parametrize("ref", [TableRef("k", b"d" * 32, 9, 0, ()), TableRef("k", b"d" * 32, 9, None, None)])
def test_table_references_travel_inside_our_frames_only(ref: TableRef) -> None:
    """A table reference survives our own codec, and a payload may not carry one."""
    data = encode({"t": [ref]})
    assert decode(data) == {"t": [ref]}
    with pytest.raises(PayloadInvalid):
        decode_cbor_payload(data)


def test_only_values_are_encoded() -> None:
    """What is no value is refused when it is written, not when it is read."""
    with pytest.raises(TypeError, match="object is not a value"):
        encode([object()])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9f\x01\xff",
        b"\xa2\x61a\x01\x61a\x02",
        cbor2.dumps(cbor2.CBORTag(0, "2020-01-01T00:00:00Z")),
        cbor2.dumps(2**70),
        cbor2.dumps(cbor2.CBORTag(40_961, [1])),
        cbor2.dumps(cbor2.CBORTag(99, 1)),
        b"\x81" * 70 + b"\x00",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    ],
    ids=["nothing", "indefinite", "twice", "date", "bignum", "bad table", "unknown tag", "deep", "huge"],
)
def test_our_frames_are_read_strictly(data: bytes) -> None:
    """Tags, indefinite lengths, duplicate keys, depth and lies about length are a ValueError."""
    with pytest.raises(ValueError, match="not a frame of ours"):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x82\x01",
        b"\x01\x01",
        b"\x9f\x01\xff",
        b"\xa2\x61a\x01\x61a\x02",
        b"\xa1\x01\x02",
        b"\xf7",
        b"\xf0",
        b"\xf9\x7e\x00",
        b"\x61\xff",
        b"\x63\xed\xa0\x80",
        cbor2.dumps(2**64),
        cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")),
        cbor2.dumps(cbor2.CBORTag(4, [2**40, 1])),
        cbor2.dumps(cbor2.CBORTag(12345, 1)),
        b"\x81" * (VALUE_DEPTH_MAX + 1) + b"\x00",
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x00\x00\x7f\xff\xff\xff\xff\xff",
    ],
    ids=lambda data: data[:8].hex() or "nothing",
)
def test_hostile_cbor_payloads_are_refused(data: bytes) -> None:
    """Whatever a payload holds beyond plain finite values of one item is PayloadInvalid."""
    with pytest.raises(PayloadInvalid):
        decode_cbor_payload(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No bytes at all make the payload readers raise anything but PayloadInvalid."""
    for read in (decode_cbor_payload, decode_json_payload):
        with contextlib.suppress(PayloadInvalid):
            read(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": 1,}', "line 1 column"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b"NaN", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "not finite"),
        (b"9" * 30, "64 bits"),
        (b"9" * 5000, "64 bits"),
        (b"[" * 100_000, "deeper than 32"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"[" * 40 + b"]" * 40, "nested deeper"),
    ],
)
def test_hostile_json_payloads_are_refused(data: bytes, says: str) -> None:
    """Broken or hostile JSON is PayloadInvalid and says what is wrong."""
    with pytest.raises(PayloadInvalid, match=says):
        decode_json_payload(data)


@pytest.mark.parametrize("data", [b'{"a": "\\ud800"}', b'{"\\udfff": 1}'])
def test_half_characters_in_json_are_refused(data: bytes) -> None:
    """A lone surrogate, which no encoder takes, is refused as a payload."""
    with pytest.raises(PayloadInvalid):
        decode_json_payload(data)


@given(plain)
def test_json_that_we_write_is_read(value: object) -> None:
    """Every plain value that JSON can say is read back from JSON."""
    try:
        data = json.dumps(value, ensure_ascii=False).encode()
    except TypeError:
        return
    assert decode_json_payload(data) == value


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**64, -(2**63) - 1, {1: 2}, {"a": object()}, {1}]
)
def test_what_is_not_plain_is_refused(value: object) -> None:
    """Only finite numbers within 64 bits, texts, bytes, lists and maps of texts are plain."""
    with pytest.raises(PayloadInvalid):
        check_plain(value)
