"""The floor's other end: gives every message back to its response topic. Started by `processes`.

A raw responder on the codec session in a process of its own: what any answer over this broker costs at least.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from gateway.mqtt import BrokerAddress, Message, Settings, open_session


async def serve(port: int, topic: str) -> None:
    """Echo until stdin ends."""

    def received(message: Message) -> None:
        session.acknowledge(message)
        assert message.response_topic is not None
        session.publish(message.response_topic, message.payload, correlation=message.correlation)

    session = open_session(
        "codec",
        address=BrokerAddress("127.0.0.1", port),
        settings=Settings(client_id="bench-responder", clean_start=True),
        on_message=received,
        on_lost=lambda reason: sys.exit(f"the echo responder lost the broker: {reason}"),
    )
    await session.connect()
    await session.subscribe([(topic, 1)])
    gc.freeze()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await session.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), sys.argv[2]))
