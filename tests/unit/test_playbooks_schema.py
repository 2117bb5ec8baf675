"""The JSON Schema and the reference page: made of the model, and of one mind with the compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from playbooks.compile import check_playbook
from playbooks.kinds import KINDS
from playbooks.model import BLOCKS
from playbooks.reference import reference_page
from playbooks.schema import json_schema
from tests.schema_agreement import document, validator

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
LIBRARY = sorted(
    set((PLAYBOOKS / "library").glob("*.yaml")) - set((PLAYBOOKS / "library").glob("*.test.yaml"))
)
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\n"


def _complaints(text: str) -> list[str]:
    return [error.message for error in validator().iter_errors(document(text.encode()))]


def test_the_schema_is_one() -> None:
    """It is valid itself, and every reference in it leads somewhere."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)

    def references(part: Any) -> set[str]:
        if isinstance(part, list):
            return {each for item in part for each in references(item)}
        if not isinstance(part, dict):
            return set()
        here = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return here | {each for value in part.values() for each in references(value)}

    assert {name.removeprefix("#/$defs/") for name in references(schema)} == set(schema["$defs"])


def test_every_key_is_explained_in_an_editor() -> None:
    """Each property of each block has its sentence, and a refused one says why."""
    for name, block in json_schema()["$defs"].items():
        for key, value in block.get("properties", {}).items():
            assert value["description"], f"{name}.{key}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_the_library_is_valid(path: Path) -> None:
    """What we ship is accepted by the schema we ship."""
    assert _complaints(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "path", sorted((PLAYBOOKS / "library").glob("*.test.yaml")), ids=lambda path: path.name
)
def test_files_of_cases_are_valid(path: Path) -> None:
    """They stand beside the playbooks under one pattern of an editor's settings, and have a root of their own."""
    assert _complaints(path.read_text("utf-8")) == []
    assert _complaints("cases: [{case: a, expect: {statos: failed}}]")


REFUSED = [
    ("workflow: [{step: a, tool: {kind: noop}}]\nvars: {}\n", "withdrawn"),
    ("workflow: [{step: a, tool: {kind: noop, code: x}}]\n", "cannot have the key 'code'"),
    ("workflow: [{step: a, tool: {kind: noop}, case: []}]\n", "withdrawn"),
    ("workflow: [{step: a, tool: [{x: {kind: noop, eval: []}}]}]\n", "withdrawn"),
    ("workflow: [{step: a, tool: {kind: noop}, next: {arcs: [{step: a, then: b}]}}]\n", "withdrawn"),
    ("workflow: [{step: a, tool: {kind: noop}, next: {spec: {policy: {}}, arcs: []}}]\n", "for later"),
    ("workflow: [{step: a, tool: {kind: noop}, spec: {next_mode: x}}]\n", "next.spec.mode"),
    ("workflow: [{step: a, tool: {kind: noop, spec: {policy: {rules: [{wen: true}]}}}}]\n", "'wen'"),
    (
        "workflow: [{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {allow: true}}]}}}}]\n",
        "admit",
    ),
    ("workflow: [{step: a, tool: {kind: noop}, loop: {in: [], iterator: i, spec: {modus: x}}}]\n", "'modus'"),
    ("workflow: [{step: a, tool: {kind: arrow, table: '{{ workload.t }}', ops: [{filtr: x}]}}]\n", "'filtr'"),
    ("executor: {specs: {}}\nworkflow: [{step: a, tool: {kind: noop}}]\n", "'specs'"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_the_compiler_refuses_by_key_the_schema_refuses(text: str, said: str) -> None:
    """A wrong or withdrawn key is red in an editor, too."""
    assert any(said in str(problem) for problem in check_playbook((HEAD + text).encode(), "p.yaml"))
    assert _complaints(HEAD + text)


@pytest.mark.parametrize(
    "text",
    [
        "workflow: []\n".replace("[]", "{}"),
        "workflow: [{step: a, tool: {kind: nop}}]\n",
        "workflow: [{step: a, tool: {kind: noop, spec: {timeout: 1 week}}}]\n",
        "workflow: [{step: a, tool: {kind: noop, spec: {policy: {rules: [{else: {do: contniue}}]}}}}]\n",
        "workflow: [{step: a, tool: {kind: noop}, next: {spec: {mode: all}, arcs: []}}]\n",
        "workflow: [{step: '{{ a }}', tool: {kind: noop}}]\n",
        "workflow: [{tool: {kind: noop}}]\n",
        "workflow: [{step: a, tool: [{kind: noop}, {x: {kind: noop}, y: {kind: noop}}]}]\n",
    ],
)
def test_wrong_values_are_red_too(text: str) -> None:
    """Choices, bounds, lengths of time, and where no template may stand."""
    assert check_playbook((HEAD + text).encode(), "p.yaml")
    assert _complaints(HEAD + text)


def test_the_reference_page_is_the_models() -> None:
    """The committed page is what `edge playbook reference` prints now."""
    page = (PLAYBOOKS / "REFERENCE.md").read_text("utf-8")
    assert page == reference_page(), "run: edge playbook reference > playbooks/REFERENCE.md"


def test_the_reference_page_has_every_block_and_every_link_leads_somewhere() -> None:
    """Each block and kind has its heading; links go to headings that are there."""
    import re

    page = reference_page()
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    assert {*BLOCKS, *KINDS} <= set(headings)
    anchors = {heading.lower().replace(".", "").replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
