"""The kind `python`: a block of code, parsed while compiling.

Called through `playbooks.kinds`. The code is never executed here.
"""

from __future__ import annotations

import re
from typing import Any, Final

from playbooks.blocks import code_form, first_line, is_module_name
from playbooks.expressions import Resolve
from playbooks.fields import entries, text
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.parts import Block, Key, MapOf, Text
from playbooks.problems import Source

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    code = found.get("code")
    libs: dict[str, str] = {}
    for alias, module in entries(source, found.get("libs"), "`libs`"):
        name = text(source, module, f"The module of lib {alias.value!r}")
        if not _IDENTIFIER.fullmatch(alias.value):
            source.refuse(alias.start, f"{alias.value!r} cannot be a name in Python.")
        elif name is not None and not is_module_name(name):
            source.refuse(module.start, f"{name!r} is no module name.", "Write it as in `import a.b`.")
        elif name is not None:
            libs[alias.value] = name
    if code is None:
        source.refuse(tool.start, "A python tool needs `code`.", "Write the code under `code: |`.")
        return {}
    if not isinstance(code, Scalar) or not isinstance(code.value, str) or not code.value.strip():
        source.refuse(code.start, "`code` must be a text of Python.", "Write it under `code: |`.")
        return {}
    form = code_form(source, code)
    return {"code": code.value, "form": form or "result", "libs": libs, "line": first_line(source, code)}


PYTHON: Final = Kind(
    Block(
        "python",
        "A block of Python, run in a sandboxed worker.",
        (
            Key("code", Text(), "The code: `def main(...)`, a `return`, or `result = …`.", required=True),
            Key("libs", MapOf(Text()), "Modules by the name the code knows them under."),
        ),
    ),
    _read,
)
