"""The files of the centre's authority and server certificate, made at the first need and renewed in time.

    tls/authority.pem    goes into every enrolment: what a box believes
    tls/authority.key    0600: who holds it can pretend to be the centre
    tls/server.pem, tls/server.key

Called by `edge central enrol` and `edge central serve`. The authority is never made anew where its files are: boxes
would believe the centre no more.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured, StorageFailed
from edge.core.records import record
from edge.security.authority import make_authority, make_key, make_server, serves
from edge.store.whole_file import write_whole

#: A certificate of which less is left is made anew, when the server starts or while it serves.
_RENEW_S: Final = 120 * 86_400.0


@record
class ServerFiles:
    """What a TLS server needs, as files."""

    certificate: Path
    key: Path


def authority_of(data: Path, now_s: float) -> bytes:
    """The authority's certificate, PEM, made where there is none. Raises Misconfigured, StorageFailed."""
    folder = data / "tls"
    key, certificate = folder / "authority.key", folder / "authority.pem"
    if certificate.exists():
        return _read(certificate)
    if not key.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        write_private(key, make_key())
    write_whole(certificate, make_authority(_read(key), now_s))
    return _read(certificate)


def server_files(data: Path, hosts: Sequence[str], now_s: float) -> ServerFiles:
    """A server's certificate for all these hosts, made anew where that which is there does not do."""
    authority = authority_of(data, now_s)
    folder = data / "tls"
    made = ServerFiles(folder / "server.pem", folder / "server.key")
    if not made.key.exists():
        write_private(made.key, make_key())
    if not made.certificate.exists() or not serves(_read(made.certificate), hosts, now_s, _RENEW_S):
        signing_key = folder / "authority.key"
        if not signing_key.exists():
            raise Misconfigured(
                f"{signing_key} is gone, and the server's certificate must be made anew.",
                mend="Put it back from a copy. Without it every box must be enrolled again: remove the folder tls.",
            )
        certificate = make_server(_read(made.key), _read(signing_key), authority, hosts, now_s)
        write_whole(made.certificate, certificate)
    return made


class Shown:
    """The certificate that a running server shows: ours, renewed in time, or a person's, whose files are replaced."""

    def __init__(self, context: ssl.SSLContext, files: Callable[[], ServerFiles]) -> None:
        """`context` is the server's; `files` gives what it should show by now."""
        self._context, self._files = context, files
        self._seen = _marks(files())

    def look(self) -> bool:
        """Show who connects from now on what is in the files; whether that is new. Misconfigured, StorageFailed."""
        files = self._files()
        marks = _marks(files)
        if marks == self._seen:
            return False
        try:
            # What does not fit would leave the server's own context without any.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
            self._context.load_cert_chain(files.certificate, files.key)
        except (ssl.SSLError, OSError) as error:
            raise Misconfigured(
                f"The new certificate in {files.certificate} cannot be used: {error}.",
                mend="The server shows the old one still. Are both files whole, and do they belong together?",
            ) from error
        self._seen = marks
        return True


def _marks(files: ServerFiles) -> list[tuple[int, int, int]]:
    """What tells a file that was replaced or written over."""
    try:
        stats = [path.stat() for path in (files.certificate, files.key)]
        return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in stats]
    except OSError as error:
        raise StorageFailed(f"{files.certificate} cannot be read: {error.strerror}.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error


def write_private(path: Path, data: bytes) -> None:
    """A small file that only its owner may read, whole or not there. Raises StorageFailed."""
    before = os.umask(0o077)
    try:
        write_whole(path, data)
    finally:
        os.umask(before)
