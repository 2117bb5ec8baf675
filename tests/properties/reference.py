"""A second, slow reading of how a workflow runs: a token game over plain dictionaries, nothing shared with the core.

It settles one step at a time, always the first that may go, and takes no notice of claims, events or restarts. What
it says about visits and the answer must hold for every order in which the real core lets branches settle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Graph = dict[str, dict[str, Any]]
"""Step name to `{"mode", "arcs": [(target, modulus or None)], "fails": modulus or None, "best_effort", "deny"}`, in
the playbook's order. An arc holds where the step's output is divisible by its modulus; None always holds; a modulus
below zero is an arc for failures."""


@dataclass
class End:
    """How it ended: `status` is None where it did not within the bound."""

    status: str | None
    visits: dict[str, int] = field(default_factory=dict)
    answer: str | None = None


def run(graph: Graph, output: Callable[[str, int], int], bound: int = 300) -> End:
    """Play the token game to its end."""
    circles = _closing_arcs(graph)
    waiting: list[tuple[str, bool]] = [(next(iter(graph)), False)]
    visits: dict[str, int] = {}
    ended: dict[str, bool] = {}
    for _ in range(bound):
        if not waiting:
            return End("completed", visits, _answer(graph, ended))
        name = _first_free(graph, circles, [target for target, _ in waiting])
        if name is None:
            return End("completed", visits, _answer(graph, ended))
        waiting = _without(waiting, name)
        visit = visits[name] = visits.get(name, -1) + 1
        value = output(name, visit)
        failed = graph[name]["fails"] is not None and value % graph[name]["fails"] == 0
        on = _taken(graph[name], value, failed)
        if failed and not on and not graph[name]["best_effort"]:
            return End("failed", visits)
        ended[name] = not failed and not on
        waiting += [(graph[name]["arcs"][number][0], (name, number) in circles) for number in on]
    return End(None)


def _taken(step: dict[str, Any], value: int, failed: bool) -> list[int]:
    on = []
    for number, (_, modulus) in enumerate(step["arcs"]):
        for_failures = modulus is not None and modulus < 0
        if for_failures != failed or (modulus is not None and value % abs(modulus)):
            continue
        on.append(number)
        if step["mode"] == "exclusive":
            break
    return on


def _without(waiting: list[tuple[str, bool]], name: str) -> list[tuple[str, bool]]:
    """One token that closes a circle, or all others, go into a run; whichever kind came first."""
    first = next(closing for target, closing in waiting if target == name)
    if first:
        left = list(waiting)
        left.remove((name, True))
        return left
    return [token for token in waiting if token != (name, False)]


def _first_free(graph: Graph, circles: set[tuple[str, int]], targets: list[str]) -> str | None:
    allowed = [name for name in targets if not graph[name]["deny"]]
    for name in allowed:
        if not any(_leads(graph, circles, other, name) for other in targets if other != name):
            return name
    return allowed[0] if allowed else None


def _leads(graph: Graph, circles: set[tuple[str, int]], start: str, goal: str) -> bool:
    ahead = [target for n, (target, _) in enumerate(graph[start]["arcs"]) if (start, n) not in circles]
    return any(target == goal or _leads(graph, circles, target, goal) for target in ahead)


def _closing_arcs(graph: Graph) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    seen: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        seen.add(name)
        for number, (target, _) in enumerate(graph[name]["arcs"]):
            if target in path or target == name:
                found.add((name, number))
            elif target not in seen:
                walk(target, [*path, name])

    for name in graph:
        if name not in seen:
            walk(name, [])
    return found


def _answer(graph: Graph, ended: dict[str, bool]) -> str | None:
    names = [name for name in graph if ended.get(name)]
    return names[-1] if names else None
