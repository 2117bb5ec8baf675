"""Callback tokens: what one stands for comes back, and nothing that was not minted does."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.callbacks import MAC_BYTES, Call, mint, read
from edge.core.errors import Misconfigured
from edge.core.limits import CALLBACK_TOKEN_CHARS_MAX
from edge.runtime.waiting.tokens import Tokens
from edge.store.key_file import read_or_make_key
from gateway.topics import callback_prefix, callback_token

KEY, LOG = b"k" * 32, b"12345678"
CALL = Call(4_711, 3, 1, 250, 2)


@given(
    st.builds(
        Call,
        st.integers(1, 2**53),
        st.integers(0, 255),
        st.integers(0, 10_000),
        st.none() | st.integers(0, 100_000),
        st.integers(0, 10_000),
    )
)
def test_what_it_stands_for_comes_back(call: Call) -> None:
    """Any wait, as one short level of a topic."""
    token = mint(KEY, LOG, call)
    assert token.isalnum()
    assert token == token.lower()
    assert len(token) <= CALLBACK_TOKEN_CHARS_MAX // 2
    assert read(KEY, LOG, token) == call
    assert callback_token("box", callback_prefix("box") + token) == token


@pytest.mark.parametrize("place", range(len(mint(KEY, LOG, CALL))))
def test_no_letter_may_be_another(place: int) -> None:
    """Every token with one letter changed is unknown, the spare bits of the last one included."""
    token = mint(KEY, LOG, CALL)
    for letter in "abcdefghijklmnopqrstuvwxyz234567":
        if letter != token[place]:
            assert read(KEY, LOG, token[:place] + letter + token[place + 1 :]) is None


def test_another_key_or_log_makes_another_token() -> None:
    """A token is of one log and its key."""
    token = mint(KEY, LOG, CALL)
    assert read(b"j" * 32, LOG, token) is None
    assert read(KEY, b"87654321", token) is None


def _as_text(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").lower().rstrip("=")


@given(st.text(max_size=200) | st.binary(max_size=90).map(_as_text))
def test_any_text_is_read_without_an_error(text: str) -> None:
    """Whatever comes in as a token, it is unknown and nothing else."""
    assert read(KEY, LOG, text) is None


def test_half_a_mac_is_none() -> None:
    """A body with nothing or too little behind it is unknown."""
    for size in range(MAC_BYTES + 2):
        assert read(KEY, LOG, _as_text(bytes(size))) is None


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The same key at every start, 0600; where it is lost another one, whose tokens are others."""
    first, again = (Tokens.of(tmp_path, LOG, "box") for _ in range(2))
    path = tmp_path / "callback.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = mint(path.read_bytes(), LOG, CALL)
    assert first.read(token) == again.read(token) == CALL
    path.unlink()
    assert Tokens.of(tmp_path, LOG, "box").read(token) is None


def test_an_odd_key_file_is_not_used(tmp_path: Path) -> None:
    """Too short, too long, or readable by others: said, and never overwritten."""
    path = tmp_path / "key"
    for size in (0, 31, 33):
        path.write_bytes(os.urandom(size))
        path.chmod(0o600)
        with pytest.raises(Misconfigured):
            read_or_make_key(path, 32)
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(Misconfigured):
        read_or_make_key(path, 32)
