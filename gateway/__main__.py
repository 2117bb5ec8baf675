"""Entry of the gateway process: `python -m gateway --data FOLDER --broker mqtt://host:port`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

import uvloop

from edge.core.errors import EdgeError
from edge.core.settings import BROKER_VARIABLE, load_settings
from gateway.daemon import serve
from gateway.mqtt import IMPLEMENTATIONS


def main() -> int:
    """Run the daemon; its exit code: 0 stopped, 2 cannot serve as configured."""
    arguments = argparse.ArgumentParser(prog="gateway", description="The gateway daemon of one box.")
    arguments.add_argument("--data", type=Path, help="data folder (default: $EDGE_DATA)")
    arguments.add_argument(
        "--broker", help="mqtt://[user:password@]host[:port]; over $EDGE_BROKER and edge.toml"
    )
    arguments.add_argument("--mqtt", default="codec", choices=IMPLEMENTATIONS, help="MQTT implementation")
    arguments.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    given = arguments.parse_args()
    logging.basicConfig(
        level=given.log_level.upper(), format="gateway: %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        broker = given.broker or os.environ.get(BROKER_VARIABLE)
        settings = load_settings(given.data, **({"broker": broker} if broker else {}))
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # next to nothing here is cyclic
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, given.mqtt))
    except EdgeError as error:
        logging.getLogger("gateway").critical("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
