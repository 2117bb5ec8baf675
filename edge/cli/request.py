"""`edge request`: ask a box over MQTT, as any client would, and print receipt and result."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any, Final

from edge.cli.inputs import EXAMPLE, positive_seconds, read_input
from edge.core.codec import decode
from edge.core.errors import RequestRefused, Unavailable
from edge.core.records import record
from edge.core.settings import Settings, load_settings
from gateway.mqtt import BrokerAddress, Message, open_session
from gateway.mqtt import Settings as SessionSettings
from gateway.topics import request_topic, response_topic

_RESEND_S: Final = 2.0


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "request",
        parents=[shared],
        help="send a request over MQTT and wait for its result",
        description="Send a request over MQTT and wait for receipt and result.",
        epilog='example:\n  edge request hello --input \'{"name": "Ada"}\'',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("playbook", metavar="PLAYBOOK", help="path of a registered playbook")
    parser.add_argument("--input", metavar="JSON|@FILE", help=EXAMPLE)
    parser.add_argument(
        "--id", metavar="ID", help="request id (default: a new UUID); the same id is run once"
    )
    add_client_options(parser, principal="cli", timeout_s=60.0)
    parser.set_defaults(command=_request)


def add_client_options(parser: argparse.ArgumentParser, *, principal: str, timeout_s: float) -> None:
    """What every command takes that asks a box over MQTT."""
    parser.add_argument(
        "--principal", default=principal, metavar="NAME", help="topic level the broker pins to you"
    )
    parser.add_argument(
        "--broker", metavar="URL", help="mqtt://[user:password@]host[:port] (default: the box's)"
    )
    parser.add_argument("--box", metavar="NAME", help="box name (default: this machine's)")
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=timeout_s,
        metavar="S",
        help="seconds to wait for a result",
    )


@record
class Reply:
    """One answer message: kind "receipt", "refusal" or "result"."""

    kind: str
    status: str
    content_type: str
    payload: bytes

    def document(self) -> Any:
        """The decoded document; for a table, what it is."""
        if self.content_type == "application/json":
            return json.loads(self.payload)
        if self.content_type == "application/cbor":
            return decode(self.payload)
        return f"<{self.content_type}, {len(self.payload)} bytes>"

    def require_accepted(self) -> None:
        """Raises RequestRefused where it is a refusal."""
        if self.kind == "refusal":
            error = self.document()["error"]
            raise RequestRefused(
                str(error.get("message")), mend=str(error.get("mend", "")), code=str(error["code"])
            )


def broker_of(settings: Settings, given: str | None) -> BrokerAddress:
    """The broker to use: as given, as set, or the embedded one of `edge up`. Raises Unavailable."""
    url = given or settings.broker
    if not url:
        try:
            url = (settings.data / "run" / "broker").read_text("ascii").strip()
        except OSError as error:
            raise Unavailable(
                "No broker is known.", mend="Start `edge up`, or name one with --broker mqtt://host:port."
            ) from error
    return BrokerAddress.parse(url)


async def ask(
    address: BrokerAddress,
    topic: str,
    answers: str,
    payload: bytes,
    content_type: str,
    request_id: str,
    timeout_s: float,
    on_receipt: Any,
) -> Reply:
    """Publish the same request id until it is receipted, then wait for the end. Raises Unavailable."""
    replies: asyncio.Queue[Reply] = asyncio.Queue()

    def received(message: Message) -> None:
        properties = dict(message.user_properties)
        if properties.get("request-id") == request_id:
            replies.put_nowait(
                Reply(
                    properties.get("kind", "result"),
                    properties.get("status", ""),
                    message.content_type or "",
                    message.payload,
                )
            )
        session.acknowledge(message)

    session = open_session(
        address=address,
        settings=SessionSettings(client_id=f"edge-cli-{uuid.uuid4().hex[:12]}", clean_start=True),
        on_message=received,
        on_lost=lambda reason: replies.put_nowait(Reply("lost", "", "", reason.encode())),
    )
    await session.connect()
    try:
        await session.subscribe([(answers, 1)])
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        receipted = False
        while True:
            if not receipted:
                session.publish(
                    topic,
                    payload,
                    content_type=content_type,
                    response_topic=answers,
                    user_properties=(("request-id", request_id),),
                )
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise Unavailable(
                    f"No {'result' if receipted else 'receipt'} came within {timeout_s:g} s.",
                    mend=f"Ask again with --id {request_id}: it is run once.",
                )
            try:
                reply = await asyncio.wait_for(replies.get(), left_s if receipted else min(left_s, _RESEND_S))
            except TimeoutError:
                continue
            if reply.kind == "lost":
                raise Unavailable(
                    f"The broker went away: {reply.payload.decode()}.",
                    mend=f"Ask again with --id {request_id}.",
                )
            if reply.kind != "receipt":
                return reply
            receipted = True
            on_receipt(reply)
    finally:
        await session.close()


def _request(given: argparse.Namespace) -> int:
    settings = load_settings(given.data, **({"box": given.box} if given.box else {}))
    payload, content_type = read_input(given.input)
    request_id = given.id if given.id is not None else str(uuid.uuid4())
    reply = asyncio.run(
        ask(
            broker_of(settings, given.broker),
            request_topic(settings.box, given.principal, given.playbook),
            response_topic(settings.box, given.principal, request_id),
            payload,
            content_type,
            request_id,
            given.timeout,
            lambda receipt: print(_text("receipt", receipt.document()), file=sys.stderr),
        )
    )
    reply.require_accepted()
    document = reply.document()
    if isinstance(document, str):
        path = Path(f"{request_id}.arrow")
        path.write_bytes(reply.payload)
        document = {"status": reply.status, "table": str(path)}
    print(_text(None, document))
    return 0 if reply.status == "completed" else 1


def _text(label: str | None, document: Any) -> str:
    text = json.dumps(document, ensure_ascii=False, indent=None if label else 2, default=str)
    return f"{label}  {text}" if label else text
