"""What a bare name in an expression means, decided while compiling; and which values a step therefore reads.

The same order as `playbooks.scope`, with one help: the names of steps, inputs and `set` values are known
here, so a step's name that nothing else bears is bound to that step's result for good. Called by the
compiler only.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from edge.core.records import record
from playbooks.nodes import RESERVED_NAMES
from playbooks.refusal import NodeList, OutcomeNode, Refused

_TOOL_ONLY: Final = ("input", "input_data")
#: Names of a running pipeline, in its tools and policies.
_PIPELINE: Final = ("_prev", "_task", "_attempt", "iter")
#: NoETL's names that have a meaning there and none here yet.
_LATER: Final = {
    "keychain": "It is there in the inputs and tools of a step that is granted an alias.",
    "iter": "It is there inside a tool and its policy.",
    "loop": "It is there inside the tools of a step with a loop.",
    "_first": "It is there inside the tools of a step with a loop.",
    "_last": "It is there inside the tools of a step with a loop.",
    "outcome": "It is there in `set`, in arcs and in task policies.",
    "output": "It is there in `set`, in arcs and in task policies.",
    "_prev": "It is there inside a tool and its policy; elsewhere use the step's own name for its result.",
    "_task": "It is there inside a tool and its policy.",
    "_attempt": "It is there inside a tool and its policy.",
    "callback": "It is there in the tools of a step with a `wait` task that has callback: true.",
    "event": "`event` is only there in an arc's `when`.",
    "vars": "Use `set:` and `ctx`.",
}
#: NoETL's names for what has another one here, as nodes: nobody has to put them into a scope.
_INDEX: Final[NodeList] = ["name", "_index"]
_FIRST: Final[NodeList] = ["cmp", _INDEX, [["==", ["const", 0]]]]
_LAST: Final[NodeList] = ["cmp", _INDEX, [["==", ["bin", "-", ["name", "_total"], ["const", 1]]]]]
_OF_LOOP: Final[dict[str, NodeList]] = {
    "_first": _FIRST,
    "_last": _LAST,
}
_OF_OUTPUT: Final[dict[str, NodeList]] = {
    "error": ["attr", ["name", "output"], "error"],
    "result": OutcomeNode(["attr", ["name", "output"], "result"]),
}
_EXECUTION: Final[NodeList] = ["name", "execution_id"]
_JOB: Final[NodeList] = ["dict", "id", _EXECUTION, "uuid", _EXECUTION, "execution_id", _EXECUTION]


@record
class Known:
    """The names of one playbook: its steps, what its `set` blocks write, its workload's keys."""

    steps: Collection[str]
    ctx: Collection[str]
    workload: Collection[str]
    #: Aliases of the keychain that it declares, with their kinds.
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Reads:
    """What one step's templates mention."""

    steps: set[str] = field(default_factory=set)
    workload: bool = False
    ctx: bool = False
    output: bool = False
    #: The iteration, which may be that of the execution above.
    iter: bool = False


class Names:
    """Resolves the bare names of one step's templates and notes what they read.

    `inputs` are the step's input names inside its tool, None elsewhere. `event` is the boundary event in whose light
    an arc is compiled (`step.ended`: done or failed), None outside arcs; `output` is true where the step's own
    outcome may be looked at; `gate` in admission rules, which are asked before results are at hand.
    `tasks` are the labels of the pipeline whose tool this is, `rule` is true in its policy, `iteration`
    are the names its loop gives each item, `inside` is true where `iter` is there without a loop or pipeline (it has
    `parent`, the iteration that ran this playbook), `callback` is true in the tools of a step that waits for one,
    `keychain` where credentials may be read.
    """

    def __init__(
        self,
        known: Known,
        reads: Reads,
        *,
        inputs: Collection[str] | None = None,
        event: str | None = None,
        output: bool = False,
        gate: bool = False,
        tasks: Collection[str] = (),
        rule: bool = False,
        iteration: Collection[str] = (),
        inside: bool = False,
        callback: bool = False,
        keychain: bool = False,
    ) -> None:
        self._known, self._reads, self._inputs = known, reads, inputs
        self._event, self._output, self._gate = event, output or event is not None, gate
        self._tasks, self._rule, self._iteration, self._callback = tasks, rule, iteration, callback
        self._keychain = keychain and not rule
        self._inside = inside

    def resolve(self, name: str, offset: int) -> NodeList:
        """The node of a bare name. Raises Refused where it can mean nothing."""
        if name in RESERVED_NAMES:
            return self._reserved(name, offset)
        if self._inputs is not None and name in self._inputs:
            return ["name", name]
        if name in self._iteration or (name in _PIPELINE and self._tasks):
            self._reads.iter |= name == "iter"
            return OutcomeNode(["name", name]) if name == "_prev" else ["name", name]
        if name == "iter" and self._inside and not self._shared(name):
            self._reads.iter = True
            return ["name", name]
        if name in _OF_LOOP and "_index" in self._iteration:
            return copy.deepcopy(_OF_LOOP[name])
        if (name == "callback" and self._callback) or (name == "keychain" and self._keychain):
            return ["name", name]
        if name in ("output", "outcome") and self._rule:
            return ["name", "output"]
        if name == "error" and self._rule and not self._shared(name):
            return copy.deepcopy(_OF_OUTPUT[name])
        if name in self._tasks and name not in self._known.steps:
            return OutcomeNode(["name", name])
        shared = self._shared(name)
        if name in self._known.steps:
            if self._gate:
                mend = "Put what it asks for into `ctx` with the earlier step's `set`."
                raise Refused(offset, f"Admission cannot look at the result of {name!r}.", mend)
            self._reads.steps.add(name)
            if not shared:
                return OutcomeNode(["step", name])
        elif not shared and name in ("output", "outcome") and self._output:
            self._reads.output = True
            return ["name", "output"]
        elif not shared and name in _OF_OUTPUT and self._output:
            self._reads.output = True
            return copy.deepcopy(_OF_OUTPUT[name])
        elif not shared and name == "job":
            return copy.deepcopy(_JOB)
        elif not shared and name == "event" and self._event is not None:
            return self._event_node(self._event)
        elif name in _LATER and not shared:
            raise Refused(offset, f"The name {name!r} means nothing here.", _LATER[name])
        self._reads.workload = True
        self._reads.ctx |= name in self._known.ctx
        return ["name", name]

    def _shared(self, name: str) -> bool:
        return name in self._known.workload or name in self._known.ctx

    def _event_node(self, event: str) -> NodeList:
        """The boundary event is known while compiling, but for what went wrong, and which of two it is."""
        if event not in ("step.failed", "step.ended"):
            return ["dict", "name", ["const", event]]
        self._reads.output = True
        failed: NodeList = ["dict", "name", ["const", "step.failed"]]
        failed += ["error", ["attr", ["name", "output"], "error"]]
        if event == "step.failed":
            return failed
        broken: NodeList = ["cmp", ["attr", ["name", "output"], "status"], [["==", ["const", "error"]]]]
        return ["if", broken, failed, ["dict", "name", ["const", "step.done"]]]

    def _reserved(self, name: str, offset: int) -> NodeList:
        if name in _TOOL_ONLY and self._inputs is None:
            raise Refused(
                offset, f"{name!r} is only there inside a tool.", "Use `workload`, `ctx` or a step's name."
            )
        self._reads.workload |= name == "workload"
        self._reads.ctx |= name == "ctx"
        return ["name", name]
