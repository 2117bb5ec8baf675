"""`edge explain`: why an execution went as it went, from the log alone. Works with or without a runtime.

Called by `edge.cli.main`. Reads the journal's files as `edge log show` does, evaluates every decision again
(`edge.replay.explain`) and never changes anything.
"""

from __future__ import annotations

import argparse
from typing import Any

from edge.cli.history import pruned, read_history
from edge.cli.inputs import whole_number
from edge.cli.story import plain_json, shorten
from edge.core.errors import EdgeError, LogDamaged, RequestRefused
from edge.core.events import Event, ExecutionRequested, LoopStarted
from edge.core.settings import Settings, load_settings
from edge.core.values import TableRef
from edge.replay.decisions import CHANGED, Decision
from edge.replay.explain import explain
from edge.runtime.requests.admit import read_input, started_workload
from edge.store.blobs import BlobStore
from edge.store.blocks import REQUEST_TABLE, request_key
from playbooks.blueprint import Blueprint


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "explain",
        parents=[shared],
        help="say why an execution went as it went",
        description="Each decision of an execution: which rule or arc, and the values it looked at, evaluated again\n"
        "from the log. What comes out otherwise now than recorded is marked decision-changed.",
        epilog="exit codes: 0 all as recorded, 1 a decision comes out otherwise now, 2 refused\n\n"
        "examples:\n  edge explain 42\n  edge explain 42 --item 7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("execution", metavar="EXEC", help="execution id, or its number")
    parser.add_argument(
        "--item", type=whole_number, metavar="N", help="of loops, explain item N too; the first is 0"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each decision")
    parser.set_defaults(command=_explain)


def _explain(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    history = read_history(settings, given.execution)
    if history.thinned:
        raise pruned(history, "Only request, answer and end are kept of what was")
    request, execution_id = history.request, history.execution_id
    data = history.blueprints.get(request.digest)
    if data is None:
        raise LogDamaged(f"The log does not hold the blueprint of execution {history.number}.")
    blueprint = Blueprint.decode(data)
    workload = _workload(settings, execution_id, request, blueprint)
    _require_item(given.item, history.events, execution_id)
    decisions = explain(blueprint, history.events, workload, execution_id, item=given.item)
    if given.json:
        for decision in decisions:
            print(plain_json(decision.plain()))
    else:
        print(f"execution  {execution_id}\nplaybook   {blueprint.path} {blueprint.digest.hex()[:16]}")
        for decision in decisions:
            print("\n".join(_lines(decision)))
    return 1 if any(decision.status == CHANGED for decision in decisions) else 0


def _require_item(item: int | None, events: list[Event], execution_id: str) -> None:
    """Raises RequestRefused where no loop of the execution has such an item."""
    if item is None:
        return
    loops = {event.step: event.body.total for event in events if isinstance(event.body, LoopStarted)}
    if not loops:
        raise RequestRefused(
            f"Execution {execution_id} has no loop, so no item {item}.", mend="Leave --item out."
        )
    if not 0 <= item < max(loops.values()):
        said = ", ".join(f"{step} has {total}" for step, total in loops.items())
        raise RequestRefused(
            f"No loop of execution {execution_id} has an item {item}: {said}.", mend="The first item is 0."
        )


def _workload(
    settings: Settings, execution_id: str, request: ExecutionRequested, blueprint: Blueprint
) -> dict[str, Any]:
    """The workload the execution started with: the playbook's with the request's input over it."""
    seq = int(execution_id.rpartition("-")[2])
    payload = request.payload or b""
    if request.payload_digest is not None:
        payload = BlobStore(settings.blob_folder).get(request.payload_digest)
    try:
        given = read_input(request.content_type, payload)
        workload = started_workload(blueprint, given or {}, execution_id)
    except EdgeError as error:
        raise LogDamaged(f"The request of execution {seq} cannot be read: {error.message}") from error
    if given is not None and request.batch is None:
        return workload
    return {**workload, REQUEST_TABLE: TableRef(request_key(seq), b"", len(payload), None, None)}


def _lines(decision: Decision) -> list[str]:
    """One decision for people."""
    step = decision.step + (f"[{decision.visit}]" if decision.visit else "")
    step += f" item {decision.item}" if decision.item is not None else ""
    lines = ["", f"{decision.seq:>8}  {decision.kind:<9}  {step:<20}  {decision.chosen}".rstrip()]
    for asked in decision.asked:
        values = ", ".join(f"{name} = {shorten(plain_json(value))}" for name, value in asked.values.items())
        condition = f": {shorten(asked.condition)}" if asked.condition != "always" else ""
        lines.append(f"{'':>12}{asked.what}{condition}  [{asked.outcome}]{f'  {values}' if values else ''}")
    if decision.status:
        lines.append(f"{'':>12}{decision.status}: {decision.note}")
    return lines
