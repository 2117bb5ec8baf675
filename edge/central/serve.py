"""`edge central serve`: the centre's process. Ends in order on SIGTERM and Ctrl-C, and may be killed at any moment.

Called by `edge.cli.central_serve`. It needs the extra `central`. It must never serve without TLS but on loopback.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvicorn

from edge.central.certificates import ServerFiles, Shown, server_files
from edge.central.http_app import app_of
from edge.central.intake import Intake
from edge.core.errors import Misconfigured, StorageFailed, Unavailable
from edge.core.records import record

#: Uploads under way may end; what is longer is resumed.
_GRACE_S: Final = 10
_BACKLOG: Final = 512
#: So often a server looks whether its certificate was, or must be, renewed.
_RENEWAL_LOOK_S: Final = 3_600.0


@record
class Serving:
    """How to serve. `hosts`: names and addresses that boxes know it by, for its certificate; none: without TLS."""

    data: Path
    host: str
    port: int
    hosts: tuple[str, ...]
    files: ServerFiles | None = None
    deep: bool = True

    def shows(self) -> ServerFiles:
        """The certificate it should show by now."""
        return self.files or server_files(self.data, self.hosts, time.time())


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(said: Serving) -> int:
    """Serve until a signal. Raises Misconfigured, StorageFailed, Unavailable where another process has the folder."""
    files = said.shows() if said.files or said.hosts else None
    if files is None and not is_loopback(said.host):
        raise Misconfigured(
            f"{said.host} can be reached from outside, and without TLS nothing is served there.",
            mend="Leave out --no-tls, or serve on 127.0.0.1 behind a proxy that has a certificate.",
        )
    intake = Intake(said.data, time.time_ns, deep=said.deep)
    config = uvicorn.Config(
        app_of(intake),
        host=said.host,
        port=said.port,
        ssl_certfile=files.certificate if files is not None else None,
        ssl_keyfile=files.key if files is not None else None,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
    )
    # uvicorn raises the signal that ended it once more when it is done: the end of this process is its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        _run(uvicorn.Server(config), said, files)
    finally:
        intake.close()
    print("ended    in order", flush=True)
    return 0


def _run(server: uvicorn.Server, said: Serving, files: ServerFiles | None) -> None:
    try:
        server.config.load()
    except OSError as error:  # ssl's errors are such
        raise Misconfigured(
            f"The certificate cannot be used: {error.strerror or error}.",
            mend="--tls-cert and --tls-key name PEM files, the certificate first and then its key.",
        ) from error
    # Listening before the line below stands: who comes then waits, and is not refused.
    family = socket.AF_INET6 if ":" in said.host else socket.AF_INET
    try:
        at = socket.create_server((said.host, said.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise Unavailable(
            f"The centre cannot serve on {said.host}, port {said.port}: {error.strerror}.",
            mend="Does another centre run there? --port names a free port, --host an address of this machine.",
        ) from error
    port = at.getsockname()[1]
    scheme = "http" if files is None else "https"
    print(f"serving  {scheme}://{_names(said)}:{port}, data in {said.data}", flush=True)
    shown = Shown(server.config.ssl, said.shows) if server.config.ssl is not None else None
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(server, at, shown))
    finally:
        at.close()


async def _serve(server: uvicorn.Server, at: socket.socket, shown: Shown | None) -> None:
    renewing = asyncio.create_task(_renew(shown)) if shown is not None else None
    try:
        await server.serve(sockets=[at])
    finally:
        if renewing is not None:
            renewing.cancel()


async def _renew(shown: Shown) -> None:
    """A server that runs for years shows a certificate that holds."""
    while True:
        await asyncio.sleep(_RENEWAL_LOOK_S)
        try:
            if shown.look():
                print("renewed  the certificate", flush=True)
        except (Misconfigured, StorageFailed) as error:
            print(f"warning  {error}", flush=True)


def _names(said: Serving) -> str:
    return said.hosts[0] if said.hosts else said.host


def hosts_of(host: str, named: Sequence[str]) -> tuple[str, ...]:
    """What the certificate must name: what a person named, else the address that is served on."""
    if named:
        return tuple(dict.fromkeys(named))
    if host in ("0.0.0.0", "::"):  # noqa: S104 - asked for by a person
        raise Misconfigured(
            f"Served on {host}, the centre does not know by what name boxes will ask for it.",
            mend="Say it: --name centre.example.org, once for each name or address.",
        )
    return (host,)
