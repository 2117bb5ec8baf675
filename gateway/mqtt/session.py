"""What the box says to a broker and hears from it: values and one Protocol, no MQTT library.

Read by everything that talks MQTT (gateway, bridge, CLI); implemented by `paho_session` and `codec_session`.
Must never import an MQTT library: whoever needs only the words must not pay for the mouth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Protocol
from urllib.parse import unquote, urlsplit

from edge.core import limits
from edge.core.errors import Misconfigured
from edge.core.records import record
from gateway.mqtt.names import topic_problem

#: Publishes a session holds that the broker has not acknowledged; above it `publish` fails at once.
OUTGOING_MAX = 16_384
#: Bytes of topic and payload in those publishes.
OUTGOING_BYTES_MAX = 4 * limits.PAYLOAD_BYTES_MAX
#: Bytes handed to the socket that the kernel has not taken; above it QoS 0 fails at once, QoS 1 waits.
UNSENT_BYTES_MAX = 2 * limits.PAYLOAD_BYTES_MAX

assert limits.PAYLOAD_BYTES_MAX < limits.FRAME_BYTES_MAX <= UNSENT_BYTES_MAX < OUTGOING_BYTES_MAX

#: Publish results that need no broker: the reason codes it would have given (MQTT 5 §2.4).
SUCCESS = 0x00
NO_MATCHING_SUBSCRIBERS = 0x10
IMPLEMENTATION_SPECIFIC_ERROR = 0x83
TOPIC_NAME_INVALID = 0x90
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
RETAIN_NOT_SUPPORTED = 0x9A
#: From here upwards a reason code is a refusal.
REFUSED = 0x80
#: When retained messages come after a SUBSCRIBE.
ALWAYS = "always"
ONCE = "once"
NEVER = "never"


@record
class Message:
    """One message from the broker.

    `qos` is 0 or 1; `retain` is the flag as received (true only for a message the broker had kept);
    `ack_token` is what `acknowledge` needs and means nothing else; `duplicate`: the broker sent it before.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    response_topic: str | None
    correlation: bytes | None
    content_type: str | None
    user_properties: tuple[tuple[str, str], ...]
    ack_token: object
    duplicate: bool
    #: The broker's id of the packet at QoS 1; what it sends again has the same. 0 at QoS 0.
    packet_id: int = 0


@record
class Will:
    """What the broker publishes for us when the connection is lost without a goodbye."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False

    def __post_init__(self) -> None:
        if problem := topic_problem(self.topic):
            raise Misconfigured(f"The will's topic {self.topic!r} is invalid: {problem}.")
        if self.qos not in (0, 1) or len(self.payload) > 65_535:  # MQTT 5 §3.1.3.4: binary data
            raise Misconfigured("A will has QoS 0 or 1 and at most 65,535 bytes.")


@record
class BrokerAddress:
    """Where the broker listens and how to prove who we are. TLS is used when `tls` or any file is set.

    The password never appears in `str()`, `repr()` or an error message.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    tls: bool = False

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise Misconfigured(
                f"The client certificate for {self} is incomplete.", mend="Set both cert_file and key_file."
            )

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> BrokerAddress:
        """Read `mqtt://[user[:password]@]host[:port]` or `mqtts://…`; ports default to 1883 and 8883.

        Raises Misconfigured; the message never repeats the URL's credentials.
        """
        mend = "Write mqtt://host:port, or mqtts://host:port for TLS."
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Misconfigured(f"The broker's address cannot be read: {error}.", mend=mend) from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise Misconfigured("The broker's address has no mqtt:// scheme or no host.", mend=mend)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise Misconfigured("The broker's address has something behind the port.", mend=mend)
        tls = parts.scheme == "mqtts"
        return cls(
            host=parts.hostname,
            port=port if port is not None else (8883 if tls else 1883),
            username=unquote(parts.username) if parts.username else username,
            password=unquote(parts.password) if parts.password else password,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            tls=tls,
        )

    @property
    def secure(self) -> bool:
        """True where the connection is made with TLS."""
        return self.tls or self.ca_file is not None or self.cert_file is not None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.secure else 'mqtt'}://{host}:{self.port}"


@record
class Settings:
    """How a session presents itself. The client id is fixed: with `clean_start` false it *is* the session."""

    client_id: str
    clean_start: bool = False
    #: How long the broker keeps subscriptions and unacknowledged messages after a lost connection.
    session_expiry_s: int = 0
    #: Unacknowledged QoS 1 messages the broker may have in flight to us (MQTT 5 §3.1.2.11.3).
    receive_maximum: int = limits.RECEIVE_MAX
    keepalive_s: int = 30
    will: Will | None = None
    #: Larger packets to us are discarded *by the broker* (MQTT 5 §3.1.2.11.4), so this stands above the
    #: largest payload: one a little too large still arrives and can be refused with an answer.
    packet_bytes_max: int = limits.FRAME_BYTES_MAX
    #: TCP, TLS and CONNACK together.
    connect_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.client_id or len(self.client_id.encode()) > 65_535:
            raise Misconfigured("The MQTT client id is empty or too long.", mend="Set a client_id.")
        if not 1 <= self.receive_maximum <= 65_535:
            raise Misconfigured(f"receive_maximum {self.receive_maximum} is outside 1–65535.")
        if not 1 <= self.keepalive_s <= 65_535:
            raise Misconfigured(f"keepalive_s {self.keepalive_s} is outside 1–65535.")
        if not 0 <= self.session_expiry_s <= 0xFFFF_FFFF:
            raise Misconfigured(f"session_expiry_s {self.session_expiry_s} is outside 0–4294967295.")
        if not 1_024 <= self.packet_bytes_max <= 0x0FFF_FFFF:
            raise Misconfigured(f"packet_bytes_max {self.packet_bytes_max} is outside 1024–268435455.")


#: Called on the event loop for every message, in order of arrival. It may run before `connect` has returned
#: (a kept session delivers at once). Never more than `receive_maximum` messages are handed over and not
#: acknowledged, whatever the broker does. It must not raise: an exception ends the connection.
OnMessage = Callable[[Message], None]
#: Called once when an established connection is lost without `close`; `connect` may then be called again.
OnLost = Callable[[str], None]


class Session(Protocol):
    """One client of one broker. All methods belong to one event loop; none blocks it.

    A session may be connected again after it was lost. Nothing is sent again by itself: publishes that
    were waiting for their acknowledgement fail with Unavailable and the caller sends them again.
    """

    async def connect(self) -> bool:
        """Open the connection; True where the broker still had this client's session.

        Raises Unavailable (try again later) or Misconfigured (credentials, authorisation, TLS, version).
        """

    async def subscribe(self, filters: Sequence[tuple[str, int]], *, retained: str = ALWAYS) -> None:
        """Subscribe to (topic filter, QoS 0 or 1) pairs in one request.

        `retained` says when the broker delivers what it had kept from before (MQTT 5 §3.8.3.1, Retain Handling):
        ALWAYS, NEVER, or ONCE: where the session did not have this subscription.

        Raises Misconfigured where the broker refuses one, Unavailable where the connection is lost first.
        """

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Give up topic filters in one request; one that was not subscribed to is none the worse.

        What the broker had queued by them still comes. Raises Unavailable where the connection is lost first.
        """

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        user_properties: Sequence[tuple[str, str]] = (),
        message_expiry_s: int | None = None,
    ) -> asyncio.Future[int]:
        """Publish; the future is the broker's reason code, `REFUSED` and above meaning it refused.

        QoS 0 gives 0 when handed to the socket. A publish that no broker could accept (wildcard in the topic,
        larger than the broker's maximum) is not sent and gives the reason code the broker would have given,
        so that a topic which came from outside cannot end the connection. Fails with Unavailable where the
        connection is lost before the acknowledgement or too much is waiting. Ignoring the future is allowed.
        """

    def acknowledge(self, message: Message) -> None:
        """Acknowledge one message (PUBACK); QoS 0 and messages of an earlier connection are ignored.

        Acknowledging in the order of arrival (MQTT 5 §4.6) is the caller's duty.
        """

    async def close(self) -> None:
        """Say goodbye and close; the broker drops the will. Waiting publishes fail with Unavailable."""
