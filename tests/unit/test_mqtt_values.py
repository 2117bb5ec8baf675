"""Addresses, settings, names, and the factory of gateway.mqtt."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge.core.errors import Misconfigured, Unavailable
from gateway.mqtt import BrokerAddress, Settings, Will, open_session, reasons
from gateway.mqtt.names import text_problem, topic_problem


@pytest.mark.parametrize(
    ("url", "host", "port", "secure"),
    [
        ("mqtt://box", "box", 1883, False),
        ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884, False),
        ("mqtts://box/", "box", 8883, True),
        ("mqtt://[::1]:9", "::1", 9, False),
    ],
)
def test_addresses(url: str, host: str, port: int, secure: bool) -> None:
    address = BrokerAddress.parse(url)
    assert (address.host, address.port, address.secure) == (host, port, secure)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "box:1883",
        "http://box",
        "mqtt://",
        "mqtt://box:port",
        "mqtt://box:99999",
        "mqtt://box/topic",
        "mqtt://b?x",
    ],
)
def test_addresses_that_cannot_be_read(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        BrokerAddress.parse(url)
    assert "mqtt://host:port" in caught.value.mend


def test_a_password_is_never_shown() -> None:
    address = BrokerAddress.parse("mqtt://user:s%40cret@box")
    assert (address.username, address.password) == ("user", "s@cret")
    assert "cret" not in repr(address) + str(address)
    with pytest.raises(Misconfigured) as caught:
        BrokerAddress.parse("mqtt://user:secret@box/topic")
    assert "secret" not in str(caught.value)


def test_half_a_client_certificate() -> None:
    with pytest.raises(Misconfigured):
        BrokerAddress("box", 8883, cert_file="a.pem")


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": ""},
        {"receive_maximum": 0},
        {"keepalive_s": 0},
        {"keepalive_s": 70_000},
        {"session_expiry_s": -1},
        {"packet_bytes_max": 10},
    ],
)
def test_settings_are_checked(changed: dict[str, object]) -> None:
    with pytest.raises(Misconfigured):
        Settings(**{"client_id": "c", **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("will", [("a/#", b"", 1), ("", b"", 1), ("a", b"", 2), ("a", b"x" * 70_000, 1)])
def test_wills_are_checked(will: tuple[str, bytes, int]) -> None:
    with pytest.raises(Misconfigured):
        Will(*will)


def test_unknown_implementation() -> None:
    with pytest.raises(Misconfigured):
        open_session(
            "carrier pigeon",
            address=BrokerAddress("box", 1),
            settings=Settings("c"),
            on_message=print,
            on_lost=print,
        )


@pytest.mark.parametrize(
    ("code", "error"),
    [(0x86, Misconfigured), (0x87, Misconfigured), (0x89, Unavailable), (0xFF, Misconfigured)],
)
def test_refusals_say_whose_fault(code: int, error: type[Exception]) -> None:
    refusal = reasons.connect_refused("mqtt://box:1883", code, "because")
    assert isinstance(refusal, error)
    assert "box" in str(refusal)
    assert f"0x{code:02X}" in str(refusal)


def test_texts() -> None:
    assert text_problem("ä" * 32_767) == ""
    assert text_problem("ä" * 32_768)
    assert text_problem("\ud800")
    for unsafe in ("\0", "\x1f", "\x7f", "ä\x9f", "\ufdd0", "\uffff", "\U0010fffe"):
        assert text_problem(f"a{unsafe}b"), ascii(unsafe)
    for safe in ("", " ", "\ufeff", "\ufffd", "☃", "\U0001f600"):
        assert text_problem(f"a{safe}b") == "", ascii(safe)
    assert topic_problem("a/b") == ""


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import gateway.mqtt", {"paho", "mqtt5", "pyarrow", "lmdb", "pydantic"}),
        ("import gateway.mqtt.codec_session", {"paho", "pyarrow", "lmdb", "pydantic"}),
        ("import gateway.mqtt.paho_session", {"mqtt5", "pyarrow", "lmdb", "pydantic"}),
        ("import gateway.embedded_broker", {"paho", "pyarrow", "lmdb", "pydantic"}),
    ],
)
def test_only_the_library_in_use_is_imported(statement: str, absent: set[str]) -> None:
    script = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not absent & set(loaded.stdout.split())
