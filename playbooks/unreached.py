"""Steps that nothing leads to: they never run, which is no error in NoETL and so is none here, but seldom meant.

Called by the command line (check, register, run) for a playbook that compiles. It looks at arcs alone: whether a
condition can ever hold is nobody's to say here.
"""

from __future__ import annotations

from playbooks.blueprint import Blueprint
from playbooks.loader import Listing, Mapping_, Marked, load
from playbooks.problems import Problem, open_source


def unreached(data: bytes, file_name: str, blueprint: Blueprint) -> list[Problem]:
    """A warning for each step that begins what never runs, where it stands; `data` is the blueprint's source."""
    names = [step.name for step in blueprint.steps]
    targets = [[arc.target for arc in step.arcs] for step in blueprint.steps]
    begin = {blueprint.entry} if blueprint.final is None else {blueprint.entry, blueprint.final}
    runs = _reached(targets, begin)
    dead = [number for number in range(len(names)) if number not in runs]
    led_to = {target for number in dead for target in targets[number] if target != number}
    told: set[int] = set()
    for number in sorted(
        dead, key=lambda each: each in led_to
    ):  # those that nothing at all leads to come first
        if number not in _reached(targets, told):
            told.add(number)
    source = open_source(data, file_name)
    root = None if isinstance(source, Problem) else load(source)
    listed = root.get("workflow") if isinstance(root, Mapping_) else None
    if isinstance(source, Problem) or not isinstance(listed, Listing) or len(listed.items) != len(names):
        return []
    return [
        Problem(
            file_name,
            *source.position(_name_of(listed.items[number]).start),
            f"No arc leads to step {names[number]}: it never runs.",
            _mend(names, targets, number, blueprint.entry),
        )
        for number in sorted(told)
    ]


def _reached(targets: list[list[int]], begin: set[int]) -> set[int]:
    """All steps that are there or led to from there."""
    found, left = set(begin), list(begin)
    while left:
        new = set(targets[left.pop()]) - found
        found |= new
        left += new
    return found


def _name_of(step: Marked) -> Marked:
    """Where a step says its name."""
    return (step.get("step") or step) if isinstance(step, Mapping_) else step


def _mend(names: list[str], targets: list[list[int]], number: int, entry: int) -> str:
    """The step before it is where an author who thinks of a list would have gone on."""
    before = number - 1 if number else entry
    if not targets[before]:
        return f"Write `next: [{names[number]}]` on {names[before]}."
    return f"Add {names[number]} to the `next` of a step that runs, or take it out."
