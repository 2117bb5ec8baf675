"""Does the broker's access list really keep principals apart? Asked at every start (design §7).

The gateway sees only topics, so its notion of identity is the broker's access list. The probe connects as
nobody and tries to publish as somebody: a broker that takes it keeps nobody apart. On loopback that is
said and accepted; over a network the gateway refuses to serve.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from edge.core.errors import Misconfigured, Unavailable
from gateway.mqtt import REFUSED, BrokerAddress, Settings, open_session
from gateway.topics import PROBE_PLAYBOOK, request_topic

logger = logging.getLogger(__name__)

_LOOPBACK: Final = ("127.", "localhost", "::1", "[::1]")
_PRINCIPAL: Final = "edge-access-probe"


async def require_access_list(implementation: str, box: str, address: BrokerAddress) -> None:
    """Raises Misconfigured where a network broker lets anybody publish as anybody; warns on loopback."""
    if not await anybody_may_publish(implementation, box, address):
        return
    message = f"The broker at {address} lets anyone publish requests in any principal's name."
    if on_loopback(address):
        logger.warning("%s That is accepted on loopback only.", message)
        return
    raise Misconfigured(
        message,
        mend="Give it `allow_anonymous false` and an access list with `pattern write edge/v1/+/request/%u/#`.",
    )


def on_loopback(address: BrokerAddress) -> bool:
    """Whether a broker is on this machine, by its address alone."""
    return address.host.startswith(_LOOPBACK)


async def anybody_may_publish(implementation: str, box: str, address: BrokerAddress) -> bool:
    """Whether a client without credentials may publish a request in somebody's name."""
    nobody = replace(address, username=None, password=None, cert_file=None, key_file=None)
    session = open_session(
        implementation,
        address=nobody,
        settings=Settings(client_id=f"{_PRINCIPAL}-{box}", clean_start=True),
        on_message=lambda message: None,
        on_lost=lambda reason: None,
    )
    try:
        await session.connect()
        code = await session.publish(request_topic(box, _PRINCIPAL, PROBE_PLAYBOOK), b"")
    except Misconfigured:
        return False
    except Unavailable:
        # A broker may hang up on who is not allowed; one that is really away fails the gateway's own connect.
        return False
    finally:
        await session.close()
    return code < REFUSED
