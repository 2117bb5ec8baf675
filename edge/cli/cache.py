"""`edge cache`: what the Arrow cache of a running box holds."""

from __future__ import annotations

import argparse
from typing import Any

from edge.cli.client import RuntimeClient
from edge.core.settings import load_settings


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "cache",
        help="look at the Arrow cache",
        description="Look at the Arrow cache of a running box. It may be emptied at any moment.",
        epilog="example:\n  edge cache stat",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    stat = actions.add_parser("stat", parents=[shared], help="folder, budget, use, evictions")
    stat.set_defaults(command=_stat)


def _stat(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        stat = runtime.call("cache")
    print(f"folder   {stat['folder']}")
    print(f"used     {stat['used_bytes']} of {stat['budget_bytes']} bytes in {stat['blocks']} blocks")
    print(f"evicted  {stat['evicted']} blocks")
    print(f"missed   {stat['missed']} times (made again)")
    return 0
