"""Entry of the gateway process: `python -m gateway --data FOLDER --broker mqtt://host:port`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

import uvloop

from edge.core.errors import EdgeError
from edge.core.journal_log import log_as
from edge.core.options import LOG_LEVELS, Option, read_options
from edge.core.settings import BROKER_VARIABLE, load_settings
from gateway.daemon import serve
from gateway.mqtt import IMPLEMENTATIONS

OPTIONS = {
    "data": Option(None, help="data folder, $EDGE_DATA where it is left out"),
    "broker": Option(None, help="mqtt://[user:password@]host[:port]; over $EDGE_BROKER and edge.toml"),
    "mqtt": Option("codec", tuple(IMPLEMENTATIONS)),
    "log-level": Option("info", LOG_LEVELS),
}


def main() -> int:
    """Run the daemon; its exit code: 0 stopped, 2 cannot serve as configured."""
    given = read_options("gateway", OPTIONS, sys.argv[1:])
    log_as("gateway", given["log-level"] or "info")
    try:
        broker = given["broker"] or os.environ.get(BROKER_VARIABLE)
        folder = Path(given["data"]) if given["data"] else None
        settings = load_settings(folder, **({"broker": broker} if broker else {}))
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # next to nothing here is cyclic
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, given["mqtt"] or "codec"))
    except EdgeError as error:
        logging.getLogger("gateway").critical("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
