"""`output` blocks: every spelling NoETL publishes, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from edge.core.errors import ToolFailed
from edge.core.limits import INLINE_BYTES_MAX
from edge.testing.plain import playbook
from playbooks.compile import check_playbook
from playbooks.outputs import Accumulate, Output, accumulated, output_of, reach

TOOL: dict[str, Any] = {"kind": "transform", "value": 1}


def source(tool: Any) -> bytes:
    body = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "t", "path": "t"},
        "workflow": [{"step": "a", "tool": tool}],
    }
    return yaml.safe_dump(body, sort_keys=False).encode()


def output(tool: Any) -> Output:
    return playbook([{"step": "a", "tool": tool}]).steps[0].output


@pytest.mark.parametrize(
    "tool",
    [
        {**TOOL, "output": {"select": [{"path": "$.a.b", "as": "b"}]}},
        {**TOOL, "result": {"select": [{"path": "a.b", "as": "b"}]}},
        {**TOOL, "spec": {"result": {"output_select": ["a.b"]}}},
        {
            **TOOL,
            "result": {"select": [{"path": "$.x", "as": "x"}]},
            "spec": {"output": {"select": ["a['b']"]}},
        },
    ],
)
def test_every_published_place_is_read(tool: Any) -> None:
    """Under the tool as `output` or `result`, under its spec; the inner block wins."""
    assert output(tool) == Output((("b", ("a", "b")),))


def test_an_arrow_tool_keeps_its_own_output() -> None:
    """The arrow kind's `output: rows` is its own key; a map is what becomes of the result."""
    arrow = {"kind": "arrow", "table": "{{ workload.t }}", "ops": []}
    step = playbook(
        [{"step": "a", "tool": {**arrow, "output": "rows", "result": {"inline_max_bytes": 9}}}]
    ).steps[0]
    assert step.tasks[0].config["output"] == "rows"
    assert step.output.inline_bytes == 9
    step = playbook([{"step": "a", "tool": {**arrow, "output": {"inline_max_bytes": 9}}}]).steps[0]
    assert step.tasks[0].config["output"] == "table"
    assert step.output.inline_bytes == 9


def test_a_cap_above_the_boxs_means_the_boxs() -> None:
    """A published playbook may allow more inline than an event holds; it runs all the same."""
    assert output({**TOOL, "output": {"inline_max_bytes": 10**9}}).inline_bytes == INLINE_BYTES_MAX


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"store": {"kind": "s3"}}, "'s3' is another machine"),
        ({"store": {"kind": "gcs"}}, "'gcs' is another machine"),
        ({"store": {"kind": "db"}}, "'db' is another machine"),
        ({"store": {"kind": "postgres"}}, "'postgres' is another machine"),
        ({"store": {"kind": "moon"}}, "no store 'moon'"),
        ({"store": {"kind": "auto", "bucket": "b"}}, "nothing to reach"),
        ({"scope": "permanent"}, "as long as its execution"),
        ({"select": [{"path": "$..a", "as": "a"}]}, "cannot be read"),
        ({"select": [{"path": "$.a"}]}, "no `as`"),
        ({"select": [{"path": "$.a", "as": "a b"}]}, "cannot be a name"),
        ({"accumulate": {"strategy": "append"}}, "does not say whether it is on"),
        ({"accumulate": {"enabled": True, "strategy": "sum"}}, "cannot be 'sum'"),
        ({"accumulate": {"enabled": True, "max_items": 0}}, "`max_items` must be"),
        ({"as": "x"}, "use the task's `name`"),
        ({"inline_max_bytes": "much"}, "whole number of bytes"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(block: dict[str, Any], words: str) -> None:
    """Each problem names what is wrong at its line."""
    problems = check_playbook(source({**TOOL, "output": block}), "t.yaml")
    assert len(problems) == 1, problems
    assert words in problems[0].message + (problems[0].mend or "")
    assert problems[0].line > 6


def test_accumulate_that_is_off_is_nothing() -> None:
    """`enabled: false` compiles to no accumulation."""
    assert output({**TOOL, "output": {"accumulate": {"enabled": False}}}).accumulate is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("a", "b"), 1),
        (("data", "a", "b"), 1),
        (("l", 0), 7),
        (("l", -1), 8),
        (("l", 5), None),
        (("a", "c"), None),
        (("x", "y"), None),
        ((), {"a": {"b": 1}, "l": [7, 8]}),
    ],
)
def test_a_path_leads_to_a_part_or_to_null(path: Any, found: Any) -> None:
    """Keys and indices; NoETL's envelope at the front may be there or not; nowhere is null, never an error."""
    assert reach({"a": {"b": 1}, "l": [7, 8]}, path) == found


def test_results_that_do_not_go_together_are_refused() -> None:
    """Joining what is no list, or merging what is no map, says what to do."""
    with pytest.raises(ToolFailed, match="concat wants a list"):
        accumulated(Accumulate("concat", (), "p", True, False, None), None, {"a": 1})
    with pytest.raises(ToolFailed, match="merge wants a map"):
        accumulated(Accumulate("merge", (), "p", True, False, None), None, [1])


@pytest.mark.parametrize(
    "raw",
    [
        1,
        [],
        [[], -1, 0, False, None],
        [[], 0, 0, 1, None],
        [["ab"], 0, 0, False, None],
        [[], 0, 0, False, ["x", [], "n", True, True, None]],
    ],
)
def test_what_is_no_output_block_is_refused(raw: Any) -> None:
    """A blueprint is checked in full when it is read."""
    with pytest.raises(ValueError, match="not a blueprint"):
        output_of(raw)
