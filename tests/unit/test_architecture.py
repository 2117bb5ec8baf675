"""House rules that a tool does not check: sizes, docstrings, names, broad catches, sleeps (design §10).

Offenders of today stand in named lists; a list may only shrink. Who imports whom is `.importlinter`'s.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge import VERSION

ROOT = Path(__file__).parents[2]
PRODUCT = ("edge", "firmware_bridge", "gateway", "playbooks")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
NAMES_THAT_SAY_NOTHING = frozenset(
    {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
)
#: Tests that start real processes may poll one that cannot say when it is ready; everything else is told.
TESTS_WITHOUT_SLEEP = ("golden", "properties", "sim", "unit")

#: Functions over the line when the rule came. Shorten one, then take it out; nothing is ever added.
LONG_FUNCTIONS = {
    "edge/cli/request.py ask": 67,
}
#: Modules whose docstring does not yet say who calls them and what they must never do.
SHORT_DOCSTRINGS = {
    "edge/cli/cache.py",
    "edge/cli/inputs.py",
    "edge/cli/log.py",
    "edge/cli/request.py",
    "edge/cli/story.py",
    "gateway/__main__.py",
}
#: Where everything may be caught and kept (house rule 4): the tool run, the top of a daemon or of one of its threads,
#: the top of the command line, and one library's panic. Cleaning up and raising again is free.
BROAD_CATCHES = {
    "edge/runtime/api/socket.py": "daemon top: a look that changes nothing, told to who asked and logged",
    "edge/runtime/commit/threads.py": "daemon top: the threads of journal and index end the runtime in good order",
    "edge/tools/python.py": "tool run: what author code raises, and what its error says of itself",
    "edge/worker/loop.py": "tool run",
    "gateway/mqtt/framing.py": "pyo3's panic has no importable name; all else is raised again",
}


class Module(NamedTuple):
    """One module: its path from the root and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """What Python makes of it."""
        return _parsed(self.text)


_parsed = functools.cache(ast.parse)


@functools.cache
def _modules(*folders: str) -> list[Module]:
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found.append(Module(str(path.relative_to(ROOT)), path.read_text("utf-8")))
    return found


def _product() -> list[Module]:
    return _modules(*PRODUCT)


def _tests() -> list[Module]:
    return _modules("tests")


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement and handler: a tenth of what `ast.walk` goes through."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            left.extend(getattr(node, name, ()))


def test_there_is_something_to_check() -> None:
    """A check that looks at nothing would always pass."""
    assert len(_product()) > 80
    assert {module.path.partition("/")[0] for module in _product()} == set(PRODUCT)


def test_files_stay_readable_in_one_sitting() -> None:
    """No file has more than 400 lines, of the product or of its tests."""
    long = {
        module.path: lines
        for module in [*_product(), *_tests()]
        if (lines := len(module.text.splitlines())) > FILE_LINES_MAX
    }
    assert not long, f"split these by what they own: {long}"


def test_functions_stay_short() -> None:
    """No function has more than 60 lines, but those that had when the rule came, and they do not grow."""
    long = {
        f"{module.path} {node.name}": node.end_lineno - node.lineno + 1
        for module in _product()
        for node in _statements(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    }
    grown = {name: lines for name, lines in long.items() if lines > LONG_FUNCTIONS.get(name, 0)}
    assert not grown, f"more than {FUNCTION_LINES_MAX} lines: {grown}"
    assert set(LONG_FUNCTIONS) <= set(long), (
        f"short by now, take them out of LONG_FUNCTIONS: {set(LONG_FUNCTIONS) - set(long)}"
    )


def _has_code(tree: ast.Module) -> bool:
    return any(
        not isinstance(node, ast.Expr)
        and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        for node in tree.body
    )


def test_modules_say_what_they_own() -> None:
    """Every module has a docstring; one with code that runs on a box has more than one line of it."""
    docs = {module.path: ast.get_docstring(module.tree) or "" for module in _product()}
    assert not [path for path, doc in docs.items() if not doc], "modules without a docstring"
    short = {
        module.path
        for module in _product()
        if _has_code(module.tree)
        and "\n" not in docs[module.path]
        and not module.path.startswith("edge/testing/")
    }
    assert short <= SHORT_DOCSTRINGS, (
        f"say what it owns, who calls it, what it must never do: {sorted(short - SHORT_DOCSTRINGS)}"
    )
    mended = {path for path in SHORT_DOCSTRINGS - short if (ROOT / path).exists()}
    assert not mended, f"mended by now, take them out of SHORT_DOCSTRINGS: {sorted(mended)}"


def _packages() -> list[str]:
    return sorted(
        str(path.parent.relative_to(ROOT))
        for folder in PRODUCT
        for path in (ROOT / folder).rglob("__init__.py")
    )


@pytest.mark.parametrize("package", _packages())
def test_every_package_explains_itself(package: str) -> None:
    """A package has a DESIGN.md: purpose, invariants, dated decisions."""
    design = ROOT / package / "DESIGN.md"
    assert design.exists(), f"write {package}/DESIGN.md: purpose, invariants, dated decisions"
    assert design.stat().st_size > 100, f"{package}/DESIGN.md says next to nothing"


def test_names_say_something() -> None:
    """No module or folder is called after nothing in particular."""
    vague = [
        module.path
        for module in _product()
        if NAMES_THAT_SAY_NOTHING & set(re.split(r"[/._]", module.path[:-3]))
    ]
    assert not vague, f"name them for what they own: {vague}"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    named = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(named & {"Exception", "BaseException"})


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether the handler ends by raising what it caught: a cleaning up, not a catch."""
    last = handler.body[-1]
    if not isinstance(last, ast.Raise):
        return False
    return last.exc is None or (isinstance(last.exc, ast.Name) and last.exc.id == handler.name)


def test_only_named_boundaries_catch_everything() -> None:
    """`except Exception` and bare `except` keep what they caught only at the named boundaries."""
    broad = {
        module.path
        for module in _product()
        for node in _statements(module.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node)
    }
    assert broad <= set(BROAD_CATCHES), f"name the errors it expects: {sorted(broad - set(BROAD_CATCHES))}"


def test_what_is_left_to_do_says_why() -> None:
    """A mark for later names its reason behind a colon, so that somebody else can finish it."""
    mark = re.compile(r"#[: ]*\b(TODO|FIXME|XXX|HACK)\b(?!: \S.{15})")
    bare = [
        f"{module.path}:{number}"
        for module in [*_product(), *_tests()]
        for number, line in enumerate(module.text.splitlines(), 1)
        if mark.search(line)
    ]
    assert not bare, f"write `TODO: what, and why not now`: {bare}"


def _sleeps(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "sleep"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("asyncio", "time")
            and not (isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
        ):
            yield node


def test_tests_do_not_sleep() -> None:
    """Tests without processes of their own never wait for time to pass; a clock is an argument."""
    asleep = [
        f"{module.path}:{call.lineno}"
        for module in _tests()
        if module.path.split("/")[1] in TESTS_WITHOUT_SLEEP and "sleep" in module.text
        for call in _sleeps(module.tree)
    ]
    assert not asleep, f"pass the time in, or wait for the event itself: {asleep}"


def test_the_version_in_the_log_is_the_packages() -> None:
    """What a boot writes into the log is what the package is called by."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
