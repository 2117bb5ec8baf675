"""Author code to code objects: the three forms NoETL's authors write, with their own line numbers kept.

Used by the `python` kind only. `result` assigns a name, `main` defines a function, `return` is a bare body
that returns. Code objects are kept per process, keyed by the text: they hold no state of any run.
"""

from __future__ import annotations

import ast
from types import CodeType
from typing import Any, Final

from edge.core.errors import ToolFailed

#: The file name author code is compiled under; a traceback's frames are told apart by it.
BLOCK_FILE: Final = "<block>"
#: The function a `return` body becomes.
BODY_NAME: Final = "__block__"
#: Mappings of all inputs, as NoETL's authors know them.
MAPPING_NAMES: Final = ("args", "input_data")

_KEPT_MAX: Final = 64
_kept: dict[tuple[str, str, tuple[str, ...]], CodeType] = {}


def code_of(text: str, form: str, input_names: tuple[str, ...]) -> CodeType:
    """The module code of a block; for the form `return` it defines BODY_NAME taking some of the inputs.

    Raises ToolFailed `python_invalid` naming the line where the text is not Python.
    """
    key = (text, form, input_names if form == "return" else ())
    code = _kept.get(key)
    if code is None:
        if len(_kept) >= _KEPT_MAX:
            _kept.clear()
        code = _kept[key] = _compile(text, form, input_names)
    return code


def _compile(text: str, form: str, input_names: tuple[str, ...]) -> CodeType:
    try:
        tree = ast.parse(text, filename=BLOCK_FILE)
        if form == "return":
            tree = _body_as_function(tree, input_names)
        return compile(tree, BLOCK_FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f" (line {error.lineno} of the block)" if error.lineno else ""
        raise ToolFailed(
            f"The python block is not valid Python: {error.msg}{where}.",
            code="python_invalid",
            mend="Correct the block's code.",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ToolFailed(
            f"The python block cannot be compiled: {error}.",
            code="python_invalid",
            mend="Take out null bytes and very deep nesting.",
        ) from error


def _body_as_function(tree: ast.Module, input_names: tuple[str, ...]) -> ast.Module:
    # Inputs are parameters, so that a body may assign to one it also reads; a name the body declares
    # global cannot be one, and is found in the globals.
    taken = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    names = [name for name in dict.fromkeys((*input_names, *MAPPING_NAMES)) if name not in taken]
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    body: list[ast.stmt] = [node for node in tree.body if node not in future] or [ast.Pass()]
    # Built from a parsed stub rather than by hand: newer Pythons add fields to FunctionDef.
    stub = ast.parse(f"def {BODY_NAME}(): pass")
    function = stub.body[0]
    assert isinstance(function, ast.FunctionDef)
    function.args.kwonlyargs = [ast.arg(name) for name in names]
    function.args.kw_defaults = [None] * len(names)
    function.body = body
    return ast.fix_missing_locations(ast.Module([*future, function], type_ignores=[]))


def line_in_block(error: BaseException) -> int | None:
    """The line of the block an exception came through last, if any."""
    line = None
    trace: Any = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == BLOCK_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
