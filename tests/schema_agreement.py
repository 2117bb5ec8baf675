"""The compiler and the JSON Schema agree: looked at whenever any test compiles a playbook.

What compiles, the schema accepts; where a key is refused, the schema refuses too. Switched on for the whole session
by tests/conftest.py; must never change what the compiler answers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonschema import Draft202012Validator

from playbooks import compile as compiler
from playbooks.blueprint import Blueprint
from playbooks.loader import Listing, Mapping_, Marked, load
from playbooks.problems import Problem, Source
from playbooks.schema import json_schema


@contextmanager
def looked_at() -> Iterator[None]:
    """While this is open, every playbook that is compiled is shown to the schema too."""
    real = compiler._compile
    seen: set[int] = set()

    def compile_and_look(data: bytes, file_name: str) -> tuple[Blueprint | None, list[Problem]]:
        blueprint, problems = real(data, file_name)
        if hash(data) not in seen:
            seen.add(hash(data))
            assert_agree(data, problems)
        return blueprint, problems

    compiler._compile = compile_and_look
    try:
        yield
    finally:
        compiler._compile = real


def assert_agree(data: bytes, problems: list[Problem]) -> None:
    """Raises AssertionError where the schema thinks otherwise about these bytes."""
    refused_keys = [str(problem) for problem in problems if " cannot have " in problem.message]
    if problems and not refused_keys:
        return
    found = document(data)
    if found is None:
        return
    complaints = [f"{error.json_path}: {error.message}" for error in validator().iter_errors(found)]
    if refused_keys:
        assert complaints, f"the schema lets through what is refused: {refused_keys}"
    else:
        assert not complaints, f"the schema refuses what compiles: {complaints}"


def document(data: bytes) -> Any:
    """A playbook's source as plain values; None where it cannot be read."""
    try:
        source = Source(data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"), "p.yaml")
    except UnicodeDecodeError:
        return None
    root = load(source)
    return None if root is None or source.problems else _plain(root)


def _plain(node: Marked) -> Any:
    if isinstance(node, Listing):
        return [_plain(item) for item in node.items]
    if isinstance(node, Mapping_):
        return {key.value: _plain(value) for key, value in node.pairs}
    return node.value


@functools.cache
def validator() -> Any:
    """The validator of the schema as it is now."""
    return Draft202012Validator(json_schema())
