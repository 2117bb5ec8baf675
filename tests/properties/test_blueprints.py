"""Random playbooks and random bytes: compiling is deterministic, total, and its blueprints read back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.codec import decode, encode_canonical
from edge.core.errors import PlaybookInvalid
from playbooks.blueprint import Blueprint
from playbooks.compile import check_playbook, compile_playbook
from playbooks.loader import Listing, Mapping_, Marked, Scalar, load
from playbooks.problems import Source
from playbooks.scalars import origins

SEED = b"""apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: a/p}
workload: {limit: 3, t: "x"}
spec: {timeout: 5s}
workflow:
  - step: one
    input: {a: "{{ limit }}"}
    tool: {kind: transform, value: {x: "{{ a + 1 }}", y: "n={{ a }}"}}
    set: {ctx.hot: "{{ one.x > 2 }}"}
    next:
      spec: {mode: exclusive}
      arcs:
        - {step: two, when: "{{ ctx.hot }}"}
        - two
  - step: two
    spec: {effect: write, on_unknown: ask}
    tool:
      kind: python
      libs: {j: json}
      code: |
        def main(a):
            return {"a": a}
  - step: three
    tool: {kind: arrow, table: "{{ workload.t }}", ops: [{filter: "{{ c > 1 }}"}, {project: {d: "{{ c }}"}}]}
"""

NAMES = st.sampled_from(("s1", "s2", "s3", "s4"))
TEMPLATES = st.sampled_from(
    (
        "{{ workload.a }}",
        "{{ s1 }}",
        "t {{ s2 | default(1) }}",
        3,
        "plain",
        "{{ ctx.x is defined }}",
        None,
        [1, "{{ s3 }}"],
    )
)
STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "tool": st.one_of(
                st.just({"kind": "noop"}),
                st.builds(lambda value: {"kind": "transform", "value": value}, TEMPLATES),
                st.builds(
                    lambda effect: {"kind": "python", "code": "result = 1\n"},
                    st.sampled_from(("read", "pure")),
                ),
            ),
        },
        optional={
            "input": st.dictionaries(st.sampled_from("ab"), TEMPLATES, max_size=2),
            "set": st.dictionaries(st.sampled_from(("x", "ctx.y")), TEMPLATES, max_size=2),
            "next": st.lists(
                st.fixed_dictionaries({"step": NAMES, "when": st.just("{{ ctx.x | d(false) }}")}), max_size=3
            )
            | NAMES.map(lambda name: [name]),
            "spec": st.fixed_dictionaries({"timeout": st.integers(1, 300)}),
        },
    ),
    min_size=4,
    max_size=4,
)


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_compiling_is_deterministic_and_reads_back(steps: list[dict[str, Any]]) -> None:
    """Sound playbooks compile; twice alike; and the blueprint read back is the same one."""
    named = [{"step": f"s{number}", **step} for number, step in enumerate(steps, 1)]
    document = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "p", "path": "p"},
        "workflow": named,
    }
    source = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
    if b"&id" in source:  # hypothesis gave one list twice: an alias, rightly refused
        return
    assert check_playbook(source, "p.yaml") == []
    first, second = compile_playbook(source, "p.yaml"), compile_playbook(source, "q.yaml")
    assert first.data == second.data
    assert Blueprint.decode(first.data) == first
    for position, step in enumerate(first.steps):
        here = position
        for _ in range(step.run):
            assert first.steps[here].effect == "pure"
            assert not first.steps[here].set
            (arc,) = first.steps[here].arcs
            assert arc.when is None
            here = arc.target
        assert step.run < len(first.steps)


def survives(source: bytes) -> None:
    """Compiles or refuses, with problems at positions the file has."""
    try:
        compile_playbook(source, "p.yaml")
    except PlaybookInvalid as error:
        lines = source.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
        for problem in error.problems:  # type: ignore[attr-defined]
            assert 1 <= problem.line <= lines
            assert problem.column >= 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_random_bytes_are_refused(source: bytes) -> None:
    """Random bytes raise nothing but PlaybookInvalid."""
    survives(source)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutilated_playbooks_are_refused(data: st.DataObject) -> None:
    """A sound playbook with pieces cut out, doubled or overwritten raises nothing but PlaybookInvalid."""
    source = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(source)))
        length = data.draw(st.integers(0, 12))
        piece = data.draw(
            st.sampled_from((b"", b"{{", b"}}", b"{%", b'"', b"'", b"\n", b"  ", b": ", b"- ", b"|\n", b"[", b"1"))
            | st.binary(max_size=3)
        )  # fmt: skip
        source[at : at + length] = piece
    survives(bytes(source))


YAML_TEXTS = st.text(alphabet="ab é\n'\"\\:{}#-", min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(YAML_TEXTS, st.sampled_from((None, "'", '"', "|", ">")))
def test_every_character_is_found_again(text: str, style: str | None) -> None:
    """Whatever the quoting, a visible character of a text maps to that character in the file."""
    dumped = yaml.safe_dump({"a": {"b": text}}, default_style=style, allow_unicode=True, width=20)
    source = Source(dumped.replace("!!", ""), "p")
    node = load(source)
    if node is None or source.problems:
        return
    for scalar in _scalars(node):
        found = origins(source, scalar)
        assert len(found) == len(scalar.value) + 1
        assert found == sorted(found)
        for index, character in zip(found, scalar.value, strict=False):
            if not character.isspace() and source.text[index : index + 1] != "\\":
                assert source.text[index : index + 1] == character


def _scalars(node: Marked) -> list[Scalar]:
    if isinstance(node, Scalar):
        return [node] if isinstance(node.value, str) else []
    if isinstance(node, Listing):
        return [scalar for item in node.items for scalar in _scalars(item)]
    assert isinstance(node, Mapping_)
    return [scalar for _, value in node.pairs for scalar in _scalars(value)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spoiled_blueprints_are_value_errors(data: st.DataObject) -> None:
    """Bytes that are no blueprint raise ValueError and nothing else."""
    whole = bytearray(compile_playbook(SEED.replace(b"- two\n", b"- three\n"), "p").data)
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        Blueprint.decode(bytes(whole))


WHOLE = b"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: a, path: a}
workload: {a: "{{ b }}", b: [1, "{{ execution_id }}"]}
workflow:
  - step: a
    spec: {policy: {admit: {rules: [{when: "{{ ctx.v }}", then: {allow: true}}]}, access: {hosts: [a.b]}}}
    loop: {in: [1, 2], iterator: x, spec: {mode: parallel, frame: {max_rows: 3}}}
    set: {v: "{{ output.data }}"}
    tool:
      - get:
          kind: http
          url: http://a.b/
          output: {select: [{path: $.a.b, as: z}], accumulate: {enabled: true}}
          spec: {policy: {rules: [{when: "{{ outcome.data }}", then: {do: jump, to: rest}}, {else: {do: retry}}]}}
      - rest: {kind: wait, seconds: 1}
    next: {spec: {mode: inclusive}, arcs: [{step: b, when: "{{ output.error }}", args: {z: 1}}, {step: a}]}
  - step: b
    tool: {kind: transform, value: "{% for name in [1] %}{{ name }}{% endfor %}"}
"""
ODD = (None, 5, -1, True, 1.5, "x", b"x", [], {}, [[]], [1], [None], [["a"]], {"a": 1}, ["const", 1])


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def test_a_blueprint_with_any_part_replaced_is_a_value_error() -> None:
    """Whatever stands in the place of a part, or where it is missing: decoding works or raises ValueError."""
    body = decode(compile_playbook(WHOLE, "p").data)
    for container in list(_containers(body)):
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            kept = container[key]
            for odd in ODD:
                container[key] = odd
                with contextlib.suppress(ValueError):
                    Blueprint.decode(encode_canonical(body))
            container[key] = kept
            if isinstance(container, dict):
                del container[key]
                with contextlib.suppress(ValueError):
                    Blueprint.decode(encode_canonical(body))
                container[key] = kept
