"""States that were folded again, as lines for people and as JSON. Shared by `edge replay` and `edge central show`.

It also reads what both ask by: an execution's id, and the place in the log. It must never open a source of its own.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import Any

from edge.cli.story import counted, large_text, plain_json, shorten
from edge.core.codec import decode
from edge.core.errors import RequestRefused
from edge.replay.described import described
from edge.replay.difference import Difference
from edge.replay.instants import instant
from edge.replay.log_state import LogState
from edge.replay.reconstruct import Reconstructed
from edge.replay.rerun import Rerun
from edge.replay.rerun_log import TOLD_MAX, LogRerun
from edge.replay.source import Source


def number_of(text: str, source: Source) -> int:
    """An execution's number in this log. Raises RequestRefused."""
    log_id, _, number = text.rpartition("-")
    if not (number.isascii() and number.isdecimal()):
        raise RequestRefused(f"{text!r} is no execution.", mend="Give its id, or its number.")
    if log_id and log_id != source.log_id.hex():
        raise RequestRefused(
            f"Execution {text} is of another log than {source.log_id.hex()}, which is read here.",
            mend="Name the folder that has its log.",
        )
    return int(number)


def wall_ns(text: str) -> int:
    """A time as people write it, in ns since 1970; without a zone it is this machine's. Raises RequestRefused."""
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise RequestRefused(f"{text!r} is no time.", mend="Write it as 2026-11-26T04:00:00Z.") from error


def through_of(source: Source, given: argparse.Namespace) -> int | None:
    """After which event: `--at-seq`, or `--at` by the clocks in the log; how sure they are is said."""
    if given.at is None:
        return None if given.at_seq is None else int(given.at_seq)
    found = instant(source.groups(), wall_ns(given.at))
    print(f"{given.at}: {found.words}", file=sys.stderr)
    return found.seq


def print_log(state: LogState, source: Source, *, as_json: bool) -> int:
    """A whole log's state. 1 where it is not whole."""
    if as_json:
        print(plain_json({"box": source.box, "log_id": source.log_id, **_fields(state)}))
    else:
        print(f"log        {source.log_id.hex()} of {source.box}")
        print(f"through    event {state.through}, {counted(state.events, 'event')} read")
        print(f"executions {state.executions}, {state.open} not ended")
        if state.thinned:
            print(f"thinned    {state.thinned}: only request, answer and end are kept of them here")
        if state.beheaded:
            print(f"lost       {counted(state.beheaded, 'execution')}, whose request is among lost events")
        print(f"digest     {state.digest.hex()}")
        if state.lacks:
            print(f"lacks      {state.lacks}")
    return 1 if state.lacks else 0


def _fields(state: LogState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def print_one(made: Reconstructed, source: Source, *, as_json: bool) -> int:
    """One execution's state."""
    execution_id = f"{source.log_id.hex()}-{made.execution}"
    told = described(execution_id, made.state, list(made.events))
    for step in told["steps"].values():
        if step["output"] is not None and step["output"]["kind"] == "value":
            step["output"]["value"] = decode(step["output"]["value"])
    told |= {"box": source.box, "through": made.through, "digest": made.digest, "thinned": made.thinned}
    told["ctx"] = made.state.ctx
    if as_json:
        print(plain_json({**told, "playbook": made.state.request.digest}))
        return 0
    print(f"execution  {execution_id} of {source.box}, after event {made.through}")
    print(f"status     {told['status']}")
    if told["problem"]:
        print(f"problem    {told['problem'].get('code')}: {told['problem'].get('message')}")
    if made.thinned:
        print("thinned    only request, answer and end are kept of it here; the centre has all")
    print(f"digest     {made.digest.hex()}")
    if told["ctx"]:
        print(f"ctx        {shorten(plain_json(told['ctx']))}")
    for name, step in told["steps"].items():
        print(f"  {name:<20} {step['status']:<8} {_output_text(step)}".rstrip())
    for wait in told["waits"]:
        where = wait["step"] if wait["item"] is None else f"{wait['step']}[{wait['item']}]"
        print(f"  {where:<20} waits for  {wait['task']} ({wait['kind']})")
    return 0


def print_rerun(made: Rerun, source: Source, *, as_json: bool) -> int:
    """One execution that was run again. 1 where it came out otherwise."""
    execution_id = f"{source.log_id.hex()}-{made.execution}"
    if as_json:
        told = [each.plain() for each in made.differences]
        print(plain_json({
            "execution_id": execution_id, "same": made.same, "blocks": made.blocks, "taken": made.taken,
            "digest": made.digest, "recorded": made.recorded, "differences": told,
        }))  # fmt: skip
        return 0 if made.same else 1
    print(f"execution  {execution_id} of {source.box}")
    print(
        f"run again  {counted(made.blocks, 'block')}; {made.taken} outcomes of effects taken from the record"
    )
    for each in made.differences:
        print("\n".join(difference_lines(each)))
    print(f"digest     {made.digest.hex()}")
    print("same       as recorded" if made.same else f"recorded   {made.recorded.hex()}")
    return 0 if made.same else 1


def difference_lines(each: Difference, execution: int | None = None) -> list[str]:
    """One difference for people: where, which class, both values."""
    step = each.step + (f"[{each.visit}]" if each.visit else "")
    step += f" item {each.item}" if each.item is not None else ""
    of = f" of execution {execution}" if execution is not None else ""
    lines = [
        f"{each.kind:<18} at event {each.seq}{of}{f', step {step}' if step else ''}: {each.what}".rstrip(": ")
    ]
    lines.append(f"  recorded {shorten(plain_json(each.was))}")
    if each.now is not None:
        lines.append(f"  now      {shorten(plain_json(each.now))}")
    return lines


def print_log_rerun(made: LogRerun, source: Source, *, as_json: bool) -> int:
    """A log that was run again. 1 where anything came out otherwise."""
    digest, recorded = made.log_digests(source.log_id)
    whole = digest == recorded and made.same == made.executions and not made.failed
    first = sorted(made.first, key=lambda each: each[1].seq)[:TOLD_MAX]
    if as_json:
        print(plain_json({
            "box": source.box, "log_id": source.log_id, "executions": made.executions, "same": made.same,
            "blocks": made.blocks, "taken": made.taken, "thinned": made.thinned, "classes": made.classes,
            "digest": digest, "recorded": recorded, "failed": made.failed or None,
            "first": [{"execution": seq, **each.plain()} for seq, each in first],
        }))  # fmt: skip
        return 0 if whole else 1
    print(f"log        {source.log_id.hex()} of {source.box}")
    print(
        f"run again  {made.executions} executions, {counted(made.blocks, 'block')}; {made.taken} outcomes taken"
    )
    if made.thinned:
        print(f"thinned    {made.thinned}: of them there is nothing to run")
    for kind, count in made.classes.most_common():
        print(f"{kind:<18} {count}")
    for execution, each in first:
        print("\n".join(difference_lines(each, execution)))
    print(f"digest     {digest.hex()}")
    print("same       as recorded" if whole else f"recorded   {recorded.hex()}")
    if made.failed:
        print(f"failed     {made.failed}")
    return 0 if whole else 1


def _output_text(step: dict[str, Any]) -> str:
    output = step["output"]
    if step["problem"] and step["status"] != "done":
        return f"{step['problem'].get('code')}: {shorten(str(step['problem'].get('message')))}"
    if output is None:
        return ""
    if output["kind"] == "table":
        return f"table of {output['rows']} rows: {', '.join(output['columns'])}"
    if output["kind"] == "large":
        return shorten(large_text(output["size_bytes"], output["preview"]))
    if output["kind"] == "value":
        return shorten(plain_json(output["value"]))
    return f"value kept by digest {output['digest'].hex()[:16]}"
