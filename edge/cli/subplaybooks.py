"""The playbooks a playbook runs: which it names, and where their files are.

Used by `edge run`, which registers them beside it, and by `edge playbook check`, which says which it does not see. It
looks beside the file and at files that were named, and compiles those only that mention a path that is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from edge.core.errors import PlaybookInvalid
from edge.core.limits import PLAYBOOK_BYTES_MAX
from playbooks.blueprint import Blueprint

#: Files of one folder that are looked into.
_FILES_MAX: Final = 500


def paths_called(blueprint: Blueprint) -> list[str]:
    """The paths of playbooks that its tasks name outright; what a template gives is only known when it runs."""
    nodes = [
        task.config["path"].node for step in blueprint.steps for task in step.tasks if task.kind == "playbook"
    ]
    return sorted({node[1] for node in nodes if node[0] == "const" and type(node[1]) is str})


def unseen_by(file: Path) -> list[str]:
    """The paths of playbooks that a sound file runs, itself or through others, and that no file beside it has."""
    from playbooks.documents import compile_document

    if file.name.endswith(".test.yaml"):
        return []
    made = compile_document(file.read_bytes(), str(file))
    return found_below(made, file.resolve().parent, ())[1] if isinstance(made, Blueprint) else []


def found_below(
    blueprint: Blueprint, beside: Path, named: Sequence[Path]
) -> tuple[list[Blueprint], list[str]]:
    """`(the playbooks it runs, and those they run, the paths no file has)`; files that were `named` are all there.

    Raises PlaybookInvalid where the file that has a path cannot be compiled.
    """
    from playbooks.compile import compile_playbook

    found = {each.path: each for each in (compile_playbook(path.read_bytes(), str(path)) for path in named)}
    wanted = [path for each in (blueprint, *found.values()) for path in paths_called(each)]
    seen, missing = {blueprint.path, *found}, []
    while wanted:
        path = wanted.pop()
        if path in seen:
            continue
        seen.add(path)
        there = _beside(beside, path)
        if there is None:
            missing.append(path)
        else:
            found[path] = there
            wanted += paths_called(there)
    return list(found.values()), sorted(missing)


def _beside(folder: Path, path: str) -> Blueprint | None:
    """The playbook of that path in a folder; None where none of its files has it."""
    from playbooks.compile import compile_playbook

    broken: PlaybookInvalid | None = None
    for file in _files(folder):
        source = file.read_bytes()
        if path.encode() not in source:
            continue
        try:
            made = compile_playbook(source, str(file))
        except PlaybookInvalid as error:
            if f"path: {path}\n".encode() in source:
                broken = error
            continue
        if made.path == path:
            return made
    if broken is not None:
        raise broken
    return None


def _files(folder: Path) -> Iterable[Path]:
    listed = sorted(file for pattern in ("*.yaml", "*.yml") for file in folder.glob(pattern))
    return [
        file for file in listed[:_FILES_MAX] if file.is_file() and file.stat().st_size <= PLAYBOOK_BYTES_MAX
    ]
