"""The python block of a step, looked at before it ever runs: is it Python, and which of the three forms is it.

Called by `playbooks.kinds.python` only. The code is parsed, never executed.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final

from playbooks.loader import Scalar
from playbooks.problems import Source
from playbooks.scalars import origins

_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_FORMS: Final = (
    "Give its result in one of three forms: define `def main(...)` and return from it; `return` a value; "
    "or assign `result = ...`."
)


def is_module_name(text: str) -> bool:
    """Whether the text is a dotted module name."""
    return len(text) <= 200 and _MODULE.fullmatch(text) is not None


def code_form(source: Source, scalar: Scalar) -> str | None:
    """ "main", "return" or "result"; None with a problem noted where the code is none of them."""
    code = scalar.value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except SyntaxError as error:
        at = _place(source, scalar, error.lineno or 1, error.offset or 1)
        source.refuse(at, f"This is not valid Python: {error.msg}.", "Correct the code.")
        return None
    except (ValueError, RecursionError, MemoryError) as error:
        source.refuse(scalar.start, f"This cannot be read as Python: {error}.", "Write it simpler.")
        return None
    waits = next((n for n in tree.body if isinstance(n, ast.AsyncFunctionDef) and n.name == "main"), None)
    if waits is not None:
        at = _place(source, scalar, waits.lineno, waits.col_offset + 1)
        source.refuse(at, "`main` cannot be `async`: a block waits for nothing.", "Write `def main(...)`.")
        return None
    form = _form(tree)
    if form is None:
        source.refuse(scalar.start, "The python code gives no result.", _FORMS)
        return None
    return form if _compiles(source, scalar, tree, form) else None


def first_line(source: Source, scalar: Scalar) -> int:
    """The line of the file on which the code's first line stands."""
    return (
        source.position(origins(source, scalar)[0])[0] if scalar.value else source.position(scalar.start)[0]
    )


def _form(tree: ast.Module) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            return "main"
    own = list(_own_nodes(tree))
    if any(isinstance(node, ast.Return) for node in own):
        return "return"
    stored = (node for node in own if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return "result" if any(node.id == "result" for node in stored) else None


def _own_nodes(tree: ast.Module) -> list[ast.AST]:
    """All nodes outside functions and classes."""
    found: list[ast.AST] = []
    left: list[ast.AST] = list(tree.body)
    while left:
        node = left.pop()
        found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            left.extend(ast.iter_child_nodes(node))
    return found


def _compiles(source: Source, scalar: Scalar, tree: ast.Module, form: str) -> bool:
    """Whether the compiler takes it too: `break` outside a loop and its kin pass the parser."""
    body: ast.Module = tree
    if form == "return":
        stub = ast.parse("def block(): pass")
        function = stub.body[0]
        assert isinstance(function, ast.FunctionDef)
        future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
        function.body = [node for node in tree.body if node not in future] or [ast.Pass()]
        body = ast.fix_missing_locations(ast.Module([*future, function], type_ignores=[]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(body, "<block>", "exec", dont_inherit=True)
    except SyntaxError as error:
        at = _place(source, scalar, error.lineno or 1, error.offset or 1)
        source.refuse(at, f"This is not valid Python: {error.msg}.", "Correct the code.")
        return False
    except (ValueError, RecursionError, MemoryError) as error:
        source.refuse(scalar.start, f"This cannot be compiled as Python: {error}.", "Write it simpler.")
        return False
    return True


def _place(source: Source, scalar: Scalar, line: int, column: int) -> int:
    """The index in the file of a line and column (both from 1) of the code."""
    lines = scalar.value.split("\n")
    row = min(max(line, 1), len(lines)) - 1
    offset = sum(len(text) + 1 for text in lines[:row]) + min(max(column, 1) - 1, len(lines[row]))
    where = origins(source, scalar)
    return where[min(offset, len(where) - 1)]
