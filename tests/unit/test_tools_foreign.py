"""Kinds of other packages: an example by its entry points, from playbook to result; the suite they can run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import ToolFailed
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.tool_conformance import Case, ToolConformance
from edge.tools import registry
from playbooks.compile import check_playbook
from playbooks.kinds import foreign
from playbooks.schema import json_schema
from tests import schema_agreement

EXAMPLE = Path(__file__).parents[1] / "foreign_tool"
TABLE = pa.table({"a": [1, 2]})


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package, as if pip had installed it."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setattr(registry, "_loaded", {})
    foreign.foreign_kind.cache_clear()
    schema_agreement.validator.cache_clear()
    yield
    foreign.foreign_kind.cache_clear()
    schema_agreement.validator.cache_clear()


class TestGauge(ToolConformance):
    kind = "gauge"
    cases = (
        Case({"unit": "bar", "value": "{{ x }}"}, {"x": 2}, result="2 bar"),
        Case({"unit": "rpm"}, spec={"effect": "read"}, result="0 rpm"),
    )
    failures = (Case({"unit": "{{ x }}"}, {"x": "yards"}, result="gauge_unit"),)


class TestNoop(ToolConformance):
    kind = "noop"
    cases = (Case({}, result=None),)


class TestTransform(ToolConformance):
    kind = "transform"
    cases = (Case({"value": {"a": ["{{ x }}", 1]}}, {"x": "b"}, result={"a": ["b", 1]}),)
    failures = (Case({"value": "{{ x.y }}"}, {"x": {}}),)


class TestPython(ToolConformance):
    kind = "python"
    cases = (
        Case({"code": "result = x * 2"}, {"x": 3}, result=6),
        Case({"code": "result = t"}, tables={"t": TABLE}, result=TABLE),
    )
    failures = (Case({"code": "result = 1 / 0"}, result="python_raised"),)


class TestArrow(ToolConformance):
    kind = "arrow"
    cases = (
        Case({"table": "{{ t }}", "ops": [{"filter": "{{ a > 1 }}"}], "output": "row"}, tables={"t": TABLE},
             result={"a": 2}),
    )  # fmt: skip
    failures = (Case({"table": "{{ x }}"}, {"x": 1}, result="table_expected"),)


class TestSql(ToolConformance):
    kind = "sql"
    cases = (
        Case({"query": "SELECT sum(a) AS s FROM t", "output": "row"}, tables={"t": TABLE}, result={"s": 3}),
        Case(
            {"query": "SELECT a FROM t ORDER BY a"},
            tables={"t": TABLE},
            spec={"effect": "pure"},
            result=TABLE,
        ),
    )
    failures = (Case({"query": "SELECT nope"}, result="sql_invalid"),)


class TestShell(ToolConformance):
    kind = "shell"
    cases = (
        Case({"cmd": ["/bin/x", "{{ x }}"], "stdin": "in"}, {"x": 1},
             spec={"policy": {"access": {"programs": ["/bin/x"]}}},
             result={"exit_code": 0, "stdout": "/bin/x\n1", "stderr": "in"}),
    )  # fmt: skip
    failures = (
        Case({"cmd": ["/bin/x", "{{ x }}"]}, {"x": []}, spec={"policy": {"access": {"programs": ["/bin/x"]}}},
             result="request_invalid"),
    )  # fmt: skip


class TestHttp(ToolConformance):
    kind = "http"
    failures = (
        Case({"url": "http://h{{ x }}/"}, {"x": "!"}, spec={"policy": {"access": {"hosts": ["h"]}}},
             result="access_denied"),
    )  # fmt: skip

    def test_it_gives_what_can_be_kept(self) -> None:
        """It needs a server: tests/unit/test_tools_http.py."""

    cases = (Case({"url": "http://127.0.0.1:1/"}, spec={"policy": {"access": {"hosts": ["127.0.0.1"]}}}),)
    test_it_leaves_what_it_was_given = test_pure_means_pure = test_it_gives_what_can_be_kept


def problems(tool: dict[str, Any], spec: str = "{}") -> list[str]:
    head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\n"
    import json

    source = f"{head}workflow:\n  - step: a\n    spec: {spec}\n    tool: {json.dumps(tool)}\n"
    return [str(problem) for problem in check_playbook(source.encode(), "p")]


def test_its_keys_are_checked_while_compiling() -> None:
    """Unknown and missing keys are refused with what the package says of them; effects as it declares them."""
    assert not problems({"kind": "gauge", "unit": "bar"})
    assert "Did you mean 'unit'" in problems({"kind": "gauge", "unti": "bar", "unit": "bar"})[0]
    assert "needs `unit`" in problems({"kind": "gauge"})[0]
    assert "cannot be write" in problems({"kind": "gauge", "unit": "bar", "spec": {"effect": "write"}})[0]
    assert "no tool of kind 'gauge-broken'" in problems({"kind": "gauge-broken"})[0]
    assert "no tool of kind 'gaug'" in problems({"kind": "gaug"})[0]


def test_names_of_ours_and_of_the_centre_are_taken() -> None:
    """A package can neither replace a kind of ours nor pretend to a database."""
    assert "cannot have the key 'unit'" in problems({"kind": "noop", "unit": "bar"})[0]
    assert "data centre" in problems({"kind": "postgres", "unit": "bar"})[0]
    assert registry.tool("noop") is import_module("edge.tools.noop").TOOL


def test_editors_learn_of_it() -> None:
    """The JSON Schema of this installation knows its keys."""
    assert set(json_schema()["$defs"]["tool.gauge"]["properties"]) > {"unit", "value"}


async def test_from_playbook_to_result(box: Box) -> None:
    """A step of a foreign kind runs in a process that is bound to its playbook."""
    step = {"step": "s", "input": {"x": 3}, "tool": {"kind": "gauge", "unit": "bar", "value": "{{ x }}"}}
    await box.register(playbook([step]))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == "3 bar"
    assert box.pool.submitted[0].author_code


async def test_a_box_without_the_package_says_so(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blueprint is good anywhere; where the tool is not installed, the step fails by name."""
    blueprint = playbook([{"step": "s", "tool": {"kind": "gauge", "unit": "bar"}}])
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path != str(EXAMPLE)])
    with pytest.raises(ToolFailed):
        registry.tool("gauge")
    await box.register(blueprint)
    box.submit("t")
    await box.settle()
    error = box.document()["error"]
    assert error["code"] == "tool_unknown"
    assert "install the package" in error["mend"]
