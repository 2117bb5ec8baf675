"""Checks of the broker: is it there, does it speak MQTT 5, may the box do there what it needs, and others not?

Asked by `edge doctor`, as an ordinary client with the gateway's credentials, beside a running gateway or without one.
What it publishes means nothing to anybody: an answer that was not asked for, and a request that is none. Never says a
password or a token.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from edge.core.errors import EdgeError
from edge.doctor.findings import Finding, fail, ok, warn
from gateway.mqtt import NEVER, REFUSED, BrokerAddress, Message, Session, Settings, open_session
from gateway.mqtt.reasons import name
from gateway.probe import anybody_may_publish, on_loopback
from gateway.topics import ROOT, reply_prefix, request_filters, response_topic

#: A broker further away than this is none that a box can work with.
_PATIENCE_S: Final = 5.0
_PRINCIPAL: Final = "edge-doctor"
_SUBJECT: Final = "broker"
_RIGHTS: Final = "access list"


async def check(address: BrokerAddress, box: str, implementation: str = "codec") -> list[Finding]:
    """What there is to say of a broker, within a few seconds."""
    token = secrets.token_hex(8)
    own_topic = f"{reply_prefix(box)}{_PRINCIPAL}-{token}"
    heard: asyncio.Event = asyncio.Event()

    def on_message(message: Message) -> None:
        session.acknowledge(message)
        if message.topic == own_topic:
            heard.set()

    session = open_session(
        implementation,
        address=address,
        settings=Settings(client_id=f"{_PRINCIPAL}-{token}", clean_start=True, connect_timeout_s=_PATIENCE_S),
        on_message=on_message,
        on_lost=lambda reason: None,
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await session.connect()
    except (EdgeError, TimeoutError) as error:
        await session.close()
        return [_unreached(address, error)]
    findings = [_reached(address)]
    try:
        async with asyncio.timeout(2 * _PATIENCE_S):
            findings += await _rights(session, box, token, own_topic, heard)
            findings.append(await _apart(implementation, box, address))
    except (EdgeError, TimeoutError) as error:
        findings.append(_unreached(address, error))
    finally:
        await session.close()
    return findings


def none_is_set() -> Finding:
    """The finding where no broker is configured and none runs with `edge up`."""
    return warn(
        _SUBJECT,
        "none is set: only `edge up` brings one of its own, for trials.",
        'Set broker = "mqtt://host:port" in edge.toml, or EDGE_BROKER; production means mosquitto.',
    )


def _unreached(address: BrokerAddress, error: Exception) -> Finding:
    if isinstance(error, EdgeError):
        mend = error.mend or "Start it, or see whether address, port and network are right."
        return fail(_SUBJECT, error.message, mend)
    return fail(
        _SUBJECT, f"{address} did not answer within {_PATIENCE_S:.0f} s.", "See whether it is overloaded."
    )


def _reached(address: BrokerAddress) -> Finding:
    if address.password and not address.secure and not on_loopback(address):
        return warn(
            _SUBJECT,
            f"{address} speaks MQTT 5, and our password goes there for everybody on the way to read.",
            "Use TLS: mqtts://host:8883.",
        )
    return ok(_SUBJECT, f"{address} speaks MQTT 5.")


async def _rights(
    session: Session, box: str, token: str, own_topic: str, heard: asyncio.Event
) -> list[Finding]:
    """Whether the gateway would hear requests and could answer. A granted subscription proves nothing by itself."""
    filters = request_filters(box)
    mend = (
        f"Let the box's user read {', '.join(each for each, _ in filters)} and write {ROOT}/{box}/response/#."
    )
    try:
        await session.subscribe(filters, retained=NEVER)
    except EdgeError as error:
        return [fail(_RIGHTS, error.message, mend)]
    answer = await session.publish(response_topic(box, _PRINCIPAL, token), b"")
    if answer >= REFUSED:
        return [fail(_RIGHTS, f"the box may not publish answers: {name(answer)}.", mend)]
    own = await session.publish(own_topic, b"")
    if own >= REFUSED:
        # Others write there; that we may not is no fault, and leaves nothing to hear.
        return [ok(_RIGHTS, "subscriptions are granted, and answers may be published.")]
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await heard.wait()
    except TimeoutError:
        return [
            fail(_RIGHTS, "a subscription was granted, and what was published for it does not come.", mend)
        ]
    return [ok(_RIGHTS, "what is published for the box is heard, and answers may be published.")]


async def _apart(implementation: str, box: str, address: BrokerAddress) -> Finding:
    if not await anybody_may_publish(implementation, box, address):
        return ok(_RIGHTS, "nobody may ask in somebody else's name.")
    says = "anybody may publish requests in anybody's name"
    mend = "Give it `allow_anonymous false` and an access list with `pattern write edge/v1/+/request/%u/#`."
    if on_loopback(address):
        return warn(_RIGHTS, f"{says}: that is accepted on loopback only.", mend)
    return fail(_RIGHTS, f"{says}: the gateway refuses to serve there.", mend)
