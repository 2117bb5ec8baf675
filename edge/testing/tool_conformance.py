"""What every tool kind must hold, as tests: for our kinds, and for those of other packages.

A package writes, in a test file of its own, and runs pytest:

    class TestGauge(ToolConformance):
        kind = "gauge"
        cases = (Case({"unit": "bar", "value": "{{ x }}"}, {"x": 2}, result="2 bar"),)
        failures = (Case({"unit": "?"}, result="gauge_unit"),)

The package must be installed, so that its entry points are found. Needs no box and no broker; whoever reaches a
network brings a server of its own in the cases.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import field
from importlib.metadata import entry_points
from typing import Any, ClassVar

import pyarrow as pa

from edge.core.codec import check_plain, encode
from edge.core.declared import KINDS_GROUP
from edge.core.errors import EdgeError, EvaluationFailed, ToolFailed
from edge.core.records import record
from edge.testing.lent import Lent
from edge.testing.plain import playbook
from edge.tools.registry import KINDS, runs_author_code, tool
from playbooks.kinds import kind_of
from playbooks.shape import Task

_ANY = object()


@record
class Case:
    """One run: the tool's `keys` as a playbook has them, its `inputs` and tables, the step's `spec`.

    `result` is the value or table it must give; of a failure, the problem's code.
    """

    keys: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    result: Any = _ANY

    def task(self, kind: str) -> Task:
        """The compiled task. Raises PlaybookRefused."""
        names = dict.fromkeys([*self.inputs, *self.tables], 0)
        step = {"step": "s", "input": names, "spec": dict(self.spec), "tool": {"kind": kind, **self.keys}}
        return playbook([step]).steps[0].tasks[0]


class ToolConformance:
    """The suite; give `kind` and at least one of `cases`."""

    kind: ClassVar[str] = ""
    cases: ClassVar[tuple[Case, ...]] = ()
    failures: ClassVar[tuple[Case, ...]] = ()

    def _run(self, case: Case) -> Any:
        task = case.task(self.kind)
        lent = Lent(task, case.inputs, case.tables)
        return tool(task.kind).run(task.config, lent.inputs, lent)

    def _outcome(self, case: Case) -> Any:
        try:
            return self._run(case)
        except EdgeError as error:
            return error

    def test_it_is_what_it_says(self) -> None:
        """The tool bears its kind's name, and says whether it runs an author's code."""
        assert self.cases, "give at least one case"
        known = kind_of(self.kind)
        assert known is not None, f"no installed package declares the kind {self.kind!r} ({KINDS_GROUP})"
        runs_as = known.runs_as or self.kind
        found = tool(runs_as)
        assert found.kind == runs_as
        assert isinstance(found.author_code, bool)
        assert runs_author_code(runs_as) or not found.author_code, "the registry must know it"

    def test_declaring_it_loads_no_tool(self) -> None:
        """The compiler learns of the kind without Arrow, and without the tool's own libraries."""
        if self.kind in KINDS or not any(True for _ in entry_points(group=KINDS_GROUP, name=self.kind)):
            return
        code = (
            "import sys; from importlib.metadata import entry_points; "
            f"sys.path[:0] = {sys.path!r}; "
            f"[p.load() for p in entry_points(group={KINDS_GROUP!r}, name={self.kind!r})]; "
            "print([m for m in ('pyarrow', 'numpy', 'yaml', 'jinja2') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_it_gives_what_can_be_kept(self) -> None:
        """Each case gives its result: a plain value that can be written down, or a table."""
        for case in self.cases:
            result = self._run(case)
            if not isinstance(result, (pa.Table, pa.RecordBatch)):
                encode(check_plain(result))
            if case.result is _ANY:
                continue
            equal = result.equals(case.result) if isinstance(result, pa.Table) else result == case.result
            assert equal, (case, result)

    def test_it_leaves_what_it_was_given(self) -> None:
        """Neither the config nor the inputs are changed: the next claim gets the same."""
        for case in self.cases:
            task = case.task(self.kind)
            lent = Lent(task, copy.deepcopy(dict(case.inputs)), case.tables)
            before, config = copy.deepcopy(lent.inputs), dict(task.config)
            tool(task.kind).run(task.config, lent.inputs, lent)
            assert lent.inputs == before
            assert task.config == config

    def test_pure_means_pure(self) -> None:
        """A case that is declared pure gives the same bytes twice."""
        for case in self.cases:
            if case.task(self.kind).effect == "pure":
                first, second = self._run(case), self._run(case)
                assert (
                    first.equals(second) if isinstance(first, pa.Table) else encode(first) == encode(second)
                )

    def test_it_keeps_nothing(self) -> None:
        """A run leaves no thread behind, and another case in between changes no result."""
        threads = threading.active_count()
        for case in self.cases:
            alone = self._outcome(case)
            for other in (*self.cases, *self.failures):
                self._outcome(other)
            again = self._outcome(case)
            assert type(alone) is type(again)
        assert threading.active_count() == threads

    def test_failures_are_told(self) -> None:
        """What goes wrong is a ToolFailed or EvaluationFailed: code, sentence, and a mend where it can know one."""
        for case in self.failures:
            error = self._outcome(case)
            assert isinstance(error, (ToolFailed, EvaluationFailed)), (case, error)
            problem = error.problem()
            encode(check_plain(problem))
            assert problem["message"].endswith((".", "!", "?")) or ":" in problem["message"]
            if isinstance(error, ToolFailed) and not tool(case.task(self.kind).kind).author_code:
                assert problem.get("mend"), problem
            if case.result is not _ANY:
                assert problem["code"] == case.result
