"""Keys of the tool kinds: what the compiler refuses of them, and where it says the mistake stands."""

from __future__ import annotations

import pytest

from playbooks.compile import check_playbook, compile_playbook
from playbooks.kinds import ABSENT_KINDS, CENTRE_KINDS, KINDS

STEP = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\nworkflow:\n  - step: a\n    tool: "


def refused(tool: str) -> list[tuple[int, str]]:
    """Columns in the tool's line and whole messages, of a tool written behind `tool: `."""
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
        ("{kind: sql, query: a, spec: {effect: ¶write}}", "The sql tool cannot be write"),
        ("¶{kind: http}", "needs `url`"),
        ("{kind: http, url: 'http://h/', endpoint: ¶'http://h/'}", "say the same"),
        ("{kind: http, url: ¶[]}", "must be a text"),
        ("{kind: http, url: ¶'ftp://h/x'}", "is no URL"),
        ("{kind: http, url: ¶'http://a:b@h/x'}", "Credentials"),
        ("{kind: http, url: 'http://h/', method: ¶FETCH}", "is no method"),
        ("{kind: http, url: 'http://h/', method: ¶'{{ m }}'}", "cannot be a template"),
        ("{kind: http, url: 'http://h/', json: ¶1}", "A GET has no body"),
        ("{kind: http, url: 'http://h/', method: PUT, json: 1, form: ¶{}}", "say the same"),
        ("{kind: http, url: 'http://h/', verify_ssl: ¶false}", "always verified"),
        ("{kind: http, url: 'http://h/', ¶pagination: {}}", "withdrawn"),
        ("{kind: http, url: 'http://h/', timeout: {¶conect: 1}}", "Did you mean 'connect'"),
        ("{kind: http, url: ¶'http://h/'}", '"h:80"'),
        ("{kind: http, url: ¶'https://{{ h }}/'}", "not granted"),
        ("{kind: http, url: ¶'https://h/', spec: {policy: {access: {hosts: ['h:80']}}}}", '"h:443"'),
        ("{kind: http, url: 'http://h/', spec: {effect: ¶pure}}", "cannot be pure"),
        ("¶{kind: shell}", "needs `cmd`"),
        ("{kind: shell, cmd: ¶'echo {{ x }}'}", "not one text"),
        ("{kind: shell, command: ¶echo hello}", "not one text"),
        ("{kind: shell, cmd: ¶[]}", "not one text"),
        ("{kind: shell, cmd: [¶'{{ p }}', x]}", "cannot be a template"),
        ("{kind: shell, cmd: [¶df, -h]}", '"/usr/bin/df"'),
        ("{kind: shell, cmd: [/bin/df], ¶cwd: /tmp}", "start in /"),
    ],
)
def test_refusals(tool: str, said: str) -> None:
    """Each mistake is refused at its place, with what is wrong."""
    before, _, after = tool.partition("¶")
    problems = refused(before + after)
    assert [column for column, message in problems if said in message] == [len(before)], problems


def test_noetls_own_example_of_http_compiles() -> None:
    """The example of NoETL's documentation, with the host granted: two time limits, and rules by status."""
    blueprint = compile_playbook(
        b"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: p}
workflow:
  - step: fetch_data
    spec: {policy: {access: {hosts: [api.example.com]}}}
    tool:
      - call:
          kind: http
          method: GET
          url: "https://api.example.com/data"
          headers: {Content-Type: application/json}
          spec:
            timeout: {connect: 5, read: 15}
            policy:
              rules:
                - when: "{{ outcome.status == 'error' and outcome.http.status in [429,500,502,503,504] }}"
                  then: {do: retry, attempts: 5, backoff: exponential, delay: 2.0}
                - when: "{{ outcome.status == 'error' }}"
                  then: {do: fail}
                - else:
                    then: {do: break}
""",
        "p.yaml",
    )
    step = blueprint.steps[0]
    config = step.tasks[0].config
    assert (config["connect_ms"], config["read_ms"], step.timeout_ms) == (5_000, 15_000, 20_000)


@pytest.mark.parametrize("kind", sorted({**CENTRE_KINDS, **ABSENT_KINDS}))
def test_kinds_that_are_not_here_say_why(kind: str) -> None:
    """A published kind that is not here is refused by name, with its own reason and what to do instead."""
    ((column, problem),) = refused(f"{{kind: {kind}}}")
    assert column == len("{kind: ")
    assert kind in problem
    assert {**CENTRE_KINDS, **ABSENT_KINDS}[kind] in problem
    assert ("data centre" in problem.partition(". ")[0]) is (kind in CENTRE_KINDS)
    assert kind not in KINDS


@pytest.mark.parametrize(
    ("step", "own", "read_ms", "claim_ms"),
    [
        (None, None, 25_000, 30_000),
        (None, "60s", 60_000, 62_000),
        (None, "300s", 300_000, 300_000),
        ("10s", None, 8_000, 10_000),
        ("1s", None, 500, 1_000),
        ("10s", "20s", 20_000, 10_000),
    ],
)
def test_a_calls_own_time_comes_first(step: str | None, own: str | None, read_ms: int, claim_ms: int) -> None:
    """A call ends with its own error, and the claim around it has the time for that, if the step does not object."""
    timeout = f", timeout: {step}" if step else ""
    tool = f", timeout: {own}" if own else ""
    source = STEP.replace("    tool: ", "") + (
        f"    spec: {{policy: {{access: {{hosts: [h]}}}}{timeout}}}\n    tool: {{kind: http, url: 'http://h/'{tool}}}\n"
    )
    made = compile_playbook(source.encode(), "p.yaml").steps[0]
    assert (made.tasks[0].config["read_ms"], made.timeout_ms) == (read_ms, claim_ms)
