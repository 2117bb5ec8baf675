"""The language model: whole, in one sentence each, and the only place that knows a key of the language."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from playbooks.kinds import KINDS
from playbooks.model import BLOCKS
from playbooks.model.cases import CASE_BLOCKS
from playbooks.model.parts import Block, Of

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
#: Where blocks may be made: the model, and kinds of tools for their own.
TABLES = [*(PLAYBOOKS / "model").glob("*.py"), *(PLAYBOOKS / "kinds").glob("*.py")]
#: Whoever takes entries out of a playbook's maps.
READERS = [
    path
    for path in (*PLAYBOOKS.glob("*.py"), *(PLAYBOOKS / "kinds").glob("*.py"))
    if "playbooks.loader import" in path.read_text("utf-8") and path.name not in ("templates.py", "fields.py")
]
ALL = [
    *BLOCKS.values(),
    *CASE_BLOCKS,
    *(each for kind in KINDS.values() for each in (kind.block, *kind.blocks)),
]


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _references(value: Any) -> Iterator[str]:
    """The names of all blocks that a kind of value leads to."""
    if isinstance(value, Of):
        yield value.block
    elif isinstance(value, tuple):
        for each in value:
            yield from _references(each)
    elif is_dataclass(value):
        for field in dataclass_fields(value):
            yield from _references(getattr(value, field.name))


def _keys_read(tree: ast.AST) -> set[str]:
    """Texts by which a map is asked: `found["x"]`, `found.get("x")`, `"x" in found`."""
    keys = set()
    for node in ast.walk(tree):
        asked: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name | ast.Attribute):
            asked = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            asked = node.args[0]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            asked = node.left
        if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
            keys.add(asked.value)
    return keys


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_every_block_and_key_is_explained(block: Block) -> None:
    """A block and each of its keys have a sentence; every refusal says its reason."""
    for text in (block.doc, *(key.doc for key in block.keys), *block.refused.values()):
        assert text.strip() == text
        assert text.endswith(".")
    assert all(key.doc[0].isupper() for key in block.keys)


def test_every_block_can_be_reached_and_is_there() -> None:
    """Every block that a key leads to exists, and every block but the roots and the tools' is led to."""
    names = [block.name for block in ALL]
    assert len(names) == len(set(names))
    referred = {name for block in ALL for key in block.keys for name in _references(key.value)}
    assert referred <= set(names)
    assert set(names) - referred == {"document", "subscription", "tool", "workbook", "cases", *KINDS}


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.rglob("*.py")), ids=lambda path: path.name)
def test_no_reader_has_a_key_list_of_its_own(path: Path) -> None:
    """Blocks are made in the tables only, and a map's entries are read by a block and nothing else."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    if path not in TABLES:
        made = [name for name in ("Block", "Key") if f"{name}(" in text]
        assert [call.lineno for name in made for call in _calls(tree, name)] == []
    for call in _calls(tree, "fields") if "fields(" in text else ():
        block = call.args[3] if len(call.args) == 4 else None
        assert block is not None
        assert not isinstance(block, ast.Tuple | ast.List | ast.Constant)


def test_readers_ask_for_no_other_keys() -> None:
    """Every key that a reader asks a map for is a key of the model, and every key of the model is asked for."""
    known = {name for block in ALL for name in block.names}
    refused = {name for block in ALL for name in block.refused}
    asked = {path.name: _keys_read(ast.parse(path.read_text("utf-8"))) for path in READERS}
    # The compiler's own maps: parts of a step or task already read, effects of a kind, and a line's end.
    own = {"arcs", "config", "ctx", "deadline_ms", "effect", "iter", "run", "tasks", "write", chr(10)}
    odd = {name: keys - known - refused - own for name, keys in asked.items()}
    assert {name: keys for name, keys in odd.items() if keys} == {}
    mentioned = {
        node.value
        for path in READERS
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {name for block in ALL for name in block.names} - mentioned == set()
