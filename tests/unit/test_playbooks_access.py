"""Grants of a playbook: what they compile to, how layers overlay, what they make of a step, what is refused."""

from __future__ import annotations

import pytest

from edge.core.access import NOTHING, Access, topic_matches, union
from edge.core.codec import decode, encode_canonical
from playbooks.blueprint import Blueprint
from playbooks.compile import check_playbook, compile_playbook
from playbooks.shape import Step

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\n"


ALIASES = "keychain: [{name: api}]\n"


def steps(rest: str) -> tuple[Step, ...]:
    return compile_playbook((HEAD + ALIASES + rest).encode(), "p.yaml").steps


def one(spec: str, tool: str = "{kind: python, code: 'result = 1'}", root: str = "{}") -> Step:
    return steps(f"spec: {root}\nworkflow:\n  - step: a\n    spec: {spec}\n    tool: {tool}\n")[0]


def test_grants_are_written_one_way() -> None:
    """Each spelling of a grant compiles to the same plain data, sorted."""
    made = one(
        "{policy: {access: {hosts: [B.Example.org.:443, a, '[::1]:80', 10.0.0.5:1883, '*.x.org'],"
        " topics: [a/+/b, '#'], files: [/srv//in/, {path: /srv/out, mode: write}],"
        " devices: [/dev/ttyUSB0], keychain: [api]}}}"
    )
    assert made.access == Access(
        (("*.x.org", 0), ("10.0.0.5", 1883), ("::1", 80), ("a", 0), ("b.example.org", 443)),
        ("#", "a/+/b"),
        (("/srv/in", "read"), ("/srv/out", "write")),
        ("/dev/ttyUSB0",),
        ("api",),
    )
    assert Access.of(made.access.parts()) == made.access
    assert not NOTHING
    assert Access.of(NOTHING.parts()) == NOTHING


def test_layers_are_merged_kind_by_kind() -> None:
    """An inner block keeps the kinds it does not name, replaces those it does, and can empty one."""
    root = "{policy: {access: {hosts: [a], files: [/f]}}}"
    assert one("{}", root=root).access == Access(hosts=(("a", 0),), files=(("/f", "read"),))
    step = "{policy: {access: {hosts: [b]}}}"
    assert one(step, root=root).access == Access(hosts=(("b", 0),), files=(("/f", "read"),))
    task = "{kind: python, code: 'result = 1', spec: {policy: {access: {hosts: [], files: [/g]}}}}"
    assert one(step, task, root).access == Access(files=(("/g", "read"),))
    assert not one(step, task, root).pipeline, "grants alone are no control"


def test_an_outside_makes_a_step_write() -> None:
    """`python` is read without grants, write with one, read where that is declared; what is pure has none."""
    granted = "policy: {access: {hosts: [a]}}"
    assert one("{}").effect == "read"
    assert one(f"{{{granted}}}").effect == "write"
    assert one(f"{{effect: read, {granted}}}").effect == "read"
    pure = one("{effect: pure}", root=f"{{{granted}}}")
    assert (pure.effect, pure.access) == ("pure", NOTHING)
    transform = one("{}", "{kind: transform, value: 1}", root=f"{{{granted}}}")
    assert (transform.effect, transform.access) == ("pure", NOTHING)


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ("{¶host: [a]}", "Did you mean 'hosts'"),
        ("{hosts: ¶a}", "must be a list"),
        ("{hosts: [¶'http://a']}", "no host"),
        ("{hosts: [¶'a:70000']}", "no host"),
        ("{hosts: [¶'a:0']}", "no host"),
        ("{hosts: [¶'1.2.3:80']}", "no host"),
        ("{hosts: [¶'*']}", "no host"),
        ("{hosts: [¶'a.*.b']}", "no host"),
        ("{hosts: [¶'{{ workload.host }}']}", "cannot be a template"),
        ("{topics: [¶'a/#/b']}", "no MQTT topic filter"),
        ("{topics: [¶a+/b]}", "no MQTT topic filter"),
        ("{files: [¶in]}", "no absolute path"),
        ("{files: [¶/a/../b]}", "no absolute path"),
        ("{files: [¶/dev/mem]}", "is a device"),
        ("{files: [{path: /a, mode: ¶append}]}", "Allowed: read, write"),
        ("{files: [¶{mode: read}]}", "has no `path`"),
        ("{devices: [¶ttyUSB0]}", "no device"),
        ("{devices: [¶/etc/x]}", "no path below /dev"),
        ("{keychain: [¶1a]}", "cannot be an alias"),
    ],
)
def test_grants_that_cannot_be_are_refused(access: str, said: str) -> None:
    """A grant that says nothing exact is refused where it stands."""
    before, _, after = access.partition("¶")
    tool = "    tool: {kind: python, code: result = 1}\n"
    source = f"{HEAD}workflow:\n  - step: a\n{tool}    spec: {{policy: {{access: "
    column = len(source.rpartition("\n")[2]) + len(before) + 1
    problems = check_playbook(f"{source}{before}{after}}}}}\n".encode(), "p.yaml")
    assert [(each.line, each.column) for each in problems] == [(7, column)], problems
    assert said in str(problems[0])


@pytest.mark.parametrize(
    ("spec", "tool", "said"),
    [
        ("{effect: pure, policy: {access: {hosts: [a]}}}", "{kind: python, code: 'result = 1'}", "pure step"),
        ("{policy: {access: {hosts: [a]}}}", "{kind: transform, value: 1}", "pure step"),
        ("{}", "{kind: transform, value: 1, spec: {policy: {access: {hosts: [a]}}}}", "pure step"),
        (
            "{effect: read, policy: {access: {topics: [a]}}}",
            "{kind: python, code: 'result = 1'}",
            "read step",
        ),
        (
            "{effect: read, policy: {access: {files: [{path: /a, mode: write}]}}}",
            "{kind: python, code: 'result = 1'}",
            "read step",
        ),
    ],
)
def test_grants_and_effects_that_contradict_are_refused(spec: str, tool: str, said: str) -> None:
    """What is pure has no outside, and what only reads has nothing to write to."""
    source = f"{HEAD}workflow:\n  - step: a\n    spec: {spec}\n    tool: {tool}\n"
    assert said in str(check_playbook(source.encode(), "p.yaml")[0])


def test_a_blueprint_with_odd_grants_is_refused() -> None:
    """Grants are checked when a blueprint is read: a handwritten one cannot smuggle a path in."""
    source = HEAD + "workflow:\n  - step: a\n    tool: {kind: python, code: 'result = 1'}\n"
    body = decode(compile_playbook(source.encode(), "p.yaml").data)
    odd: list[object] = [
        [],
        {},
        [[], [], [["/a/../b", "read"]], [], []],
        [[], [], [["/a", "own"]], [], []],
        [[["a", 70000]], [], [], [], []],
        [[], [], [], ["/etc/shadow"], []],
        [[], [""], [], [], []],
    ]
    for access in odd:
        task = {**body["steps"][0]["tasks"][0], "access": access}
        step = {**body["steps"][0], "tasks": [task]}
        with pytest.raises(ValueError, match="grants"):
            Blueprint.decode(encode_canonical({**body, "steps": [step]}))


def test_what_a_grant_covers() -> None:
    """Names below `*.` but not itself, exact names and ports, topics by MQTT's rules; a union keeps the stronger."""
    access = Access(hosts=(("*.x.org", 443), ("a", 0)), topics=("p/+/set", "q/#"))
    assert access.may_connect("b.x.org", 443)
    assert access.may_connect("A.", 1)
    for host, port in (("x.org", 443), ("b.x.org", 80), ("evilx.org", 443), ("b", 1)):
        assert not access.may_connect(host, port), host
    for topic, covered in (
        ("p/1/set", True),
        ("p/set", False),
        ("p/1/2/set", False),
        ("q", True),
        ("q/a/b", True),
    ):
        assert access.may_publish(topic) is covered, topic
    assert not topic_matches("#", "$SYS/x")
    both = union([Access(files=(("/a", "write"),)), Access(files=(("/a", "read"), ("/b", "read")))])
    assert both.files == (("/a", "write"), ("/b", "read"))


def test_a_grant_is_judged_by_what_the_tasks_do_together() -> None:
    """A wait beside the tool that uses the step's topics is no reason to refuse them; one that is alone is."""
    spec = "{policy: {access: {topics: [a/b]}}}"
    wait = "{name: w, kind: wait, callback: true}"
    made = one(spec, f"[{{name: tell, kind: mqtt, topic: a/b, payload: 1}}, {wait}]")
    assert made.access == Access(topics=("a/b",))
    assert [task.effect for task in made.tasks] == ["write", "read"]
    assert not made.tasks[1].access
    alone = f"{HEAD}workflow:\n  - step: a\n    spec: {spec}\n    tool: {wait}\n"
    (problem,) = check_playbook(alone.encode(), "p.yaml")
    assert "none of its tools writes" in problem.mend
    own = f"{HEAD}workflow:\n  - step: a\n    tool: {wait[:-1]}, spec: {spec}}}\n"
    (problem,) = check_playbook(own.encode(), "p.yaml")
    assert "a wait tool writes nothing" in problem.mend
