"""`edge callback`: use a callback token, as the world outside would over MQTT.

Asks the runtime over its socket, so it needs no broker; the callback is an event of the log.
"""

from __future__ import annotations

import argparse
from typing import Any

from edge.cli.client import RuntimeClient
from edge.cli.inputs import read_input
from edge.core.settings import load_settings


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "callback",
        parents=[shared],
        help="tell a waiting execution what it waits for",
        description="Use the callback token of a waiting execution. Its `wait` task gets the data as its result. "
        "A token is good for once, and until its wait is over.",
        epilog="example:\n  edge callback uiaq…xq2a --input '{\"approved\": true}'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("token", metavar="TOKEN", help="the token, as the playbook handed it out")
    parser.add_argument(
        "--input", metavar="JSON|@FILE", help="what to send: JSON, or @answer.json, @answer.cbor"
    )
    parser.set_defaults(command=_callback)


def _callback(given: argparse.Namespace) -> int:
    payload, content_type = (b"", None) if given.input is None else read_input(given.input)
    with RuntimeClient(load_settings(given.data)) as runtime:
        found = runtime.call("callback", token=given.token, content_type=content_type, payload=payload)
    print(f"received by {found['execution_id']}")
    return 0
