"""`edge playbook test`: cases on the real engine and real workers, and cases recorded from a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli.main import main

LIBRARY = Path(__file__).parents[2] / "playbooks" / "library"
PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: t, path: t/t}
workflow:
  - step: fetch
    tool:
      - read:
          kind: python
          spec:
            effect: write
            policy:
              rules:
                - when: "{{ outcome.status == 'error' }}"
                  then: {do: retry, attempts: 3, delay: 600, backoff: exponential}
          code: |
            return {"celsius": 41}
      - judge: {kind: transform, value: {hot: "{{ read.celsius > 30 }}"}}
    next:
      - {step: alarm, when: "{{ output.hot }}"}
      - {step: rest}
  - step: alarm
    tool: {kind: wait, duration: 2h}
    set: {alarm: true}
    next: [each]
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel}}
    tool: {kind: python, spec: {effect: write}, input: {n: "{{ n }}"}, code: "return n"}
    next: [ask]
  - step: ask
    tool: {kind: wait, callback: true}
    next: [rest]
  - step: rest
    tool: {kind: noop}
"""
HOT = """
cases:
  - case: a hot day, a retry and two hours of waiting
    effects:
      - {step: fetch, task: read, problem: {code: timeout}}
      - {step: fetch, task: read, value: {celsius: 41}}
      - {step: each, item: 1, value: two}
      - {step: each, value: other}
      - {step: ask, value: {yes: true}}
    expect:
      status: completed
      path: [fetch, alarm, each, ask, rest]
      ctx: {alarm: true}
      steps:
        each: {result: [other, two, other]}
        alarm: {result_has: {waited_ms: 7200000}}
        ask: {result_has: {yes: true}}
"""
WRONG = """
  - case: a callback that never comes ends by its bound
    effects:
      - {step: fetch, value: {celsius: 41}}
      - {step: each, value: x}
    expect: {status: failed, path: [fetch, alarm, each, ask]}
  - case: nobody answers
    expect: {status: completed}
"""


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.test.yaml")), ids=lambda path: path.name)
def test_the_library_is_as_its_cases_say(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every playbook we ship has cases, and they hold."""
    assert main(["playbook", "test", str(path)]) == 0, capsys.readouterr().out


def test_every_library_playbook_has_cases() -> None:
    """A playbook without cases would be shipped untried."""
    playbooks = {path.stem for path in LIBRARY.glob("*.yaml") if not path.name.endswith(".test.yaml")}
    assert playbooks == {path.name.removesuffix(".test.yaml") for path in LIBRARY.glob("*.test.yaml")}


def test_effects_answer_and_time_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A retry after ten minutes, a wait of two hours, a loop's items and a callback, all at once and as recorded."""
    (tmp_path / "t.yaml").write_text(PLAYBOOK, "utf-8")
    (tmp_path / "t.test.yaml").write_text(HOT, "utf-8")
    assert main(["playbook", "test", str(tmp_path / "t.yaml")]) == 0, capsys.readouterr().out
    assert "1 of 1 as expected" in capsys.readouterr().out


def test_what_differs_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each case has its line; one that nobody answers for is told which effect is missing."""
    (tmp_path / "t.yaml").write_text(PLAYBOOK, "utf-8")
    (tmp_path / "t.test.yaml").write_text(HOT + WRONG, "utf-8")
    assert main(["playbook", "test", str(tmp_path), "--json"]) == 1
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [case["ok"] for case in said] == [True, True, False], said
    assert said[2]["differences"][0].startswith(
        "no effect is recorded for the python tool read of step fetch: add {step: fetch, task: read, value: …}"
    )


def test_a_recorded_case_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a real run did is written beside the playbook, and is as expected when it is rehearsed."""
    playbook = PLAYBOOK.replace("2h", "10ms").replace("next: [ask]", "next: [rest]")
    (tmp_path / "t.yaml").write_text(playbook, "utf-8")
    command = ["playbook", "test", str(tmp_path / "t.yaml")]
    assert main([*command, "--record", "as it was", "--input", '{"a": 1}']) == 0
    written = (tmp_path / "t.test.yaml").read_text("utf-8")
    assert '"value": {"celsius": 41}' in written
    assert main(command) == 0, written + capsys.readouterr().out
    assert main([*command, "--record", "as it was"]) == 2
    assert "already" in capsys.readouterr().err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No cases, or a playbook that does not compile: refused, with where."""
    (tmp_path / "t.yaml").write_text(PLAYBOOK, "utf-8")
    assert main(["playbook", "test", str(tmp_path / "t.yaml")]) == 2
    assert "has no cases" in capsys.readouterr().err
    (tmp_path / "t.yaml").write_text(PLAYBOOK.replace("kind: noop", "kind: nop"), "utf-8")
    (tmp_path / "t.test.yaml").write_text(HOT, "utf-8")
    assert main(["playbook", "test", str(tmp_path / "t.yaml")]) == 2
    assert "'nop'" in capsys.readouterr().err


def test_a_case_cannot_touch_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code that is run in a rehearsal is as shut in as on a box."""
    code = f"open('{tmp_path}/written', 'w').write('x'); return 1"
    (tmp_path / "t.yaml").write_text(
        PLAYBOOK[: PLAYBOOK.index("workflow:")]
        + f"workflow:\n  - step: a\n    tool: {{kind: python, code: {json.dumps(code)}}}\n",
        "utf-8",
    )
    (tmp_path / "t.test.yaml").write_text(
        "cases: [{case: a, expect: {status: failed, problem: sandbox_denied}}]", "utf-8"
    )
    assert main(["playbook", "test", str(tmp_path / "t.yaml")]) == 0, capsys.readouterr().out
    assert not (tmp_path / "written").exists()


def test_a_case_is_recorded_with_the_playbooks_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A child's answer is an effect like any other, and the child is not run in the rehearsal."""
    head = PLAYBOOK[: PLAYBOOK.index("workflow:")]
    child = (
        head.replace("path: t/t", "path: t/child")
        + "workflow:\n  - {step: a, tool: {kind: transform, value: 4}}\n"
    )
    parent = head + (
        "workflow:\n  - step: ask\n    tool: {kind: playbook, path: t/child}\n    next: [end]\n"
        "  - {step: end, tool: {kind: transform, value: '{{ ask + 1 }}'}}\n"
    )
    (tmp_path / "child.yaml").write_text(child, "utf-8")
    (tmp_path / "t.yaml").write_text(parent, "utf-8")
    command = ["playbook", "test", str(tmp_path / "t.yaml")]
    assert main([*command, "--record", "as it was"]) == 0
    assert '{"step": "ask", "value": 4}' in (tmp_path / "t.test.yaml").read_text("utf-8")
    (tmp_path / "child.yaml").unlink()
    assert main(command) == 0, capsys.readouterr().out


KEYED = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: k, path: t/k}
keychain: [{name: api}]
spec: {policy: {access: {keychain: [api]}}}
workflow:
  - step: fetch
    spec: {policy: {access: {hosts: ["127.0.0.1:9"]}}}
    tool: {kind: http, url: "http://127.0.0.1:9/", auth: api, headers: {x: "{{ keychain.api.token }}"}}
    next: [look]
  - step: look
    spec: {effect: read}
    tool: {kind: python, input: {t: "{{ keychain.api }}"}, code: "return [len(t), t]"}
"""


def test_credentials_of_a_case_are_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in for a tool needs no credential; a block that is run gets the case's, which nobody is shown."""
    (tmp_path / "t.yaml").write_text(KEYED, "utf-8")
    case = "cases:\n  - case: a\n    effects: [{step: fetch, value: 1}]\n    expect: {status: completed, result: R}\n"
    (tmp_path / "t.test.yaml").write_text(case, "utf-8")
    assert main(["playbook", "test", str(tmp_path / "t.yaml")]) == 1
    said = capsys.readouterr().out
    assert "the case gives it no value (keychain: {alias: {token: …}}" in said
    given = case.replace("    effects", "    keychain: {api: {token: made-up-token}}\n    effects")
    (tmp_path / "t.test.yaml").write_text(given.replace("R}", '[13, "***api***"]}'), "utf-8")
    assert main(["playbook", "test", str(tmp_path / "t.yaml"), "--json"]) == 0
    assert "made-up-token" not in capsys.readouterr().out


def test_a_run_takes_the_keychain_of_the_data_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`edge run` and a recorded case go by the author's own keychain, and show and write down no secret."""
    from edge.security.keychain import Keychain

    keyed = KEYED[: KEYED.index("  - step: fetch")] + KEYED[KEYED.index("  - step: look") :]
    (tmp_path / "t.yaml").write_text(keyed.replace("[len(t), t]", "t"), "utf-8")
    data, playbook = ["--data", str(tmp_path / "data")], str(tmp_path / "t.yaml")
    assert main(["run", playbook, *data]) == 1
    assert "secret_missing" in capfd.readouterr().out
    Keychain(tmp_path / "data" / "keychain").put("api", "bearer", {"token": "a-real-secret"})
    assert main(["run", playbook, *data]) == 0
    assert main(["playbook", "test", playbook, "--record", "as it was", *data]) == 0
    written = (tmp_path / "t.test.yaml").read_text("utf-8")
    assert "***api***" in written
    assert main(["playbook", "test", playbook]) == 0, capfd.readouterr().out
    assert "a-real-secret" not in written + "".join(capfd.readouterr())
    assert sorted(each.name for each in (tmp_path / "data" / "keychain").iterdir()) == [
        "key",
        "lock",
        "sealed",
    ]
