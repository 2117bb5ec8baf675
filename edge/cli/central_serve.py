"""`edge central serve` and `edge central enrol`: let boxes in, and take in over HTTPS what they send.

Called by `edge.cli.central`. The libraries of the server are imported when it is asked for: everything else of the
centre works without them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge.central.boxes import Boxes
from edge.central.certificates import ServerFiles, authority_of, write_private
from edge.central.ingest import Central
from edge.central.one_time import OneTimeTokens
from edge.core.errors import RequestRefused
from edge.security.signing import fingerprint
from edge.sync.centre import Enrolment, document

_PORT: Final = 8443
_DAYS: Final = 30


def add(actions: Any, where: argparse.ArgumentParser) -> None:
    """Add both commands."""
    enrol = actions.add_parser(
        "enrol",
        parents=[where],
        help="let a box send, and make the file that it needs",
        description="Let a box send. With its KEY at once; without, by a file with a token that the box redeems once "
        "over HTTPS: edge sync enrol FILE. Keep that file to yourself: whoever has it can be that box.",
    )
    enrol.add_argument("box", metavar="BOX", help="the box's name")
    enrol.add_argument(
        "key", metavar="KEY", nargs="?", help="its public key, 64 hexadecimal digits, as MANIFEST.json has it"
    )
    enrol.add_argument("--out", type=Path, metavar="FILE", help="write the enrolment there, for the box")
    enrol.add_argument(
        "--url", default="", metavar="URL", help="where boxes reach the server, https://host:8443"
    )
    enrol.add_argument("--days", type=int, default=_DAYS, help=f"how long the token holds (default {_DAYS})")
    enrol.set_defaults(command=_enrol)
    serve = actions.add_parser(
        "serve",
        parents=[where],
        help="take in over HTTPS what boxes send",
        description="Serve the centre over HTTPS, with a certificate of its own authority. Ctrl-C ends it in order.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to serve on (default 127.0.0.1)")
    serve.add_argument(
        "--port", type=_port, default=_PORT, help=f"the port (default {_PORT}; 0: any free one)"
    )
    serve.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a name or address that boxes know it by"
    )
    serve.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="a certificate of another authority, PEM"
    )
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    serve.add_argument("--no-tls", action="store_true", help="without TLS, on loopback only")
    serve.add_argument(
        "--check",
        choices=("deep", "shallow"),
        default="deep",
        help="before a receipt: every event (deep), or signature and digests (shallow)",
    )
    serve.set_defaults(command=_serve)


def _enrol(given: argparse.Namespace) -> int:
    if given.url and not _is_address(given.url):
        raise RequestRefused(
            f"{given.url!r} is no address of a centre.",
            mend="Write it whole: https://centre.example.org:8443; http is for this machine alone.",
        )
    central = Central.open(given.data, time.time_ns)
    public = central.signer.public
    central.close()
    boxes = Boxes(given.data / "boxes")
    boxes.require_name(given.box)
    token = ""
    if given.key is not None:
        boxes.enrol(given.box, _key(given.key), time.time_ns())
        print(f"enrolled {given.box}, key {fingerprint(_key(given.key))}")
    else:
        if given.out is None or not given.url:
            raise RequestRefused(
                "Without the box's key an enrolment needs --out FILE and --url URL.",
                mend="Or name the box's key: `edge bundle export` on the box prints it.",
            )
        tokens = OneTimeTokens(given.data / "tokens", boxes)
        token = tokens.make(given.box, time.time_ns(), given.days * 86_400 * 10**9)
    if given.out is not None:
        authority = authority_of(given.data, time.time()).decode() if given.url.startswith("https:") else ""
        made = Enrolment(public, given.box, given.url, authority, int(time.time()), token)
        write_private(given.out, document(made))
        how = f"good once, for {given.days} days; " if token else ""
        print(f"written  {given.out}: {how}take it to the box, and there: edge sync enrol {given.out.name}")
    return 0


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; there are 0 to 65535")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        near = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        return (parts.scheme == "https" or near) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _serve(given: argparse.Namespace) -> int:
    try:
        from edge.central import serve  # needs the extra
    except ModuleNotFoundError as error:
        raise RequestRefused(
            f"Serving needs the package {error.name}, which is not installed here.",
            mend="Install it: pip install 'noetl-edge[central]'.",
        ) from error
    if (given.tls_cert is None) != (given.tls_key is None):
        raise RequestRefused(
            "A certificate needs its key.", mend="Give both --tls-cert and --tls-key, or neither."
        )
    files = ServerFiles(given.tls_cert, given.tls_key) if given.tls_cert is not None else None
    hosts = () if given.no_tls or files is not None else serve.hosts_of(given.host, given.name)
    return serve.serve(serve.Serving(given.data, given.host, given.port, hosts, files, given.check == "deep"))
