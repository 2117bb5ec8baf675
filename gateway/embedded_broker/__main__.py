"""`python -m gateway.embedded_broker`: the broker as a process, until SIGTERM or SIGINT.

Started by `edge up` and by hand. Prints one line, `listening on 127.0.0.1:PORT`, when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

import uvloop

from edge.core.errors import EdgeError
from gateway.embedded_broker.broker import EmbeddedBroker


async def serve(host: str, port: int) -> None:
    """Run until told to stop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    broker = EmbeddedBroker()
    chosen = await broker.start(host=host, port=port)
    print(f"listening on {host}:{chosen}", flush=True)
    await stopping.wait()
    await broker.stop()


def main() -> int:
    """Read the arguments and serve; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway.embedded_broker", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=1883, help="0 has one chosen (default 1883)")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        uvloop.run(serve(arguments.host, arguments.port))
    except EdgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
