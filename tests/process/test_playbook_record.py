"""`edge playbook test --record`: a recorded case holds when it is run again, whatever ended its pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cli.main import main

HEAD = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: t, path: t/t}
workflow:
"""
#: A tool with an outside that needs no server: it counts in a file that it is granted.
TELL = """kind: python
          spec: {effect: write, policy: {access: {files: [{path: "FOLDER", mode: write}]}RULES}}
          code: |
            with open("FOLDER/n", "a+") as f:
                f.write("x")
                return {"n": f.tell()}
"""
END = """    next: [end]
  - step: end
    tool: {kind: transform, value: "{{ ask }}"}
"""


def tell(folder: Path, rules: str = "") -> str:
    """The tool, with rules of its policy."""
    return TELL.replace("FOLDER", str(folder)).replace("RULES", rules)


def last(folder: Path) -> str:
    """The last task of a pipeline writes."""
    one = "      - one: {kind: transform, value: 1}\n"
    return f"  - step: ask\n    tool:\n{one}      - a:\n          {tell(folder)}{END}"


def broken_off(folder: Path) -> str:
    """A rule ends the pipeline at its first task."""
    rules = ", rules: [{when: \"{{ outcome.status == 'ok' }}\", then: {do: break}}]"
    return (
        f"  - step: ask\n    tool:\n      - a:\n          {tell(folder, rules)}"
        f"      - b: {{kind: transform, value: 1}}\n{END}"
    )


def polled(folder: Path) -> str:
    """Asked again and again until it is ready."""
    rules = (
        ', rules: [{when: "{{ outcome.data.n < 4 }}", then: {do: jump, to: pause}},'
        " {when: \"{{ outcome.status == 'ok' }}\", then: {do: break}}]"
    )
    pause = "      - pause: {kind: wait, duration: 10ms, spec: {policy: {rules: [{else: {do: jump, to: ask_it}}]}}}\n"
    return f"  - step: ask\n    tool:\n      - ask_it:\n          {tell(folder, rules)}{pause}{END}"


def in_a_loop(folder: Path) -> str:
    """Each item's pipeline ends with the tool."""
    loop = "    loop: {in: [1, 2, 3], iterator: i}\n"
    return (
        f"  - step: ask\n{loop}    tool:\n      - one: {{kind: transform, value: 1}}\n"
        f"      - a:\n          {tell(folder)}{END}"
    )


def with_rules_alone(folder: Path) -> str:
    """One task with a policy of its own."""
    return f"  - step: ask\n    tool:\n      - a:\n          {tell(folder, ', rules: [{else: {do: continue}}]')}{END}"


def varying(folder: Path) -> str:
    """A block that only reads gives something else each time."""
    return f"  - step: ask\n    tool: {{kind: python, code: 'import uuid; return str(uuid.uuid4())'}}\n{END}"


@pytest.mark.parametrize("workflow", [last, broken_off, polled, in_a_loop, with_rules_alone, varying])
def test_a_recorded_case_holds(
    workflow: Callable[[Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last outcome of a pipeline, which has no event of its own, is among the effects."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "t.yaml").write_text(HEAD + workflow(outside), "utf-8")
    command = ["playbook", "test", str(tmp_path / "t.yaml")]
    assert main([*command, "--record", "as it was"]) == 0, capsys.readouterr()
    outcome = (outside / "n").read_text() if (outside / "n").exists() else ""
    assert main(command) == 0, (tmp_path / "t.test.yaml").read_text() + capsys.readouterr().out
    assert "1 of 1 as expected" in capsys.readouterr().out
    assert ((outside / "n").read_text() if (outside / "n").exists() else "") == outcome


def test_used_up_effects_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tool that asks on after its last effect ends the case, which says what is missing and how to record it."""
    (tmp_path / "t.yaml").write_text(HEAD + polled(tmp_path), "utf-8")
    (tmp_path / "t.test.yaml").write_text(
        "cases: [{case: a, effects: [{step: ask, task: ask_it, value: {n: 1}}], expect: {status: completed}}]"
    )
    assert main(["playbook", "test", str(tmp_path / "t.yaml"), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)["differences"]
    assert said[0] == (
        "the recorded effects of the python tool ask_it of step ask are used up (1), and it asks on without an end: "
        "add {step: ask, task: ask_it, value: …} under `effects`, or record a case with --record"
    )
