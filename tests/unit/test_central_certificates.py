"""A centre that runs for years shows a certificate that holds: its own renewed, a person's as it is replaced."""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path

import pytest

from edge.central.certificates import ServerFiles, Shown, authority_of, server_files
from edge.core.errors import Misconfigured

DAY_S = 86_400.0
HOSTS = ["centre.example.org"]


def context_of(files: ServerFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def shown_by(server: ssl.SSLContext, authority: bytes) -> str:
    """The serial number of the certificate that a box is shown in a handshake, which it believes."""
    client = ssl.create_default_context(cadata=authority.decode())
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(ways[0], ways[1], server_hostname=HOSTS[0]),
        server.wrap_bio(ways[1], ways[0], server_side=True),
    ]
    open_ends = list(ends)
    for _ in range(10):
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not open_ends
    certificate = ends[0].getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_it_is_renewed_while_the_server_runs(tmp_path: Path) -> None:
    """Long before the end: new connections see the new one, of the same authority."""
    now_s = time.time() - 300 * DAY_S
    authority = authority_of(tmp_path, now_s)
    server = context_of(server_files(tmp_path, HOSTS, now_s))
    shown = Shown(server, lambda: server_files(tmp_path, HOSTS, now_s))
    first = shown_by(server, authority)
    assert not shown.look()
    now_s += 200 * DAY_S
    assert not shown.look()
    now_s += 100 * DAY_S
    assert shown.look()
    assert not shown.look()
    assert shown_by(server, authority) != first


def test_a_persons_files_are_looked_at_again(tmp_path: Path) -> None:
    """Replaced, they are shown; half replaced, the old ones stay until they fit, and it says so each time."""
    mine, others = tmp_path / "mine", tmp_path / "others"
    files, other = (server_files(each, HOSTS, time.time()) for each in (mine, others))
    server = context_of(files)
    shown = Shown(server, lambda: files)
    authority, new = authority_of(mine, time.time()), authority_of(others, time.time())
    first = shown_by(server, authority)
    os.replace(other.certificate, files.certificate)
    for _ in range(2):
        with pytest.raises(Misconfigured, match="cannot be used"):
            shown.look()
    assert shown_by(server, authority) == first
    os.replace(other.key, files.key)
    assert shown.look()
    assert shown_by(server, new) != first
