"""Certificates and a clock that is wrong: the refusal names the clock, and is tried again."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.core.errors import Misconfigured, Unavailable
from edge.testing.lent import Lent
from edge.testing.loopback import serving
from edge.testing.plain import playbook
from edge.tools.registry import tool
from gateway.mqtt import BrokerAddress
from gateway.mqtt.wire import Wire, dial

#: When the certificate is good, in years from now, and what OpenSSL says of it.
OUT_OF_TIME = [(10, 11, "not yet valid"), (-11, -10, "expired")]


def made(folder: Path, first_years: float, last_years: float) -> tuple[Path, ssl.SSLContext]:
    """A certificate of this machine that is good from then until then, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=365 * first_years))
        .not_valid_after(now + dt.timedelta(days=365 * last_years))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, plain[1], plain[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, secret)
    return cert, context


async def refusal_of(folder: Path, first_years: float, last_years: float) -> Exception:
    """What the gateway says of a broker with such a certificate."""
    cert, context = made(folder, first_years, last_years)
    with serving({}, context) as server:
        address = BrokerAddress("localhost", server.port, tls=True, ca_file=str(cert))
        try:
            await dial(address, lambda: Wire(lambda _: None, lambda *_: None, lambda: None))
        except (Unavailable, Misconfigured) as error:
            return error
    raise AssertionError("it was believed")


@pytest.mark.parametrize(("first_years", "last_years", "says"), OUT_OF_TIME)
async def test_the_gateway_tries_again_once_the_clock_may_be_set(
    tmp_path: Path, first_years: float, last_years: float, says: str
) -> None:
    """A box that woke up in 1970 must not give its broker up for good, and says what its clock says."""
    error = await refusal_of(tmp_path, first_years, last_years)
    assert isinstance(error, Unavailable)
    assert says in str(error)
    assert "this box's clock says 20" in str(error)


@pytest.mark.parametrize(("first_years", "last_years", "says"), OUT_OF_TIME)
def test_a_call_outside_names_the_clock(
    tmp_path: Path, first_years: float, last_years: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step fails with a problem that may be retried."""
    cert, context = made(tmp_path, first_years, last_years)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with serving({"/": lambda handler: handler.say(200, b"1")}, context) as server:
        step = {
            "step": "s",
            "spec": {"policy": {"access": {"hosts": ["127.0.0.1"]}}},
            "tool": {"kind": "http", "url": server.url("/")},
        }
        task = playbook([step]).steps[0].tasks[0]
        with pytest.raises(Exception, match=says) as caught:
            tool("http").run(task.config, {}, Lent(task, {}, {}))
    assert "this box's clock says 20" in str(caught.value)
    assert caught.value.details["retryable"] is True  # type: ignore[attr-defined]
