"""The registry: names without modules, modules at first use, kinds from elsewhere."""

import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pytest

from edge.core.errors import EvaluationFailed, ToolFailed
from edge.tools.registry import ENTRY_POINT_GROUP, KINDS, runs_author_code, tool


class Lent:
    execution_id = step = idempotency_key = "e"

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        if tree == "bad":
            raise EvaluationFailed("no")
        return {"rendered": tree}

    def table(self, ref: Any) -> Any:
        raise AssertionError


def test_every_kind_is_what_its_entry_says() -> None:
    """Each built-in kind has its tool, under its name, with the same word on author code."""
    for kind, entry in KINDS.items():
        found = tool(kind)
        assert found.kind == kind
        assert found.author_code is entry.author_code is runs_author_code(kind)
    assert runs_author_code("somebody-elses")


def test_names_cost_no_imports() -> None:
    """The runtime asks the registry without importing pyarrow, Jinja2 or YAML."""
    code = (
        "import sys, edge.tools.registry as r; r.KINDS, r.runs_author_code('python'); "
        "print([m for m in ('pyarrow', 'jinja2', 'yaml', 'importlib.metadata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_kinds_are_named() -> None:
    """A kind nobody brings is refused with those there are."""
    with pytest.raises(ToolFailed) as caught:
        tool("nobodys")
    assert caught.value.problem_code == "tool_unknown"
    assert "transform" in caught.value.mend


def test_kinds_come_in_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package brings a kind; it cannot take the name of one of ours."""
    point = metadata.EntryPoint("noop2", "edge.tools.noop:TOOL", ENTRY_POINT_GROUP)
    asked: list[str] = []

    def entry_points(*, group: str, name: str) -> list[metadata.EntryPoint]:
        asked.append(name)
        return [point] if (group, name) == (ENTRY_POINT_GROUP, "noop2") else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert tool("noop2") is tool("noop")
    assert tool("noop2") is tool("noop")
    assert asked == ["noop2"]


def test_noop_and_transform() -> None:
    """Nothing answers null; a transform answers its rendered value, and the evaluator's own errors."""
    assert tool("noop").run({}, {"a": 1}, Lent()) is None
    transform = tool("transform")
    assert transform.run({"value": "x"}, {}, Lent()) == {"rendered": "x"}
    with pytest.raises(EvaluationFailed):
        transform.run({"value": "bad"}, {}, Lent())
    with pytest.raises(ToolFailed):
        transform.run({}, {}, Lent())


def test_what_the_zygote_preloads_leaves_libraries_to_the_worker_that_needs_them() -> None:
    """Every kind is imported before forking, DuckDB, urllib3 and TLS are not: their memory is one worker's."""
    code = (
        "import sys, edge.tools.registry as r; r.preload(); "
        "print([m for m in ('duckdb', 'urllib3', 'ssl', 'subprocess') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
