"""The `python` kind: one block of author code, run once with fresh globals.

Called by workers that serve one playbook and have locked themselves in (edge.worker.sandbox): this file makes
author code's failures readable, it does not hold it. It is the boundary "tool run", one of the three places
that catch everything: whatever a block raises becomes a ToolFailed that names the author's own line. Must
never let anything of a run survive it except the compiled code.
"""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from traceback import clear_frames
from typing import Any, Final

from edge.core.errors import ToolFailed
from edge.core.values import TableRef
from edge.tools.contract import ToolContext
from edge.tools.printed import Printed
from edge.tools.purity import Impure, own_builtins, watching
from edge.tools.python_code import BODY_NAME, MAPPING_NAMES, code_of, line_in_block
from edge.tools.python_result import as_result

#: An exception's own text in a failure's message; beyond it lies data, not explanation.
_TEXT_MAX: Final = 500
#: How far causes are followed when asking whether the sandbox stood behind a failure.
_CAUSES_MAX: Final = 8

_MEND_DENIED: Final = (
    "A block has no network, no processes and no files outside its cache folder but what its step is granted: "
    "name the hosts, files or devices it needs under spec.policy.access."
)


class PythonTool:
    """Runs a block of Python in one of the forms `main`, `return` and `result`."""

    kind: Final = "python"
    author_code: Final = True

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Run the block and return its plain value or table.

        `config`: `code` (text), `form`, `libs` (alias to module name), `line` and `file` (where the code
        begins in the playbook). Raises ToolFailed: `python_raised`, `python_invalid`, `memory_exceeded`,
        `sandbox_denied`, `impure`, `result_invalid`, `input_missing`, `library_missing`.
        """
        values = {name: _hydrated(value, context) for name, value in inputs.items()}
        printed = Printed()
        failure: ToolFailed
        try:
            with printed.captured(), watching():
                return as_result(_run_block(config, values))
        except ToolFailed:
            raise
        except BaseException as error:  # noqa: BLE001 (the named boundary "tool run")
            failure = _failure(error, config)
        # Raised outside the handler: the author's exception, its frames and all they hold are gone by now.
        tail = printed.tail()
        if tail:
            failure = ToolFailed(
                f"{failure.message} It had printed: {tail}", code=failure.problem_code, mend=failure.mend
            )
        raise failure


TOOL: Final = PythonTool()


def _hydrated(value: Any, context: ToolContext) -> Any:
    """The value with every table reference replaced by its table."""
    if isinstance(value, TableRef):
        return context.table(value)
    if type(value) is list:
        return [_hydrated(item, context) for item in value]
    if type(value) is dict:
        return {key: _hydrated(item, context) for key, item in value.items()}
    return value


def _run_block(config: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    form = config.get("form", "result")
    names = tuple(sorted(name for name in values if name.isidentifier()))
    code = code_of(config["code"], form, names)
    # A dictionary of its own: a block that rebinds a builtin by name changes only its own view of it.
    scope: dict[str, Any] = {"__name__": BODY_NAME, "__builtins__": own_builtins()}
    for alias, module in (config.get("libs") or {}).items():
        scope[alias] = _library(alias, module)
    given: dict[str, Any] = {name: dict(values) for name in MAPPING_NAMES}
    given.update(values)
    scope.update(given)
    exec(code, scope)  # noqa: S102 (running author code is what this kind is for)
    if form == "main":
        return _call_main(scope.get("main"), values, given)
    if form == "return":
        body = scope[BODY_NAME]
        return body(**{name: given[name] for name in _keyword_names(body)})
    return scope.get("result")


def _keyword_names(body: Callable[..., Any]) -> tuple[str, ...]:
    code = body.__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def _library(alias: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ToolFailed(
            f"The library {module!r} (as {alias!r}) cannot be imported here: {error}.",
            code="library_missing",
            mend="Install it on the box, or do without it. numpy and what needs it are kept out of workers.",
        ) from error


def _call_main(main: Any, values: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call `main` with its parameters filled by name from the inputs."""
    if not callable(main):
        raise ToolFailed("The block defines no function `main`.", code="python_invalid", mend="Define one.")
    if inspect.iscoroutinefunction(main):
        raise ToolFailed(
            "`main` is an `async def`; a block waits for nothing.",
            code="python_invalid",
            mend="Write `def main(...)`.",
        )
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(main).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update((key, value) for key, value in values.items() if key not in named)
        elif name in given:
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(given[name])
            else:
                named[name] = given[name]
        elif parameter.default is parameter.empty:
            raise ToolFailed(
                f"`main` wants {name!r}, which is not among the step's inputs "
                f"({', '.join(sorted(values)) or 'none'}).",
                code="input_missing",
                mend=f"Give {name} under the step's `input`, or a default in `main`.",
            )
    return main(*positional, **named)


def _failure(error: BaseException, config: Mapping[str, Any]) -> ToolFailed:
    """What to tell the author about an exception of the block."""
    where = _where(error, config)
    if isinstance(error, MemoryError) or _is_unsaid_memory_error(error):
        # Its frames still hold what filled the memory, and even this message needs some.
        clear_frames(error.__traceback__)
        return ToolFailed(
            f"The block needed more memory than its step may use{where}.",
            code="memory_exceeded",
            mend="Let it hold less at once, or raise spec.memory_mb.",
        )
    if isinstance(error, SystemExit):
        return ToolFailed(
            f"The block called exit{where}.",
            code="python_raised",
            mend="Return a value, or raise an exception.",
        )
    impure = _behind(error, _is_impure)
    if isinstance(impure, Impure):
        said = str(impure).removesuffix(".")
        return ToolFailed(f"{said}{_place(impure.line, config)}.", code="impure", mend=impure.mend)
    message = f"{_text(error)}{where}."
    denied = _behind(error, _is_denial)
    if denied is None:
        return ToolFailed(message, code="python_raised")
    if denied is not error:
        message = f"{message} Behind it: {_text(denied)}."
    return ToolFailed(message, code="sandbox_denied", mend=_MEND_DENIED)


def _is_unsaid_memory_error(error: BaseException) -> bool:
    """CPython 3.11 forgets to say MemoryError where a call's frame finds no memory (seen in deep recursion)."""
    return isinstance(error, SystemError) and "without exception set" in str(error)


def _behind(error: BaseException, wanted: Callable[[BaseException], bool]) -> BaseException | None:
    """The exception of that kind at or behind another, if there is one."""
    seen: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if seen is None or wanted(seen):
            return seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _is_denial(error: BaseException) -> bool:
    """Whether the sandbox refused this. Name look-up reports a denied socket in its own words."""
    if isinstance(error, PermissionError) and error.errno in (errno.EPERM, errno.EACCES):
        return True
    return isinstance(error, OSError) and type(error).__name__ == "gaierror"


def _is_impure(error: BaseException) -> bool:
    return isinstance(error, Impure)


def _text(error: BaseException) -> str:
    """`TypeName: text`, as Python prints an exception, cut to a readable length."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 (the named boundary "tool run": `__str__` is author code too)
        text = "(its text cannot be read)"
    text = f"{name}: {text}" if text else name
    text = text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def _where(error: BaseException, config: Mapping[str, Any]) -> str:
    return _place(line_in_block(error), config)


def _place(line: int | None, config: Mapping[str, Any]) -> str:
    if line is None:
        return ""
    first, file = config.get("line"), config.get("file")
    if not isinstance(first, int):
        return f" (line {line} of the block)"
    return f" (line {line} of the block, line {first + line - 1} of {file or 'the playbook'})"
