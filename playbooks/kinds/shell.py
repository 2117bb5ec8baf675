"""The kind `shell`: a program and its arguments, as a list.

Called through `playbooks.kinds`. NoETL's `command`, one text for a shell to read, is refused with the mend: values of
a playbook would become commands.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.access import Access
from edge.core.limits import STEP_TIMEOUT_MS_MAX
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, one_spelling, timeout_ms
from playbooks.kinds.kind import Kind
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.model.parts import EDGE, AnyOf, Block, Choice, Duration, Key, ListOf, MapOf, Template, Tree
from playbooks.problems import Source
from playbooks.templates import compile_tree, has_template

_LENGTH: Final = Duration(STEP_TIMEOUT_MS_MAX)
_LIST: Final = ListOf(Tree())
_SHELL: Final = Block(
    "shell",
    "Runs one program; a step with it needs the program under `spec.policy.access.programs`.",
    (
        Key("cmd", _LIST, "The program and its arguments, one by one."),
        Key("command", _LIST, "As `cmd`."),
        Key("env", AnyOf((MapOf(Tree()), Template())), "Its whole environment; empty where nothing is said."),
        Key("stdin", Tree(), "What it reads: a text or bytes.", EDGE),
        Key("timeout", _LENGTH, "How long it may take; then it and all it started are killed."),
        Key("timeout_seconds", _LENGTH, "As `timeout`."),
        Key("as", Choice(("text", "json")), "Whether its output is read as JSON, into `data`.", EDGE),
    ),
    {
        "shell": "no shell is used; name one as the program where you need it.",
        "cwd": "programs start in /; give whole paths.",
        "commands": "write a task for each.",
        "cmds": "write a task for each.",
        "capture": "output is always captured.",
    },
)
_SLASH: Final = "/"
_MEND: Final = 'Write cmd: ["/usr/bin/program", "argument", "{{ value }}"]; no shell reads it.'


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    cmd = found.get(one_spelling(source, found, ("cmd", "command")) or "")
    if cmd is None:
        source.refuse(tool.start, "A shell tool needs `cmd`.", _MEND)
    elif not isinstance(cmd, Listing) or not cmd.items:
        source.refuse(cmd.start, "A program is a list of arguments, not one text.", _MEND)
    elif not isinstance(cmd.items[0], Scalar) or has_template(cmd.items[0].value):
        source.refuse(cmd.items[0].start, "The program itself cannot be a template.", "Write its path out.")
    limit = one_spelling(source, found, ("timeout", "timeout_seconds"))
    tree: NodeList = ["dict"]
    for key, node in (("cmd", cmd), ("env", found.get("env")), ("stdin", found.get("stdin"))):
        if node is not None:
            tree += [key, compile_tree(source, node, resolve)]
    return {
        "request": tree,
        "timeout_ms": timeout_ms(source, found.get(limit or "")),
        "response": choice(source, found.get("as"), "`as`", ("text", "json")) or "text",
    }


def _check(source: Source, found: dict[str, Marked], tool: Mapping_, access: Access) -> None:
    """The program is granted."""
    node = found.get("cmd") or found.get("command")
    first = node.items[0] if isinstance(node, Listing) and node.items else None
    if not isinstance(first, Scalar) or not isinstance(first.value, str) or has_template(first.value):
        return
    names = [path if _SLASH in first.value else path.rpartition("/")[2] for path in access.programs]
    if first.value not in names:
        path = first.value if first.value.startswith(_SLASH) else f"/usr/bin/{first.value}"
        mend = f'Grant it in the step: spec: {{policy: {{access: {{programs: ["{path}"]}}}}}}.'
        source.refuse(first.start, f"The program {first.value!r:.80} is not granted.", mend)


SHELL: Final = Kind(_SHELL, _read, effects=("write", "read"), check=_check, times=("timeout_ms",))
