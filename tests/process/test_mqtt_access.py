"""Sessions against a mosquitto that asks who they are: passwords, TLS, client certificates, a frozen broker."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import Misconfigured, Unavailable
from gateway.mqtt import IMPLEMENTATIONS, BrokerAddress, Message, Session, Settings, open_session

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="not installed: openssl"),
]
PATIENCE_S = 30


async def patiently(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


class Peer:
    def __init__(self, implementation: str, address: BrokerAddress, **settings: Any) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.session: Session = open_session(
            implementation,
            address=address,
            settings=Settings(**{"client_id": "peer", **settings}),
            on_message=self.received.put_nowait,
            on_lost=self.lost.put_nowait,
        )


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def certificate(folder: Path, name: str, authority: str | None) -> None:
    """A key and a certificate, signed by itself or by `authority`."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"]
    if authority is None:
        command += ["-addext", "basicConstraints=critical,CA:TRUE"]
    else:
        command += ["-CA", str(folder / f"{authority}.pem"), "-CAkey", str(folder / f"{authority}.key")]
        command += ["-addext", "basicConstraints=CA:FALSE", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o644)


def write_passwords(path: Path) -> None:
    """One user, `box`, with the password `right`; mosquitto takes only hashes."""
    command = ["mosquitto_passwd", "-b", "-c", str(path), "box", "right"]
    subprocess.run(command, check=True, capture_output=True)
    path.chmod(0o644)


@pytest.fixture
def secured(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], int]]:
    """Start a mosquitto with the given lines in place of allow_anonymous; its port."""
    broker = request.getfixturevalue("mosquitto")
    broker.kill()
    for name, authority in (("ca", None), ("server", "ca"), ("client", "ca"), ("other-ca", None)):
        certificate(tmp_path, name, authority)
    certificate(tmp_path, "stranger", "other-ca")
    tmp_path.chmod(0o755)

    def start(lines: str) -> int:
        broker._template = broker._template.replace("allow_anonymous true\n", lines)
        broker.start()
        return int(broker.port)

    yield start
    broker.kill()


async def test_a_wrong_password(implementation: str, secured: Callable[[str], int], tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    write_passwords(passwords)
    port = secured(f"allow_anonymous false\npassword_file {passwords}\n")
    for username, password in (("box", "wrong"), (None, None)):
        peer = Peer(implementation, BrokerAddress("127.0.0.1", port, username=username, password=password))
        with pytest.raises(Misconfigured, match="not authorized"):
            await patiently(peer.session.connect())
    peer = Peer(implementation, BrokerAddress.parse(f"mqtt://box:right@127.0.0.1:{port}"))
    assert await patiently(peer.session.connect()) is False
    await peer.session.close()


async def test_tls_with_client_certificates(
    implementation: str, secured: Callable[[str], int], tmp_path: Path
) -> None:
    port = secured(
        f"allow_anonymous true\ncafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\n"
        f"keyfile {tmp_path}/server.key\nrequire_certificate true\n"
    )
    ca = str(tmp_path / "ca.pem")

    def address(name: str, *, host: str = "localhost", ca_file: str | None = ca) -> BrokerAddress:
        files = {"cert_file": str(tmp_path / f"{name}.pem"), "key_file": str(tmp_path / f"{name}.key")}
        return BrokerAddress.parse(f"mqtts://{host}:{port}", ca_file=ca_file, **files)

    peer = Peer(implementation, address("client"))
    assert await patiently(peer.session.connect()) is False
    await patiently(peer.session.subscribe([("t", 1)]))
    payload = b"x" * 1_000_000
    assert await patiently(peer.session.publish("t", payload)) == 0
    assert (await patiently(peer.received.get())).payload == payload
    await peer.session.close()

    for refused in (
        address("stranger"),  # a client certificate of another authority
        BrokerAddress("localhost", port, ca_file=ca),  # none at all
    ):
        # In TLS 1.3 we have sent our CONNECT before the broker judges the certificate. It closes with that unread,
        # so a reset may overtake its alert: then all that can be known is that the connection broke.
        with pytest.raises((Misconfigured, Unavailable)):
            await patiently(Peer(implementation, refused).session.connect())
    for refused in (
        address("client", ca_file=str(tmp_path / "other-ca.pem")),  # a broker we do not trust
        address("client", host="127.0.0.1"),  # a name that is not in the broker's certificate
        address("client", ca_file=str(tmp_path / "missing.pem")),
    ):
        with pytest.raises((Misconfigured, Unavailable)) as caught:
            await patiently(Peer(implementation, refused).session.connect())
        assert caught.type is Misconfigured, caught.value


async def test_tls_to_a_port_without(implementation: str, mosquitto: Any, tmp_path: Path) -> None:
    peer = Peer(implementation, BrokerAddress("localhost", mosquitto.port, tls=True))
    with pytest.raises((Misconfigured, Unavailable)):
        await patiently(peer.session.connect())


async def test_a_frozen_broker_is_noticed(implementation: str, mosquitto: Any) -> None:
    peer = Peer(implementation, BrokerAddress("127.0.0.1", mosquitto.port), keepalive_s=1)
    await patiently(peer.session.connect())
    mosquitto.freeze()
    pending = peer.session.publish("t", b"x")
    assert "ping" in await patiently(peer.lost.get())
    with pytest.raises(Unavailable):
        await patiently(pending)


async def test_a_killed_broker_is_noticed_and_found_again(implementation: str, mosquitto: Any) -> None:
    address = BrokerAddress("127.0.0.1", mosquitto.port)
    peer = Peer(implementation, address, session_expiry_s=300)
    await patiently(peer.session.connect())
    await patiently(peer.session.subscribe([("t", 1)]))
    mosquitto.kill()
    assert await patiently(peer.lost.get())
    with pytest.raises(Unavailable):
        await patiently(peer.session.connect())
    mosquitto.start()
    assert await patiently(peer.session.connect()) is False  # it forgot us, and says so
    await patiently(peer.session.subscribe([("t", 1)]))
    assert await patiently(peer.session.publish("t", b"x")) == 0
    assert (await patiently(peer.received.get())).payload == b"x"
    await peer.session.close()
