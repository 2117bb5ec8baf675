"""Stand-ins for tools that reach outside: answered from what the case recorded, never run.

Owned by the stage. A task with a stand-in is compiled as it is and then put into the clothes of a wait, the one kind
whose outcome a runtime brings about by itself: so policies, loops and the log treat it like any other task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import decode
from edge.core.events import CallbackReceived
from edge.core.loop_state import Waiting
from edge.core.values import Credential
from edge.replay.shield import masked
from edge.runtime.dispatch.secrets import Secrets
from edge.runtime.running.live import Live, Place
from edge.runtime.waiting.hosted import Hosted, HostedKind, HostedOutcome
from playbooks.blueprint import Blueprint, encode_blueprint
from playbooks.shape import CONFIG_TREES, FOREIGN_TREES

#: Kinds that reach nothing: they are run, in a sandboxed worker, unless the case records what they gave.
RUN_HERE: Final = frozenset({"arrow", "noop", "python", "sql", "transform", "wait"})
_MARK: Final = "stand_in_for"
#: The last effect of a tool answers all its further runs, in one run of a pipeline so often: twice as many times as a
#: policy may retry. A tool that asks on then goes by an answer that never comes. Each run of a pipeline's task goes
#: with all that was recorded before it, so that five times as many take twenty times as long.
REPEATS_MAX: Final = 200
#: It then fails so often, and no longer.
_FAILURES_MAX: Final = 200
#: What kind of credential has a field of that name.
_KIND_BY: Final = {"token": "bearer", "password": "basic", "api_key": "api_key"}


def with_stand_ins(blueprint: Blueprint, effects: list[dict[str, Any]]) -> Blueprint:
    """The blueprint with a stand-in for each task that writes, reaches outside or has a recorded effect."""
    body = dict(decode(blueprint.data))
    recorded = {(effect["step"], effect["task"]) for effect in effects}
    body["steps"] = [_step(step, recorded) for step in body["steps"]]
    del body["version"]
    return Blueprint.decode(encode_blueprint(body))


def _step(step: dict[str, Any], recorded: set[tuple[str, str | None]]) -> dict[str, Any]:
    tasks = [_in_clothes(task) if _stands_in(step, task, recorded) else task for task in step["tasks"]]
    alone = all(task is not was for task, was in zip(tasks, step["tasks"], strict=True))
    return {**step, "tasks": tasks, "input": masked(step["input"]) if alone else step["input"]}


def _stands_in(step: dict[str, Any], task: dict[str, Any], recorded: set[tuple[str, str | None]]) -> bool:
    known = (step["name"], task["name"]) in recorded or (step["name"], None) in recorded
    return task["effect"] == "write" or (task["effect"] != "pure" and (known or task["kind"] not in RUN_HERE))


def _in_clothes(task: dict[str, Any]) -> dict[str, Any]:
    """A task as a wait that says what it stands for. It touches nothing, so it is granted nothing."""
    trees = CONFIG_TREES.get(task["kind"], FOREIGN_TREES)
    config: list[Any] = ["dict"]
    for key, value in task["config"].items():
        if key in trees and value is not None:
            config += [key, masked(value)]
    seconds = ["dict", _MARK, ["const", task["kind"]], "config", config]
    clothes = {"callback": False, "after_power_loss": "fire"}
    if task["kind"] == "wait":  # one that waits for a callback goes on giving its step a token
        clothes = task["config"]
    waits = {"kind": "wait", "config": {**clothes, "seconds": seconds, "until": None}}
    return {**task, **waits, "input": masked(task["input"]), "auth": None, "access": None}


class Recorded(Secrets):
    """The keychain of a rehearsal: the credentials that the case gives, by alias."""

    def __init__(self, keychain: Mapping[str, dict[str, str]]) -> None:
        super().__init__(None)
        self._opened = {alias: Credential(_kind(fields), fields) for alias, fields in keychain.items()}
        self._why = "the case gives it no value (keychain: {alias: {token: …}} beside `input`)"


def _kind(fields: Mapping[str, str]) -> str:
    """The kind of a credential with these fields."""
    return next((kind for field, kind in _KIND_BY.items() if field in fields), "map")


class StandIns:
    """The kind `wait` of a rehearsal: real waits, and tasks in their clothes."""

    def __init__(self, hosted: Hosted, waits: HostedKind, effects: list[dict[str, Any]]) -> None:
        self._hosted, self._waits = hosted, waits
        self._effects = [{**effect, "used": 0} for effect in effects]
        self._repeats: dict[tuple[Any, ...], int] = {}
        #: `{step, task, kind}` of runs that the case has no effect for, with `visit` and `item` where they have one;
        #: `had` is how many effects of it were used up before, where there were any.
        self.missing: list[dict[str, Any]] = []

    def begin(self, live: Live, place: Place, config: Mapping[str, Any]) -> None:
        """Answer at once, or wait as a real wait does."""
        said = config.get("seconds")
        if not isinstance(said, dict) or _MARK not in said:
            self._waits.begin(live, place, config)
            return
        effect = self._take(place)
        if effect is None:
            problem = self._absent(place, said[_MARK])
            if self._repeats[_run_of(place)] <= REPEATS_MAX + _FAILURES_MAX:
                self._hosted.settle(place, HostedOutcome(problem=problem))
            return  # else its policy goes in a circle on failures too: it waits, so that the case comes to rest
        self._hosted.settle(place, HostedOutcome(effect.get("value"), problem=effect.get("problem")))

    def _absent(self, place: Place, kind: str) -> dict[str, Any]:
        """Note that the case has no effect for this run; why the task fails."""
        missing: dict[str, Any] = {"step": place.step, "task": place.task, "kind": kind}
        missing |= {"visit": place.visit} if place.visit else {}
        missing |= {"item": place.item} if place.item is not None else {}
        had = sum(_fits(effect, place) for effect in self._effects)
        if had:
            missing["had"] = had
        if missing not in self.missing:
            self.missing.append(missing)
        return {
            "code": "no_effect_recorded",
            "message": f"The case does not say what {kind} tool {place.task} of step {place.step} gave.",
            "mend": "Add it under `effects`, or record a case with --record.",
        }

    def _take(self, place: Place) -> dict[str, Any] | None:
        """The effect of this run: those that fit in order, the last one for further runs, but not for ever."""
        fitting = [effect for effect in self._effects if _fits(effect, place)]
        found = next((effect for effect in fitting if not effect["used"]), None)
        if found is None:
            key = _run_of(place)
            self._repeats[key] = self._repeats.get(key, 0) + 1
            found = fitting[-1] if fitting and self._repeats[key] <= REPEATS_MAX else None
        if found is not None:
            found["used"] += 1
        return found

    def unused(self) -> list[dict[str, Any]]:
        """Effects that nothing asked for."""
        keys = ("step", "task", "visit", "item")
        return [
            {key: effect[key] for key in keys if effect[key] is not None}
            for effect in self._effects
            if not effect["used"]
        ]

    def asked(self) -> list[int]:
        """How often each effect answered, in the order of the case."""
        return [effect["used"] for effect in self._effects]

    def take_up(self, live: Live, place: Place, waiting: Waiting) -> None:
        """Part of HostedKind; a rehearsal has no restart."""
        self._waits.take_up(live, place, waiting)

    def drop(self, place: Place) -> None:
        """Nobody waits for this any longer."""
        self._waits.drop(place)

    def due(self, waiting: Waiting, callbacks: tuple[CallbackReceived, ...]) -> tuple[int, int | None] | None:
        """Part of HostedKind: only real waits take time."""
        return self._waits.due(waiting, callbacks)


def _run_of(place: Place) -> tuple[Any, ...]:
    """A task in one run of its step's pipeline."""
    return place.step, place.task, place.visit, place.item


def _fits(effect: Mapping[str, Any], place: Place) -> bool:
    said = {"step": place.step, "task": place.task, "visit": place.visit, "item": place.item}
    return all(effect[key] is None or effect[key] == value for key, value in said.items())
