"""Files of cases: read strictly, and compared so that an author sees what differs."""

from __future__ import annotations

from typing import Any

import pytest

from edge.rehearsal.compare import differences
from edge.rehearsal.stand_ins import with_stand_ins
from edge.rehearsal.virtual_time import VirtualTime
from playbooks.cases import read_cases
from playbooks.compile import compile_playbook
from playbooks.problems import PlaybookRefused

RUN: dict[str, Any] = {
    "status": "completed",
    "problem": None,
    "result": {"a": 1, "b": [1, {"c": 2}]},
    "path": ["x", "y"],
    "ctx": {"n": 1, "more": 2},
    "steps": {"x": {"status": "done", "result": 1}, "y": {"status": "failed", "problem": {"code": "gone"}}},
}


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"status": "completed", "path": ["x", "y"], "ctx": {"n": 1}}, None),
        ({"result": {"a": 1, "b": [1, {"c": 2}]}}, None),
        ({"result_has": {"b": [1, {"c": 2}]}}, None),
        ({"steps": {"y": {"status": "failed", "problem": "gone"}, "z": {"status": "absent"}}}, None),
        ({"status": "failed"}, "status: expected failed, got completed"),
        ({"result": {"a": 1}}, "result.b: not expected"),
        ({"result": {"a": 2, "b": [1, {"c": 2}]}}, "result.a: expected 2, got 1"),
        ({"result_has": {"b": [1, {"c": 3}]}}, "result.b[1].c: expected 3, got 2"),
        ({"result_has": {"z": None}}, "result.z: expected null, got nothing"),
        ({"result_has": {"a": True}}, "result.a: expected true, got 1"),
        ({"result_has": {"b": [1]}}, "result.b: expected 1 elements, got 2"),
        ({"path": ["x"]}, "at step 2: expected the end, got y"),
        ({"path": ["x", "z"]}, "at step 2: expected z, got y"),
        ({"ctx": {"n": 2}}, "ctx.n: expected 2, got 1"),
        ({"problem": "late"}, "problem: expected late, got none"),
        ({"steps": {"x": {"status": "absent"}}}, "step x: expected absent, got done"),
        ({"steps": {"z": {"status": "done"}}}, "step z: expected done, got absent"),
        ({"steps": {"x": {"result": 2}}}, "step x: result: expected 2, got 1"),
    ],
)
def test_what_differs_is_said(expect: dict[str, Any], said: str | None) -> None:
    """Nothing where all is as expected, else a line with what was expected and what came."""
    found = differences(expect, RUN)
    assert (found == []) if said is None else any(said in line for line in found), found


def test_effects_missing_or_unused_are_differences() -> None:
    """A tool nobody answered for, and an answer nobody asked for, each fail the case."""
    missing = {**RUN, "missing": [{"step": "x", "task": "t", "kind": "http"}]}
    (said,) = differences({"status": "completed"}, missing)
    assert said.startswith(
        "no effect is recorded for the http tool t of step x: add {step: x, task: t, value: …}"
    )
    unused = {**RUN, "unused": [{"step": "z"}]}
    assert differences({"status": "completed"}, unused) == ['an effect was never asked for: {"step": "z"}']


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cases: []", "There is no case"),
        ("cases: [{case: a}]", "has no `expect`"),
        ("cases: [{case: a, expect: {}}]", "expects nothing"),
        ("cases: [{case: a, expect: {statos: failed}}]", "Did you mean 'status'"),
        ("cases: [{case: a, expect: {status: broken}}]", "cannot be 'broken'"),
        ("cases: [{case: a, expect: {status: failed}}, {case: a, expect: {status: failed}}]", "two cases"),
        ("cases: [{case: a, effects: [{step: x}], expect: {status: failed}}]", "either `value` or `problem`"),
        ("cases: [{case: a, effects: [{value: 1}], expect: {status: failed}}]", "of which step"),
        ("cases: [{case: a, effects: [{step: x, problem: {}}], expect: {status: failed}}]", "no `code`"),
        (
            "cases: [{case: a, effects: [{step: x, item: -1, value: 1}], expect: {status: failed}}]",
            "whole number",
        ),
        ("cases: [{case: a, input: {}, table: [{a: 1}], expect: {status: failed}}]", "`input` or `table`"),
        ("cases: [{case: a, table: [], expect: {status: failed}}]", "no row"),
    ],
)
def test_a_wrong_file_of_cases_is_refused(text: str, said: str) -> None:
    """With the place and the mend, as a playbook is."""
    with pytest.raises(PlaybookRefused) as refused:
        read_cases(text.encode(), "p.test.yaml")
    assert said in str(refused.value)
    assert str(refused.value).startswith("p.test.yaml:")


def test_nothing_in_a_case_is_a_template() -> None:
    """A value with braces in it is that value."""
    read = read_cases(
        b"cases: [{case: a, input: {t: '{{ x }}'}, expect: {result: '{{ y }}'}}]", "p.test.yaml"
    )
    assert read.cases[0].input == {"t": "{{ x }}"}
    assert read.cases[0].expect == {"result": "{{ y }}"}


PLAYBOOK = b"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: p}
workflow:
  - step: a
    tool:
      - {name: ask, kind: python, code: return 1}
      - {name: tell, kind: python, spec: {effect: write}, code: return 2}
      - {name: count, kind: transform, value: 3}
"""


def test_what_reaches_outside_has_a_stand_in() -> None:
    """A task that writes always, one that reads where the case has an effect for it, one that is pure never."""
    blueprint = compile_playbook(PLAYBOOK, "p.yaml")
    kinds = [task.kind for task in with_stand_ins(blueprint, []).steps[0].tasks]
    assert kinds == ["python", "wait", "transform"]
    effect = {"step": "a", "task": None, "visit": None, "item": None, "value": 1}
    kinds = [task.kind for task in with_stand_ins(blueprint, [effect]).steps[0].tasks]
    assert kinds == ["wait", "wait", "transform"]


def test_virtual_time_passes_from_alarm_to_alarm() -> None:
    """In order of their moments, skipping those cancelled."""
    time, heard = VirtualTime(), []
    time.after_s(3_600, lambda: heard.append("hour"))
    time.after_s(5, lambda: heard.append("never")).cancel()
    time.after_ms(1_500, lambda: heard.append("second"))
    before = time.read()
    assert time.pass_to_next()
    assert time.pass_to_next()
    assert not time.pass_to_next()
    assert heard == ["second", "hour"]
    assert time.read().mono_ns - before.mono_ns == 3_600 * 10**9
    assert time.read().wall_ns - before.wall_ns == 3_600 * 10**9
