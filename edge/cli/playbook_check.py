"""`edge playbook check`: all that is wrong with files and folders of playbooks and cases, in one run.

Called by `edge.cli.main` through the group `edge playbook`. It compiles and keeps nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edge.cli.inputs import file_name, read_source
from edge.cli.playbook_warnings import problem_told, warning_line, warnings_of
from edge.cli.story import counted, plain_json
from edge.cli.subplaybooks import unseen_by
from edge.core.errors import PlaybookInvalid, RequestRefused

_ENDINGS: Final = (".yaml", ".yml")
#: What is counted of a file, where it is sound; what else is said of it has a name.
_COUNTED: Final = {"steps": "step", "cases": "case"}


def add(actions: Any) -> None:
    """Add the action to `edge playbook`."""
    check = actions.add_parser(
        "check",
        help="say all that is wrong with files, with line, column and mend",
        description="Say all that is wrong with playbooks, subscriptions and files of cases (.test.yaml), with\n"
        "line, column and mend.",
        epilog="exit codes: 0 nothing is wrong (warnings are not), 2 something is\n\n"
        "examples:\n  edge playbook check playbooks/library\n  edge playbook check a.yaml b.yaml --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "files",
        nargs="+",
        type=file_name,
        metavar="FILE",
        help="files, or folders with all their .yaml below",
    )
    check.add_argument("--json", action="store_true", help="one JSON object for each file")
    check.set_defaults(command=_check)


def _check(given: argparse.Namespace) -> int:
    wrong = 0
    for path in _files(given.files):
        problems, told = check_file(path)
        warnings = told.pop("warnings", [])
        wrong += bool(problems)
        if given.json:
            print(
                plain_json(
                    {
                        "file": str(path),
                        "ok": not problems,
                        "problems": problems,
                        "warnings": warnings,
                        **told,
                    }
                )
            )
            continue
        for problem in problems:
            print(
                f"{path}:{problem['line']}:{problem['column']}: {problem['message']} {problem['mend']}".rstrip()
            )
        if not problems:
            print(f"{path}: ok, " + ", ".join(_said(*each) for each in told.items()))
            for warning in warnings:
                print(warning_line(str(path), warning))
            _print_unseen(path)
    return 2 if wrong else 0


def _said(name: str, value: Any) -> str:
    return counted(value, _COUNTED[name]) if name in _COUNTED else f"{name} {value}"


def _print_unseen(path: Path) -> None:
    try:
        unseen = unseen_by(path)
    except PlaybookInvalid as error:
        print(f"{path}: runs a playbook that does not compile: {error.message.splitlines()[0]}")
        return
    for name in unseen:
        print(f"{path}: runs {name!r}, which no file beside it is; the box must have it by then")


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
    """`(problems as {line, column, message, mend}, what else there is to tell)` of one file, or of what is none."""
    from playbooks.blueprint import Blueprint
    from playbooks.cases import ENDING, read_cases
    from playbooks.documents import compile_document
    from playbooks.problems import PlaybookRefused

    try:
        source = read_source(path)
    except RequestRefused as error:
        message = error.message.removeprefix(f"{path} ")  # it stands in front of the line
        return [{"line": 1, "column": 1, "message": message, "mend": error.mend or ""}], {}
    try:
        if path.name.endswith(ENDING):
            return [], {"cases": len(read_cases(source, str(path)).cases)}
        made = compile_document(source, str(path))
    except PlaybookRefused as refused:
        return [problem_told(problem) for problem in refused.problems], {}
    warnings = [problem_told(each) for each in warnings_of(source, str(path), made)]
    what = {"steps": len(made.steps)} if isinstance(made, Blueprint) else {"source": made.source}
    return [], {**what, "digest": made.digest.hex()[:16], "warnings": warnings}
