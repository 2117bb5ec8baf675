"""A log recorded on aarch64 means the same on this machine, and where their arithmetic differs it is known.

The same requests to a box on each processor; then the log of the emulated one is read by this machine's programs. As
root: scripts/test tests/faults/test_other_processors.py --emulated (apt install --no-install-recommends
qemu-user-static binfmt-support debootstrap).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import ExecutionRequested, StepDone
from edge.sync.bundle import MANIFEST
from playbooks.compile import compile_playbook
from tests.faults.emulated import EmulatedBox, make_root, require
from tests.process.box import Box

pytestmark = pytest.mark.emulated

SEEDS = range(8)
#: Numbers from a seed, and what templates, Python's mathematics and Arrow make of them.
_DRAW = """
  - step: draw
    tool:
      kind: python
      libs: {pa: pyarrow, random: random, math: math}
      input: {seed: "{{ workload.seed }}"}
      code: |
        chance = random.Random(seed)
        x = [chance.uniform(-50, 50) for _ in range(500)]
        wave = [math.sin(a) * math.exp(a / 50) for a in x]
        result = pa.table({"x": x, "wave": wave, "kind": [int(a) % 5 for a in x]})
"""
SAME = f"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: same, path: same}}
workflow:{_DRAW}    next: [figures]
  - step: figures
    tool:
      kind: arrow
      table: "{{{{ draw }}}}"
      ops:
        - aggregate:
            by: [kind]
            values:
              rows: "{{{{ x | count }}}}"
              total: "{{{{ wave | sum }}}}"
              mean: "{{{{ x | mean }}}}"
              highest: "{{{{ wave | max }}}}"
      output: rows
    next: [verdict]
  - step: verdict
    tool:
      kind: transform
      value: {{rows: "{{{{ figures }}}}", third: "{{{{ (figures[0].total / 3) | round(7) }}}}"}}
"""
#: Where libraries leave the last bit to the processor.
LAST_BIT = f"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: last_bit, path: last_bit}}
workflow:{_DRAW}    next: [spread]
  - step: spread
    tool:
      kind: arrow
      table: "{{{{ draw }}}}"
      ops: [{{aggregate: {{values: {{variance: "{{{{ x | variance }}}}", stddev: "{{{{ wave | stddev }}}}"}}}}}}]
      output: row
"""

#: By playbook: what it is registered and requested by.
DIGESTS = {
    name: compile_playbook(source.encode(), "test.yaml").digest
    for name, source in (("same", SAME), ("last_bit", LAST_BIT))
}


def record(box: Box) -> dict[str, list[Any]]:
    """Ask a box everything; the results by playbook, in the order of SEEDS. The box is down afterwards."""
    box.start("runtime")
    for source in (SAME, LAST_BIT):
        box.register(source)
    results: dict[str, list[Any]] = {"same": [], "last_bit": []}
    for name, found in results.items():
        for seed in SEEDS:
            answer = box.run(name, {"seed": seed}, 300)
            assert answer["status"] == "completed", answer
            found.append(answer["result"])
    box.kill("runtime", 15)
    return results


def outputs(box: Box, playbook: str) -> list[tuple[object, ...]]:
    """What each step of its executions came to, as it stands in the log: a value, or a digest."""
    executions = [
        event.execution
        for event in box.events()
        if isinstance(event.body, ExecutionRequested) and event.body.digest == DIGESTS[playbook]
    ]
    return [
        (event.step, event.body.value, event.body.table and event.body.table.digest, event.body.digest)
        for event in box.events()
        if event.execution in executions and isinstance(event.body, StepDone)
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmulatedBox, Box, Any, Any]]:
    """A box on each processor, both down, and what they answered."""
    require()
    make_root()
    there = EmulatedBox(tmp_path_factory.mktemp("there"), centre=True)
    here = Box(tmp_path_factory.mktemp("here"), 1, centre=True)
    try:
        yield there, here, record(there), record(here)
    finally:
        there.down()
        here.down()


def test_both_processors_come_to_the_same(recorded: tuple[EmulatedBox, Box, Any, Any]) -> None:
    """Templates, Python's sin and exp, Arrow's sums, means and groups: every step's output is equal, to the bit."""
    there, here, answered_there, answered_here = recorded
    assert answered_there["same"] == answered_here["same"]
    assert outputs(there, "same") == outputs(here, "same")
    assert len(outputs(here, "same")) == 3 * len(SEEDS)


def test_where_they_differ_it_is_the_last_bit(recorded: tuple[EmulatedBox, Box, Any, Any]) -> None:
    """Arrow's variance and deviation may differ in the last bits, never more; how many do is said (pytest -rP)."""
    _, _, there, here = recorded
    pairs = [
        (name, a[name], b[name])
        for a, b in zip(there["last_bit"], here["last_bit"], strict=True)
        for name in ("variance", "stddev")
    ]
    for name, a, b in pairs:
        assert math.isclose(a, b, rel_tol=1e-14), (name, a, b)
    print(f"{sum(a != b for _, a, b in pairs)} of {len(pairs)} differ")


def test_its_log_is_read_here_as_there(recorded: tuple[EmulatedBox, Box, Any, Any], tmp_path: Path) -> None:
    """Chain, segments, signatures and states of the emulated box's log are right by this machine's programs too."""
    there, *_ = recorded
    assert there.verify().whole
    state = json.loads(there.edge("replay", "--all", "--json").stdout)
    assert state == json.loads(there.edge_there("replay", "--all", "--json", "--data", "/box"))
    stick, centre = tmp_path / "stick", str(tmp_path / "centre")
    stick.mkdir()
    exported = json.loads(there.edge("bundle", "export", str(stick), "--json", "--same-drive").stdout)
    there.edge("bundle", "verify", exported["folder"])
    carried = json.loads(there.edge("replay", "--all", "--bundle", exported["folder"], "--json").stdout)
    assert carried["digest"] == state["digest"]
    key = json.loads((Path(exported["folder"]) / MANIFEST).read_text())["key"]
    there.edge("central", "enrol", there.settings.box, key, "--data", centre)
    assert (
        "receipt  up to event" in there.edge("central", "import", exported["folder"], "--data", centre).stdout
    )


def run_again(box: Box, playbook: str, *words: str) -> list[dict[str, Any]]:
    """What `edge replay --rerun` says of each execution, on this machine."""
    made = [
        box.edge("replay", "--rerun", str(event.seq), "--json", *words, check=None)
        for event in box.events()
        if isinstance(event.body, ExecutionRequested) and event.body.digest == DIGESTS[playbook]
    ]
    assert len(made) == len(SEEDS)
    return [json.loads(done.stdout) for done in made]


def test_its_executions_run_again_here(recorded: tuple[EmulatedBox, Box, Any, Any]) -> None:
    """Each block run again in this machine's sandbox comes to what it came to there; a last bit that does not is
    named at its step, and a declared tolerance makes it a class of its own."""
    there, *_ = recorded
    for told in run_again(there, "same"):
        assert told["same"], told
        assert told["digest"] == told["recorded"], told
    varied = [told for told in run_again(there, "last_bit") if not told["same"]]
    print(f"{len(varied)} of {len(SEEDS)} differ")
    for told in varied:
        first = told["differences"][0]
        assert (first["step"], first["kind"]) == ("spread", "pure-changed"), first
    for told in run_again(there, "last_bit", "--tolerance", "1e-14"):
        assert {each["kind"] for each in told["differences"]} <= {"within-tolerance"}, told
