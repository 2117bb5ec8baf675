"""What executions would have come to with another playbook: the same requests are answered, others stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.sync.bundle import MANIFEST
from tests.process.box import Box

GUARD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: guard, path: guard}
workload: {limit: 5}
workflow:
  - step: read
    tool: {kind: python, input: {n: "{{ n }}"}, code: "result = {'level': n * 2}"}
    next: [decide]
  - step: decide
    tool: {kind: transform, value: {to: "{{ [read.level, limit] | min }}", high: "{{ read.level > limit }}"}}
    next: [act]
  - step: act
    spec: {effect: write, on_unknown: retry}
    input: {to: "{{ decide.to }}"}
    tool: {kind: python, code: "result = {'set': to}"}
    next: [tell]
  - step: tell
    tool: {kind: transform, value: {set: "{{ act.set }}", high: "{{ decide.high }}"}}
"""
RUNS = 6


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, str]]:
    """A box's log at a centre."""
    folder = tmp_path_factory.mktemp("whatif")
    box = Box(folder, 1)
    box.start("runtime")
    box.register(GUARD)
    for n in range(RUNS):
        assert box.run("guard", {"n": n})["result"]["set"] == min(2 * n, 5)
    box.down()
    (folder / "stick").mkdir()
    said = box.edge("bundle", "export", str(folder / "stick"), "--json", "--same-drive").stdout
    place, data = json.loads(said)["folder"], str(folder / "centre")
    box.edge(
        "central", "enrol", "testbox", json.loads((Path(place) / MANIFEST).read_text())["key"], "--data", data
    )
    box.edge("central", "import", place, "--data", data)
    yield box, data
    box.down()


def test_the_box_and_a_bundle_are_asked_the_same_way(centre: tuple[Box, str], tmp_path: Path) -> None:
    """`edge whatif` says of a box's own log, and of a stick, what the centre says; results lie in the data folder."""
    box, data = centre
    path = tmp_path / "other.yaml"
    path.write_text(GUARD.replace('high: "{{ decide.high }}"', 'high: "{{ decide.to >= 4 }}"'))
    stick = next(path for path in (Path(data).parent / "stick").iterdir() if path.is_dir())
    asked = ("--playbook", str(path), "--json")
    at_the_centre = json.loads(box.edge("central", "whatif", *asked, "--data", data, check=1).stdout)
    for words in ((), ("--bundle", str(stick))):
        told = json.loads(box.edge("whatif", *asked, *words, check=1).stdout)
        assert {**told, "results": ""} == {**at_the_centre, "results": ""}
        assert Path(told["results"]).is_relative_to(box.data)
    one = at_the_centre["worst"][0]["execution"]
    assert json.loads(box.edge("whatif", one, *asked, check=1).stdout)["kinds"] == {"changed": 1}
    assert "Execution 999 is not in this log" in box.edge("whatif", "999", *asked, check=2).stderr


class Asks:
    """`edge central whatif` at that centre, with a playbook written for it."""

    def __init__(self, centre: tuple[Box, str], folder: Path) -> None:
        self._box, self.data = centre
        self._folder = folder

    def __call__(self, source: str, *words: str, check: int = 1) -> dict[str, Any]:
        path = self._folder / "other.yaml"
        path.write_text(source)
        said = self._box.edge(
            "central", "whatif", "--playbook", str(path), "--data", self.data, "--json", *words, check=check
        )
        return dict(json.loads(said.stdout)) if check < 2 else {"refused": said.stderr}


@pytest.fixture
def ask(centre: tuple[Box, str], tmp_path: Path) -> Asks:
    return Asks(centre, tmp_path)


def lines(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Every result of a question, as kept."""
    return [
        json.loads(line)
        for path in sorted(Path(told["results"]).glob("*.jsonl"))
        for line in path.read_text().splitlines()[1:]
    ]


def test_the_same_playbook_changes_nothing(ask: Asks) -> None:
    """Every effect is asked the same and gets its recorded response; what is kept says what it was made of."""
    told = ask(GUARD, check=0)
    assert (told["executions"], told["kinds"], told["fields"]) == (RUNS, {"same": RUNS}, {})
    provenance = json.loads((Path(told["results"]) / "PROVENANCE.json").read_text())
    assert (provenance["playbook"], provenance["on_other_request"]) == ("guard", "stop")
    header = json.loads(next(Path(told["results"]).glob("*.jsonl")).read_text().splitlines()[0])
    assert (header["box"], header["open"], header["events"][0]) == ("testbox", 0, 1)


def test_a_changed_block_is_found_at_its_step(ask: Asks) -> None:
    """A pure block that gives something else, and asks nothing else: named, with both values, and what changed."""
    told = ask(GUARD.replace('high: "{{ decide.high }}"', 'high: "{{ decide.to >= 4 }}"'))
    assert (told["kinds"], told["fields"]) == ({"same": 5, "changed": 1}, {"result.high": 1})  # that of n = 2
    first = told["worst"][0]["first"]
    assert (first["step"], first["class"]) == ("tell", "pure-changed")
    assert [first[side]["value"]["high"] for side in ("was", "now")] == [False, True]


def test_another_request_stops_is_assumed_or_modelled(ask: Asks) -> None:
    """With a lower limit the effect is asked something else for some: stop there, assume, or ask the user's model."""
    lower = GUARD.replace("limit: 5", "limit: 3")
    told = ask(lower)
    assert told["kinds"] == {"request-changed": 4, "same": 2}
    stopped = next(each for each in lines(told) if each["kind"] == "request-changed")
    first = stopped["first"]
    assert (first["step"], first["was"]["input"], first["now"]["input"]) == ("act", {"to": 4}, {"to": 3})
    assert (first["after"]["step"], first["after"]["class"]) == ("decide", "pure-changed")
    assumed = ask(lower, "--on-other-request", "assume")
    assert (assumed["kinds"], assumed["assumed"]) == ({"changed": 4, "same": 2}, 4)
    model = Path(ask.data).parent / "model.json"
    model.write_text(json.dumps([{"step": "act", "value": {"set": 3}}]))
    modelled = ask(lower, "--on-other-request", "model", "--model", str(model))
    assert modelled["kinds"] == {"changed": 4, "same": 2}
    assert modelled["fields"]["result.set"] == 4
    assert modelled["results"] not in (told["results"], assumed["results"])


def test_effects_more_and_less(ask: Asks) -> None:
    """One that was never asked for stops it; one that is not asked for any more is a change of its own class."""
    more = GUARD.replace("    next: [act]\n", "    next: [second]\n").replace(
        "  - step: act\n",
        "  - step: second\n    tool: {kind: python, code: 'result = 1'}\n    next: [act]\n  - step: act\n",
    )
    assert ask(more)["kinds"] == {"extra-effect": RUNS}
    less = GUARD.replace("    next: [act]\n", "    next: [tell]\n").replace("act.set", "decide.to")
    told = ask(less)
    assert told["kinds"] == {"changed": RUNS}
    assert {each["first"]["class"] for each in lines(told)} <= {"missing-effect", "decision-changed"}


def test_it_goes_on_where_it_was(ask: Asks) -> None:
    """A unit that is there is not made again; one that is gone is; two processes give the same."""
    told = ask(GUARD, check=0)
    unit = next(Path(told["results"]).glob("*.jsonl"))
    before = unit.stat().st_mtime_ns, unit.read_text()
    ask(GUARD, check=0)
    assert unit.stat().st_mtime_ns == before[0]
    unit.unlink()
    assert ask(GUARD, "--jobs", "2", check=0)["kinds"] == {"same": RUNS}
    assert unit.read_text() == before[1]


def test_one_execution_and_a_time(ask: Asks) -> None:
    """One is asked for by its id; a time in which nothing was requested, and another path, are refused in words."""
    execution = lines(ask(GUARD, check=0))[2]["execution"]
    told = ask(GUARD, execution, check=0)
    assert told["executions"] == 1
    for words in (("--to", "2001-01-01"), ("--from", "2999-01-01")):
        assert "No execution of guard" in ask(GUARD, *words, check=2)["refused"]
    assert "No execution of other" in ask(GUARD.replace("path: guard", "path: other"), check=2)["refused"]
    other = ask(GUARD.replace("path: guard", "path: other"), execution, check=2)["refused"]
    assert "is of another playbook than other" in other
    assert "A model goes with" in ask(GUARD, "--on-other-request", "model", check=2)["refused"]
    assert ask(GUARD, "--box", "test*", check=0)["executions"] == RUNS
    assert "No execution" in ask(GUARD, "--box", "pump*", check=2)["refused"]
