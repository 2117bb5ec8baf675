"""`edge playbook check`: everything wrong in one run, files and folders, for people and programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge.cli.main import main
from edge.core.limits import PLAYBOOK_BYTES_MAX

BAD = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: x, path: x}
workflow:
  - step: a
    foo: 1
    tool: {kind: python, cod: x, code: "return 1"}
    next: [{step: nowhere}]
  - step: a
    tool: {kind: transform, value: "{{ nope.x | shout }}", valu: 1}
  - tool: {kind: noop, wrong: 1}
  - step: 7x
    tool: {kind: nop}
"""


def test_everything_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also inside a step that has an unknown key, the name of another one, a name that is none, or no name."""
    (tmp_path / "bad.yaml").write_text(BAD, "utf-8")
    assert main(["playbook", "check", str(tmp_path / "bad.yaml")]) == 2
    lines = capsys.readouterr().out.splitlines()
    places = [line.removeprefix(f"{tmp_path}/bad.yaml:").split(" ")[0] for line in lines]
    assert places == [
        "6:5:",
        "7:26:",
        "8:19:",
        "9:5:",
        "10:49:",
        "10:60:",
        "11:5:",
        "11:24:",
        "12:11:",
        "13:18:",
    ], lines
    for word, line in zip(
        [
            "foo",
            "Did you mean 'code'",
            "nowhere",
            "two steps",
            "shout",
            "Did you mean 'value'",
            "no name",
            "wrong",
            "'7x'",
            "Did you mean 'noop'",
        ],
        lines,
        strict=True,
    ):
        assert word in line


def test_folders_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder means all below it, cases too; one JSON object for each file; 2 where one of them is wrong."""
    good = BAD[: BAD.index("  - step: a\n")] + "  - step: a\n    tool: {kind: noop}\n"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "good.yaml").write_text(good, "utf-8")
    (tmp_path / "sub" / "good.test.yaml").write_text(
        "cases: [{case: a, expect: {status: completed}}]", "utf-8"
    )
    assert main(["playbook", "check", str(tmp_path)]) == 0
    assert "1 case" in capsys.readouterr().out
    (tmp_path / "bad.yaml").write_text(BAD, "utf-8")
    assert main(["playbook", "check", str(tmp_path), "--json"]) == 2
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(each["file"]).name, each["ok"]) for each in said] == [
        ("bad.yaml", False),
        ("good.test.yaml", True),
        ("good.yaml", True),
    ]
    assert said[0]["problems"][0] == {
        "line": 6,
        "column": 5,
        "message": "A step cannot have the key 'foo'.",
        "mend": "Allowed: step, desc, spec, input, loop, tool, set, next.",
    }


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing checked must not look like nothing wrong."""
    assert main(["playbook", "check", str(tmp_path)]) == 2
    assert "holds no playbook" in capsys.readouterr().err


HEAD = BAD[: BAD.index("  - step: a\n")]


def lines_of(capsys: pytest.CaptureFixture[str], folder: Path) -> list[str]:
    """What was printed, without the folder."""
    return capsys.readouterr().out.replace(f"{folder}/", "").splitlines()


A = "  - {step: a, tool: {kind: noop}}\n"
B = "  - {step: b, tool: {kind: noop}}\n"
C = "  - {step: c, tool: {kind: noop}}\n"
AFTER_A = "6:12: warning: No arc leads to step b: it never runs. Write `next: [b]` on a."
ANYWHERE = AFTER_A.replace(
    "Write `next: [b]` on a.", "Add b to the `next` of a step that runs, or take it out."
)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (A + B, [AFTER_A]),
        ("  - {step: a, tool: {kind: noop}, next: [c]}\n  - {step: b, next: [c]}\n" + C, [ANYWHERE]),
        (A + "  - {step: b, next: [c]}\n  - {step: c, next: [b]}\n", [AFTER_A]),
        ("  - {step: a, next: [{step: b, when: false}]}\n" + B, []),
        (A + B + "executor: {spec: {final_step: b}}\n", []),
    ],
)
def test_a_step_that_nothing_leads_to_is_a_warning(
    steps: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its place and the mend, once for what hangs together; never an error, as in NoETL."""
    (tmp_path / "p.yaml").write_text(HEAD + steps, "utf-8")
    assert main(["playbook", "check", str(tmp_path)]) == 0
    assert lines_of(capsys, tmp_path)[1:] == [f"p.yaml:{line}" for line in said]
    assert main(["playbook", "check", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == len(said)


def test_a_word_that_promises_more_than_there_is_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`on_unknown: ask` is accepted, and whoever writes it is told that nobody is asked yet; other words are not."""
    step = (
        '  - {step: a, spec: {effect: write, on_unknown: WORD}, tool: {kind: python, code: "result = 1"}}\n'
    )
    (tmp_path / "p.yaml").write_text(HEAD + step.replace("WORD", "ask"), "utf-8")
    (tmp_path / "q.yaml").write_text(HEAD + step.replace("WORD", "retry"), "utf-8")
    assert main(["playbook", "check", str(tmp_path)]) == 0
    ok, said, other = lines_of(capsys, tmp_path)
    assert (ok.partition(":")[0], other.partition(":")[0]) == ("p.yaml", "q.yaml")
    assert said.startswith("p.yaml:5:49: warning: Nobody can be asked yet")


def test_a_folder_is_checked_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is too large, or gone, is a line like any other; what comes after it is checked too."""
    (tmp_path / "a.yaml").write_text("#" * (PLAYBOOK_BYTES_MAX + 1), "utf-8")
    (tmp_path / "b.yaml").write_text(HEAD + "  - {step: a, tool: {kind: noop}}\n", "utf-8")
    assert main(["playbook", "check", str(tmp_path / "gone.yaml"), str(tmp_path)]) == 2
    lines = lines_of(capsys, tmp_path)
    assert [line.split(" ")[0] for line in lines] == ["gone.yaml:1:1:", "a.yaml:1:1:", "b.yaml:"]
    assert "Split the playbook" in lines[1]


@pytest.mark.parametrize(
    "command", [["run"], ["playbook", "check"], ["playbook", "register"], ["playbook", "graph"]]
)
def test_what_is_no_ordinary_file_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device or a pipe may never end: it is not read."""
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in ("/dev/zero", str(tmp_path / "pipe.yaml")):
        assert main([*command, path]) == 2
        assert "is no ordinary file" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Subscription\nspec: {source: mqtt}\n", "s.yaml:1:7: This is a subscription, not a playbook."),
        (
            "cases: [{case: a, expect: {status: failed}}]\n",
            "s.yaml:1:1: This is a file of cases, not a playbook.",
        ),
    ],
)
def test_another_kind_of_file_is_named(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what it is and who takes it, in place of all that it is not as a playbook."""
    (tmp_path / "s.yaml").write_text(text, "utf-8")
    assert main(["run", str(tmp_path / "s.yaml")]) == 2
    (line,) = capsys.readouterr().err.replace(f"{tmp_path}/", "").splitlines()
    assert line.startswith(said)
    assert "edge playbook " in line


def test_a_tab_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML's own words do not say what to do about it."""
    (tmp_path / "t.yaml").write_text("kind: Playbook\nmetadata:\n\tname: x\n", "utf-8")
    assert main(["playbook", "check", str(tmp_path)]) == 2
    assert "Indent with spaces" in capsys.readouterr().out


def test_one_of_a_kind_is_said_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step, two steps."""
    step = "  - {step: %s, tool: {kind: noop}%s}\n"
    head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: x, path: x}\nworkflow:\n"
    (tmp_path / "one.yaml").write_text(head + step % ("a", ""), "utf-8")
    (tmp_path / "two.yaml").write_text(head + step % ("a", ", next: [{step: b}]") + step % ("b", ""), "utf-8")
    assert main(["playbook", "check", str(tmp_path)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert ("ok, 1 step, digest" in one, "ok, 2 steps, digest" in two) == (True, True), (one, two)
