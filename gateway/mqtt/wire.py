"""One TCP or TLS connection to a broker: dialling, TCP_NODELAY, gathered writes, one end.

Made by `base.BaseSession`, one per connection. Must never parse MQTT, retry, or block the event loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import cast

from edge.core.clock import out_of_time
from edge.core.errors import Misconfigured, Unavailable
from gateway.mqtt.session import BrokerAddress

#: Above this the transport says pause: what follows waits with us, where it is bounded and counted.
WRITE_HIGH_BYTES = 1024 * 1024


class Wire(asyncio.Protocol):
    """The connection. `on_bytes` gets what arrives, `on_end` its end once, `on_writable` after a pause."""

    def __init__(
        self,
        on_bytes: Callable[[bytes], None],
        on_end: Callable[[Wire, Exception | None], None],
        on_writable: Callable[[], None],
    ) -> None:
        self._on_bytes = on_bytes
        self._on_end = on_end
        self._on_writable = on_writable
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._ended = False
        self.ended = self._loop.create_future()
        self.paused = False
        self.reading_paused = False

    # ---- For the session ----

    @property
    def unsent_bytes(self) -> int:
        """Bytes written here that the kernel has not taken."""
        if self._transport is None or self._ended:
            return 0
        return self._gathered_bytes + self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send `data`; everything written in one turn of the loop leaves in one system call."""
        if self._ended:
            return
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)
        self._gathered_bytes += len(data)

    def pause_reading(self) -> None:
        """Let what arrives wait in the kernel, and so hold the broker back."""
        if not self.reading_paused and self._transport is not None and not self._ended:
            self.reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.reading_paused and self._transport is not None and not self._ended:
            self.reading_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what was written, then close; `on_end` is not called any more."""
        self._flush()
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; `on_end` is not called any more."""
        self._ended = True
        self._gathered.clear()
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if not self._gathered or self._ended or self._transport is None:
            return
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclasses
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        """Pass on what arrived."""
        if not self._ended:
            self._on_bytes(data)

    def pause_writing(self) -> None:
        """The kernel's buffer and ours are full."""
        self.paused = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.paused = False
        if not self._ended:
            self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session why, once."""
        if not self.ended.done():
            self.ended.set_result(None)
        if not self._ended:
            self._ended = True
            self._on_end(self, exc)


async def dial(address: BrokerAddress, wire: Callable[[], Wire]) -> Wire:
    """Connect to the broker; raises Unavailable, or Misconfigured where TLS can never succeed.

    A certificate that is not valid now may be so once the box's clock is set.
    """
    context = _tls_context(address) if address.secure else None
    loop = asyncio.get_running_loop()
    sock = await _connected_socket(address)
    try:
        _, protocol = await loop.create_connection(
            wire, sock=sock, ssl=context, server_hostname=address.host if context else None
        )
    except ssl.SSLCertVerificationError as error:
        sock.close()
        said = f"The certificate of the broker at {address} is not trusted: {error.verify_message}"
        if clock := out_of_time(error.verify_code):
            raise Unavailable(f"{said}; {clock}.") from error
        raise Misconfigured(
            f"{said}.",
            mend="Set ca_file to the authority that signed it, and connect by the name in the certificate.",
        ) from error
    except OSError as error:
        sock.close()
        if tls_refusal(error):
            raise tls_misconfigured(address, error) from error
        raise Unavailable(f"The broker at {address} cannot be reached: {error}.") from error
    except BaseException:
        sock.close()
        raise
    return protocol


def tls_refusal(error: Exception | None) -> bool:
    """True where TLS itself said no, as opposed to a connection that merely ended in the middle."""
    passing = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(error, ssl.SSLError) and not isinstance(error, passing)


def tls_misconfigured(address: BrokerAddress, error: Exception) -> Misconfigured:
    """The error for a handshake that will fail every time."""
    return Misconfigured(
        f"TLS with the broker at {address} failed: {error}.",
        mend="Check that the port speaks TLS and that the client certificate is one the broker accepts.",
    )


async def _connected_socket(address: BrokerAddress) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"The broker's host {address.host} is not known: {error}.") from error
    failure: OSError | None = None
    for family, kind, number, _, target in infos:
        sock = socket.socket(family, kind, number)
        try:
            sock.setblocking(False)
            # Neither paho nor aiomqtt sets it; Nagle with delayed acknowledgements costs 44 ms per QoS 1.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, target)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise Unavailable(f"The broker at {address} cannot be reached: {failure}.") from failure


def _tls_context(address: BrokerAddress) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=address.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if address.cert_file is not None:
            context.load_cert_chain(address.cert_file, address.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(
            f"The TLS files for {address} cannot be used: {error}.",
            mend="Check ca_file, cert_file and key_file.",
        ) from error
    return context
