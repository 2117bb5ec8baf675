"""The porter: a small process beside a worker with hosts, which alone resolves names and connects.

Forked by the worker before it locks itself in, and killed with it. A worker's filter lets it make TCP sockets and
never connect one: it hands the socket to its porter, which connects it where the step's grants allow and nowhere
else. So a grant is held to the host, not only to the port, whatever the author's code does, on every kernel with
seccomp.
What it must never do: run author code, connect to an address that no granted name led to, or resolve a name that is
not granted (a look-up is a message to whoever answers it).

Messages (CBOR, one a datagram): `["resolve", host, port, family]` gives `[True, addresses]`, `["connect", address]`
with the socket attached gives `[True, errno]`; both may give `[False, errno or 0, text]`, 0 where it is not granted.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any, Final, NoReturn

from edge.core.access import Access, name_matches
from edge.core.codec import decode, encode
from edge.core.errors import EdgeError
from edge.core.limits import MIB
from edge.worker import landlock
from edge.worker.sandbox import close_others, drop_capabilities, readable_paths

MESSAGE_BYTES_MAX: Final = 4_096
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
#: Addresses remembered for granted names; a name below `*.` may have any number of them.
_KNOWN_MAX: Final = 1_024
_ADDRESSES_MAX: Final = 32
_MEMORY_BYTES: Final = 64 * MIB
_INET: Final = (socket.AF_INET, socket.AF_INET6)
#: What the resolver of the C library reads.
_RESOLVER_READS: Final = (
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/gai.conf",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
)

_libc: Final = ctypes.CDLL(None, use_errno=True)


def fork_porter(access: Access) -> socket.socket:
    """Start the porter of this process; the worker's end of their socket. Before threads, before lock-in."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker_pid = os.getpid()
    if os.fork() == 0:
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == worker_pid:
                close_others((theirs.fileno(),))
                _lock_in()
                serve(theirs, access)
        finally:
            os._exit(1)
    theirs.close()
    return ours


def _lock_in() -> None:
    """Hold the porter too: it reads what a worker says."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft_bytes = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if soft_bytes == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES + 256 * MIB, _MEMORY_BYTES + 256 * MIB))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    abi = landlock.abi()
    if abi:
        reads = [*readable_paths(), *(Path(path) for path in _RESOLVER_READS)]
        landlock.restrict(abi, read=reads, write=(), connecting=True)
    drop_capabilities()


def serve(door: socket.socket, access: Access) -> NoReturn:
    """Answer until the worker is gone."""
    porter = Porter(access)
    while True:
        data, fds, _, _ = socket.recv_fds(door, MESSAGE_BYTES_MAX, 1)
        if not data:
            os._exit(0)
        sock = socket.socket(fileno=fds[0]) if fds else None
        try:
            reply = porter.answer(decode(data), sock)
        except (EdgeError, ValueError, TypeError, IndexError, OverflowError) as error:
            reply = [False, 0, f"the porter did not understand: {error}"]
        except OSError as error:
            reply = [True, error.errno or 0]
        finally:
            if sock is not None:
                sock.close()
        door.send(encode(reply))


class Porter:
    """What is granted, and which addresses the granted names led to."""

    def __init__(self, access: Access) -> None:
        self._access = access
        #: Address to the ports granted there; 0 is any.
        self._known: dict[str, set[int]] = {}
        for name, port in access.hosts:
            address = _address(name)
            if address is not None:
                self._known.setdefault(address, set()).add(port)
        self._given = frozenset(self._known)

    def answer(self, message: Any, sock: socket.socket | None) -> list[Any]:
        """The reply to one message of the worker's."""
        if message[0] == "resolve":
            return self._resolve(message[1], message[2], message[3])
        if message[0] == "connect" and sock is not None:
            return self._connect(message[1], sock)
        raise ValueError("no such message")

    def _resolve(self, host: str, port: int, family: int) -> list[Any]:
        name = host.lower().removesuffix(".")
        ports = {granted for pattern, granted in self._access.hosts if name_matches(pattern, name)}
        if not ports:
            return [False, 0, f"the host {host!r:.100} is not granted"]
        try:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            return [False, getattr(error, "errno", None) or socket.EAI_FAIL, str(error)]
        listed: list[list[Any]] = []
        for kind, _, _, _, address in found[:_ADDRESSES_MAX]:
            known = _address(str(address[0]))
            if known is None or kind not in _INET:
                continue
            if known not in self._known and len(self._known) >= _KNOWN_MAX:
                self._forget_one()
            self._known.setdefault(known, set()).update(ports)
            listed.append([int(kind), list(address)])
        return [True, listed]

    def _forget_one(self) -> None:
        oldest = next((each for each in self._known if each not in self._given), None)
        if oldest is not None:
            del self._known[oldest]

    def _connect(self, address: list[Any], sock: socket.socket) -> list[Any]:
        protocol = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
        kind = sock.type & 0xF
        if sock.family not in _INET or kind != socket.SOCK_STREAM or protocol != socket.IPPROTO_TCP:
            return [False, 0, "only TCP is granted"]
        host, port = str(address[0]), int(address[1])
        known = _address(host)
        granted = self._known.get(known, set()) if known is not None else set()
        if granted.isdisjoint((0, port)):
            return [False, 0, f"the host {host!r:.100}, port {port}, is not granted"]
        sock.setblocking(False)  # the worker waits for it, not the porter
        return [True, sock.connect_ex((host, port, *(int(each) for each in address[2:4])))]


def _address(host: str) -> str | None:
    """An address in its one spelling, None where it is a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
