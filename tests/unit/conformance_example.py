"""What one example of the conformance set is: a playbook, its input, and what is expected of it."""

from __future__ import annotations

from typing import Any, NamedTuple

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: c, path: conformance/c}\n"


class Example(NamedTuple):
    """A playbook, its input, and what is expected: path, answer, ctx, or the code of what ended it."""

    source: str
    given: dict[str, Any]
    path: list[str]
    result: Any = None
    ctx: dict[str, Any] | None = None
    problem: str | None = None
