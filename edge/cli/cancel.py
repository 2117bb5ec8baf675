"""`edge cancel`: end an execution of a running box.

Asks the runtime; the cancelling is an event of the log, so it holds across restarts.
"""

from __future__ import annotations

import argparse
from typing import Any

from edge.cli.client import RuntimeClient
from edge.core.settings import load_settings


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "cancel",
        parents=[shared],
        help="end an execution",
        description="End an execution: nothing more of it begins, and what is under way is still recorded. "
        "Whoever asked for it gets the answer `cancelled`.",
        epilog="example:\n  edge cancel 42 --reason 'wrong box'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("execution", metavar="EXEC", help="its id, or the number behind the dash")
    parser.add_argument("--reason", metavar="TEXT", help="goes into the log and the answer")
    parser.set_defaults(command=_cancel)


def _cancel(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        status = runtime.call("cancel", id=given.execution, by="cli", reason=given.reason)["status"]
    if status == "cancelled":
        print(f"{given.execution} is cancelled")
        return 0
    print(f"{given.execution} had ended before: {status}")
    return 1
