"""`edge sync status` and `retry`: how the box stands with its centre, and trying again what was set aside.

Called by `edge.cli.sync`. The exit code of `status` says whether a person is needed: monitoring may rely on it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from typing import Any, Final

from edge.cli.client import RemoteProblem, RuntimeClient
from edge.cli.story import counted
from edge.core.errors import Misconfigured, Unavailable
from edge.core.settings import Settings, load_settings
from edge.sync import centre
from edge.sync.queue import Aside
from edge.sync.status import Status, status_of

_PATIENCE_S: Final = 5.0


def add(actions: Any, shared: argparse.ArgumentParser) -> None:
    """Add both to the group's actions."""
    status = actions.add_parser(
        "status",
        parents=[shared],
        help="what is sealed, what waits, what the centre has",
        description="How the box stands with its centre, from its own files. Exit code 0: nothing needs a person, 1: "
        "something does, and is named.",
    )
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(command=_status)
    retry = actions.add_parser(
        "retry",
        parents=[shared],
        help="try again what was set aside",
        description="Forget what was set aside, and a stop by another history: edge-sync tries it again once it is "
        "started anew (systemctl restart edge-sync).",
    )
    retry.set_defaults(command=_retry)


def _retry(given: argparse.Namespace) -> int:
    count = Aside(load_settings(given.data).data / centre.FOLDER).clear()
    print(f"{counted(count, 'segment')} no longer set aside" if count else "nothing was set aside")
    if count:
        print("next     systemctl restart edge-sync")
    return 0


def _status(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    said = status_of(settings)
    if problem := _not_sealed(settings):
        said.problems.append(f"the log could not be sealed: {problem}")
    if given.json:
        print(json.dumps(_document(said)))
    else:
        _tell(said)
    return 1 if said.problems else 0


def _not_sealed(settings: Settings) -> str:
    """Why the running box could not seal when it tried last; "" where it could, or none runs."""
    try:
        with RuntimeClient(settings, _PATIENCE_S) as runtime:
            return str(runtime.call("sealing")["problem"])
    except (Unavailable, Misconfigured, RemoteProblem):
        return ""


def _document(said: Status) -> dict[str, Any]:
    made = {each.name: getattr(said, each.name) for each in fields(said)}
    made["aside"] = [
        {"segment": each.number, "reason": each.reason, "stops": each.stops} for each in said.aside
    ]
    made["budget"] = str(said.budget)
    made["left"] = {"day_bytes": said.left.day_bytes, "month_bytes": said.left.month_bytes}
    return made


def _tell(said: Status) -> None:
    has = f"has every event up to {said.receipted}" if said.receipted else "has nothing yet"
    print(f"centre   {has if said.enrolled else f'{has}; this box is enrolled with none (edge sync enrol)'}")
    if said.waiting_segments:
        age = f", the oldest {_lasting(said.oldest_age_s)}" if said.oldest_age_s is not None else ""
        first = f"up to event {said.sealed_through}"
        values = (
            f" and {_size(said.waiting_values_bytes)} of large values" if said.waiting_values_bytes else ""
        )
        print(
            f"waiting  {counted(said.waiting_segments, 'segment')}, {_size(said.waiting_bytes)}{values}, {first}{age}"
        )
        if said.eta_s is not None:
            print(f"takes    {_lasting(said.eta_s)} at the budget, where nothing else holds it up")
    else:
        print("waiting  nothing that is sealed")
    if said.unsealed:
        print(f"beside   {counted(said.unsealed, 'event')} that are not sealed yet")
    left = [f"{size / 1e6:.1f} MB left this {name}" for name, size in _left(said) if size is not None]
    print(f"link     {said.link}: {'; '.join([str(said.budget), *left])}")
    if said.daemon:
        print(f"sync     {said.daemon}")
    for problem in said.problems:
        print(f"wrong    {problem}")
    if said.aside:
        print("next     mend it, then edge sync retry")


def _left(said: Status) -> list[tuple[str, int | None]]:
    return [("day", said.left.day_bytes), ("month", said.left.month_bytes)]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


def _lasting(seconds: float) -> str:
    for unit, length_s in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
