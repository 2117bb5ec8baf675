"""`edge show`: the story of one execution, from its events: told by the running box, else read from its log.

Called by `edge.cli.main`; `edge run` tells its story by it too. It never changes anything.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from edge.cli.client import RuntimeClient
from edge.cli.history import read_history
from edge.cli.story import counted, event_line, large_text, plain_json, shorten
from edge.core.carried import COPIES, held_by
from edge.core.chain import Context
from edge.core.codec import decode
from edge.core.errors import Unavailable
from edge.core.settings import Settings, load_settings
from edge.core.state import fold
from edge.replay.described import described
from edge.store.journal import read_groups
from edge.store.numbers import told_range


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "show",
        parents=[shared],
        help="tell the story of one execution",
        description="Tell the story of one execution: its steps, its answer, its events.\n"
        "Without a running box it is read from the log.",
        epilog="example:\n  edge show 3f2a9c0d11e0b7aa-42      (42 alone is enough)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("execution", metavar="EXEC", help="execution id, or its number")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(command=_show)


def _show(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    try:
        client = RuntimeClient(settings)
    except Unavailable:
        found = _from_log(settings, given.execution)
        print("No runtime serves this box: this is what its log says.", file=sys.stderr)
    else:
        with client as runtime:
            found = runtime.call("execution", id=given.execution)
    if given.json:
        print(plain_json(_decoded(found), indent=2))
    else:
        print("\n".join(story_lines(found, settings)))
    return 0


def _from_log(settings: Settings, execution: str) -> dict[str, Any]:
    """The execution as its events in the journal have it. Raises RequestRefused, LogDamaged."""
    history = read_history(settings, execution)
    return described(history.execution_id, fold(history.events), history.events)


def _decoded(found: dict[str, Any]) -> dict[str, Any]:
    for step in found["steps"].values():
        output = step["output"]
        if output is not None and output["kind"] == "value":
            output["value"] = decode(output["value"])
    return found


def story_lines(found: dict[str, Any], settings: Settings) -> list[str]:
    """An execution as the runtime describes it, for people."""
    lines = [
        f"execution  {found['execution_id']}",
        f"status     {found['status']}",
        f"asked by   {found['principal']}, request id {found['request_id'] or '-'}",
    ]
    if found["batch"]:
        _, first, last, count, lane, attempt = found["batch"]
        key = "" if lane is None else f" with key {lane}"
        what = f"{counted(count, 'message')}{key}, {told_range(first, last)}"
        lines.append(f"takes      {what}, attempt {attempt}")
    if found["problem"]:
        lines.append(f"problem    {found['problem'].get('code')}: {found['problem'].get('message')}")
        if found["problem"].get("mend"):
            lines.append(f"mend       {found['problem']['mend']}")
    parent = found["parent"]
    if parent is not None:
        item = "" if parent["item"] is None else f", item {parent['item']}"
        lines.append(f"begun by   step {parent['step']}{item} of execution {parent['execution']}")
    if found["children"]:
        lines.append(f"began      {', '.join(map(str, found['children']))}")
    lines += ["", "steps"]
    lines += [f"  {_step_text(name, step)}" for name, step in found["steps"].items()]
    if found["waits"]:
        lines += ["", "waits for"]
        lines += [f"  {_wait_text(wait)}" for wait in found["waits"]]
    lines += ["", "events"]
    return lines + event_lines(settings, found["events"])


def _step_text(name: str, step: dict[str, Any]) -> str:
    took = f" in {step['duration_us'] / 1000:.1f} ms" if step["duration_us"] is not None else ""
    text = f"{name:<20} {step['status']}{took}"
    if step["attempts"] > 1:
        text += f", attempt {step['attempts']}"
    output = step["output"]
    if step["problem"] and step["status"] != "done":
        return f"{text}  {step['problem'].get('code')}: {shorten(str(step['problem'].get('message')))}"
    if output is None:
        return text
    if output["kind"] == "table":
        return f"{text}  table of {output['rows']} rows: {', '.join(output['columns'])}"
    if output["kind"] == "large":
        return f"{text}  {shorten(large_text(output['size_bytes'], output['preview']))}"
    if output["kind"] == "value":
        return f"{text}  {shorten(plain_json(decode(output['value'])))}"
    return f"{text}  value kept by digest {output['digest'].hex()[:16]}"


def _wait_text(wait: dict[str, Any]) -> str:
    """One wait: where, for what, until when."""
    where = wait["step"] if wait["item"] is None else f"{wait['step']}[{wait['item']}]"
    what = "a callback" if wait["callback"] else "the time" if wait["kind"] == "wait" else f"a {wait['kind']}"
    until = ""
    if wait["left_ms"] is not None:
        end = datetime.now(UTC) + timedelta(milliseconds=wait["left_ms"])
        until = f", until {end:%Y-%m-%d %H:%M:%S}Z (in {timedelta(seconds=wait['left_ms'] // 1000)})"
    return f"{where:<20} {wait['task']}: {what}{until}"


def event_lines(settings: Settings, seqs: list[int]) -> list[str]:
    """These events, one line each, read from the journal."""
    missing, lines = set(seqs), {}
    if not missing:
        return []
    for _, group, _ in read_groups(settings.journal_folder, min(missing) - 1):
        for event in group.events():
            # What was carried has its old number, and stands later in the log.
            at = Context.decode(event.body.context).at if isinstance(event.body, COPIES) else group.context.at
            for each in held_by(event):
                if each.seq in missing:
                    missing.discard(each.seq)
                    lines[each.seq] = event_line(each, at)
        if not missing:
            break
    return [lines[seq] for seq in sorted(lines)]
