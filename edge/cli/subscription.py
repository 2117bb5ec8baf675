"""`edge subscription`: list and show a running box's subscriptions, pause, resume and drain them.

Asks the runtime; each change is an event of the log, so it holds across restarts. They are registered as playbooks
are.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from edge.cli.client import RuntimeClient
from edge.cli.story import counted
from edge.core.settings import load_settings


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "subscription",
        help="list, show, pause, resume and drain subscriptions",
        description="What brings messages and ticks to playbooks without anybody asking. "
        "Files of kind Subscription are registered with `edge playbook register`.",
        epilog="example:\n  edge subscription list\n  edge subscription pause subscriptions/readings",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[shared], help="list a running box's subscriptions")
    listing.set_defaults(command=_list)
    for name, what in (
        ("show", "say where a subscription stands"),
        ("pause", "let nothing more begin; messages are accepted and wait in the log"),
        ("resume", "go on, after a pause or after it was drained"),
        (
            "drain",
            "carry out what was accepted, accept nothing more: what is published then is lost; pause keeps it",
        ),
    ):
        action = actions.add_parser(name, parents=[shared], help=what)
        action.add_argument("path", metavar="PATH", help="the subscription's path")
        action.set_defaults(command=_show if name == "show" else _change, action=name)


def _list(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        known = runtime.call("subscriptions")
    for each in known:
        counts = each["counts"]
        print(
            f"{each['path']:<32} {each['state']:<11} {each['source']:<5} → {each['playbook']}"
            f"  {counts['received']} received, {each['backlog']} waiting, {counts['dead']} dead"
            f"{'' if each['absent'] is None else '; not at the broker, `edge subscription show` says why'}"
        )
    if not known:
        print("No subscription yet. `edge playbook register FILE` adds one.")
    return 0


def _show(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        found = runtime.call("subscription", path=given.path)
    for line in _lines(found):
        print(line)
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    counts = found["counts"]
    takes = f"batches of up to {found['rows_max']}" if found["table"] else "one message each"
    lines = [
        f"subscription  {found['path']} ({found['digest'].hex()[:16]}), number {found['number']} in the log",
        f"state         {found['state']}",
        *(
            []
            if found["absent"] is None
            else [f"broker        nothing comes in at the moment: {found['absent']}"]
        ),
        f"source        {_source(found)}",
        f"playbook      {found['playbook']}, {takes}, order {found['ordering']}",
        f"received      {counts['received']}, {counts['deduplicated']} came again and were left out",
        f"executions    {counts['executions']}, {found['in_flight']} under way",
        f"waiting       {found['backlog']}; all is settled up to event {found['position']}",
        f"dead letters  {counts['dead']}{_to(found)}",
    ]
    for batch in found["batches"]:
        lane = "" if batch["lane"] is None else f", key {batch['lane']}"
        lines.append(
            f"  batch {batch['first']}-{batch['last']} ({counted(batch['count'], 'message')}{lane}), "
            f"attempt {batch['attempt']}: execution {batch['execution']}"
        )
    return lines


def _source(found: dict[str, Any]) -> str:
    if found["source"] == "timer":
        return (
            f"a tick every {timedelta(milliseconds=found['every_ms'])}, the last was number {found['tick']}"
        )
    return "mqtt " + ", ".join(f"{pattern} (QoS {qos})" for pattern, qos in found["topics"])


def _to(found: dict[str, Any]) -> str:
    return f", published to {found['dead_letter_topic']}" if found["dead_letter_topic"] else ""


def _change(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        state = runtime.call(f"subscription.{given.action}", path=given.path, by="cli")["state"]
    print(f"{given.path} is {state}")
    wanted = {"pause": ("paused",), "resume": ("active",), "drain": ("draining", "deactivated")}
    return 0 if state in wanted[given.action] else 1
