"""What is allowed in a playbook and seldom meant: said beside the work, never in its way.

Called by `edge playbook check`, `edge playbook register` and `edge run`, for playbooks that compile.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playbooks.documents import Document
    from playbooks.problems import Problem


def warnings_of(source: bytes, file_name: str, made: Document) -> list[Problem]:
    """The warnings about a compiled document, in order of position."""
    from playbooks.blueprint import Blueprint
    from playbooks.unasked import unasked
    from playbooks.unreached import unreached

    if not isinstance(made, Blueprint):
        return []
    found = unreached(source, file_name, made) + unasked(source, file_name, made)
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def print_warnings(source: bytes, file_name: str, made: Document) -> None:
    """The warnings as lines on stderr, so that what a command prints stays what it is."""
    for problem in warnings_of(source, file_name, made):
        print(warning_line(file_name, problem_told(problem)), file=sys.stderr)


def problem_told(problem: Problem) -> dict[str, Any]:
    """A problem or warning as JSON would have it: `{line, column, message, mend}`."""
    return {key: getattr(problem, key) for key in ("line", "column", "message", "mend")}


def warning_line(file_name: str, warning: dict[str, Any]) -> str:
    """A warning as compilers print it."""
    where = f"{file_name}:{warning['line']}:{warning['column']}"
    return f"{where}: warning: {warning['message']} {warning['mend']}".rstrip()
