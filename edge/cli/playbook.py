"""`edge playbook`: check and draw files, print the language, register files with a running box, list what it has.

The only part of the installed system, with `edge run`, that loads YAML, Jinja2 and pydantic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli import playbook_check, playbook_test
from edge.cli.client import RuntimeClient
from edge.cli.inputs import file_name, read_source
from edge.cli.playbook_warnings import print_warnings
from edge.core.settings import load_settings

if TYPE_CHECKING:
    from playbooks.documents import Document


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "playbook",
        help="check, draw, register and list playbooks",
        description="Check and draw playbooks, register them with a running box, list what it has.",
        epilog="example:\n  edge playbook check playbooks/library/vitals.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    playbook_check.add(actions)
    graph = actions.add_parser("graph", help="draw a file as a Mermaid flowchart")
    graph.add_argument("file", type=file_name, metavar="FILE")
    graph.set_defaults(command=_graph)
    playbook_test.add(actions, shared)
    schema = actions.add_parser("schema", help="print the language as a JSON Schema, for editors")
    schema.set_defaults(command=_schema)
    reference = actions.add_parser("reference", help="print the language, key by key, in Markdown")
    reference.set_defaults(command=_reference)
    register = actions.add_parser(
        "register",
        parents=[shared],
        help="compile files, playbooks and subscriptions, and put them into a running box's catalog",
        description="Compile files, playbooks and subscriptions, and put them into a running box's catalog: all, or\n"
        "none where one does not compile. Files of cases (.test.yaml) are passed over.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    register.add_argument("files", nargs="+", type=file_name, metavar="FILE")
    register.set_defaults(command=_register)
    listing = actions.add_parser("list", parents=[shared], help="list a running box's playbooks")
    listing.set_defaults(command=_list)


def _graph(given: argparse.Namespace) -> int:
    from playbooks.mermaid import mermaid

    print(mermaid(read_source(given.file), str(given.file)), end="")
    return 0


def _schema(given: argparse.Namespace) -> int:
    from playbooks.schema import json_schema

    print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
    return 0


def _reference(given: argparse.Namespace) -> int:
    from playbooks.reference import reference_page

    print(reference_page(), end="")
    return 0


def _register(given: argparse.Namespace) -> int:
    from playbooks.blueprint import Blueprint

    made = _compiled(given.files)
    # Playbooks first: a subscription is refused where its playbook is not there.
    blueprints = sorted(made, key=lambda each: not isinstance(each, Blueprint))
    with RuntimeClient(load_settings(given.data)) as runtime:
        for blueprint in blueprints:
            done = runtime.call("register", blueprint=blueprint.data)
            state = "registered" if done["new"] else "is registered already"
            print(f"{done['path']} {state} ({blueprint.digest.hex()[:16]})")
    return 0


def _compiled(files: list[Path]) -> list[Document]:
    """The playbooks and subscriptions among files, with their warnings printed; files of cases are passed over.

    Raises PlaybookRefused with the problems of all files, RequestRefused.
    """
    from playbooks.cases import ENDING
    from playbooks.documents import compile_document, is_cases
    from playbooks.problems import PlaybookRefused, Problem

    made: list[Document] = []
    problems: list[Problem] = []
    for path in files:
        source = read_source(path)
        if path.name.endswith(ENDING) or is_cases(source, str(path)):
            print(f"{path}: skipped, a file of cases (edge playbook test)")
            continue
        try:
            made.append(compile_document(source, str(path)))
        except PlaybookRefused as refused:
            problems += refused.problems
            continue
        print_warnings(source, str(path), made[-1])
    if problems:
        raise PlaybookRefused(problems)
    return made


def _list(given: argparse.Namespace) -> int:
    with RuntimeClient(load_settings(given.data)) as runtime:
        known = runtime.call("playbooks")
    for playbook in known:
        print(f"{playbook['path']:<32} {playbook['digest'].hex()[:16]}  {' → '.join(playbook['steps'])}")
    if not known:
        print("No playbook yet. `edge playbook register FILE` adds one.")
    return 0
