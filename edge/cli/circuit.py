"""`edge circuit`: the circuit breakers of a running box, and closing one by hand.

Asks the runtime; opened and closed are events of the log, so they hold across restarts.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from edge.cli.client import RuntimeClient
from edge.core.settings import load_settings


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "circuit",
        help="look at circuit breakers, close one",
        description="Downstreams that playbooks guard by spec.policy.breaker: how many failures in a row, which are "
        "open, and when one call may try again.",
        epilog="example:\n  edge circuit list\n  edge circuit reset api.example.org:443",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[shared], help="those with failures, and the open ones")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(command=_list)
    reset = actions.add_parser("reset", parents=[shared], help="close one that is open")
    reset.add_argument("downstream", metavar="NAME", help="as `edge circuit list` names it")
    reset.set_defaults(command=_reset)


def _list(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        circuits = runtime.call("circuits")
    if given.json:
        print(json.dumps(circuits))
        return 0
    for one in circuits:
        probe = (
            "" if one["probe_in_ms"] is None else f"  one call may try in {one['probe_in_ms'] / 1_000:.1f} s"
        )
        print(f"{one['downstream']}  {one['state']}  {one['failures']} failures in a row{probe}")
    if not circuits:
        print("no failures in a row anywhere")
    return 0


def _reset(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        runtime.call("reset_circuit", downstream=given.downstream)
    print(f"{given.downstream} is closed")
    return 0
