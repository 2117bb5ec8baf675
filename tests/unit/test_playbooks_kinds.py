"""Keys of the tool kinds: what the compiler refuses of them, and where it says the mistake stands."""

from __future__ import annotations

import pytest

from playbooks.compile import check_playbook

STEP = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\nworkflow:\n  - step: a\n    tool: "


def refused(tool: str) -> list[tuple[int, str]]:
    """Columns in the tool's line and messages, of a tool written behind `tool: `."""
    problems = check_playbook((STEP + tool + "\n").encode(), "p.yaml")
    return [(problem.column - len("    tool: ") - 1, str(problem)) for problem in problems]


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("¶{kind: sql}", "needs `query`"),
        ("{kind: sql, query: a, cmd: ¶b}", "Both query and cmd"),
        ("{kind: sql, query: ¶7}", "SQL must be a text"),
        ("{kind: sql, queries: [a, ¶'']}", "SQL must be a text"),
        ("{kind: sql, query: ¶'{{ args.q }}'}", "cannot come from a template"),
        ("{kind: sql, query: 'SELECT \"{{¶ args.q }}\"'}", "part of a name"),
        ("{kind: sql, query: 'SELECT $$ {{¶ args.q }} $$'}", "part of a name"),
        ("{kind: sql, query_b64: ¶'%%'}", "no SQL in base64"),
        ("{kind: duckdb, query: a, ¶script: {uri: x}}", "not fetched here"),
        ("{kind: duckdb, query: a, ¶db_path: /x}", "in memory"),
        ("{kind: duckdb, query: a, output: ¶json}", "cannot be 'json'"),
        ("{kind: sql, query: a, spec: {effect: ¶write}}", "A sql step cannot be write"),
    ],
)
def test_refusals(tool: str, said: str) -> None:
    """Each mistake is refused at its place, with what is wrong."""
    before, _, after = tool.partition("¶")
    (problem, *_) = refused(before + after)
    assert said in problem[1]
    assert problem[0] == len(before)
