"""`edge playbook check`: all that is wrong with files and folders of playbooks and cases, in one run.

Called by `edge.cli.main` through the group `edge playbook`. It compiles and keeps nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edge.cli.inputs import read_source
from edge.cli.story import plain_json
from edge.cli.subplaybooks import unseen_by
from edge.core.errors import RequestRefused

_ENDINGS: Final = (".yaml", ".yml")
_TOLD: Final = {"steps": "{} steps", "digest": "digest {}", "source": "source {}", "cases": "{} cases"}


def add(actions: Any) -> None:
    """Add the action to `edge playbook`."""
    check = actions.add_parser(
        "check",
        help="say all that is wrong with files, with line, column and mend",
        description="Say all that is wrong with playbooks, subscriptions and files of cases (.test.yaml), with\n"
        "line, column and mend.",
        epilog="exit codes: 0 nothing is wrong, 2 something is\n\n"
        "examples:\n  edge playbook check playbooks/library\n  edge playbook check a.yaml b.yaml --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="files, or folders with all their .yaml below"
    )
    check.add_argument("--json", action="store_true", help="one JSON object for each file")
    check.set_defaults(command=_check)


def _check(given: argparse.Namespace) -> int:
    wrong = 0
    for path in _files(given.files):
        problems, told = check_file(path)
        wrong += bool(problems)
        if given.json:
            print(plain_json({"file": str(path), "ok": not problems, "problems": problems, **told}))
            continue
        for problem in problems:
            print(
                f"{path}:{problem['line']}:{problem['column']}: {problem['message']} {problem['mend']}".rstrip()
            )
        if not problems:
            print(f"{path}: ok, " + ", ".join(_TOLD[name].format(value) for name, value in told.items()))
            for unseen in unseen_by(path):
                print(f"{path}: runs {unseen!r}, which no file beside it is; the box must have it by then")
    return 2 if wrong else 0


def _files(paths: list[Path]) -> Iterator[Path]:
    """The files that are meant. Raises RequestRefused where a folder holds none."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(each for each in path.rglob("*") if each.suffix in _ENDINGS and each.is_file())
        if not found:
            raise RequestRefused(f"{path} holds no playbook.", mend="Name a folder with .yaml files in it.")
        yield from found


def check_file(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`(problems as {line, column, message, mend}, what else there is to tell)` of one file."""
    from playbooks.blueprint import Blueprint
    from playbooks.cases import ENDING, read_cases
    from playbooks.documents import compile_document
    from playbooks.problems import PlaybookRefused

    source = read_source(path)
    try:
        if path.name.endswith(ENDING):
            return [], {"cases": len(read_cases(source, str(path)).cases)}
        made = compile_document(source, str(path))
    except PlaybookRefused as refused:
        keys = ("line", "column", "message", "mend")
        return [{key: getattr(problem, key) for key in keys} for problem in refused.problems], {}
    what = {"steps": len(made.steps)} if isinstance(made, Blueprint) else {"source": made.source}
    return [], {**what, "digest": made.digest.hex()[:16]}
