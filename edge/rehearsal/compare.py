"""What a case expected beside what came, as lines for people.

Called by the command line. Pure; it must never look at a clock or a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: More differences of one case than this help nobody.
DIFFERENCES_MAX: Final = 20
_TEXT_MAX: Final = 200
_ABSENT: Final = object()


def differences(expect: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Every way in which a run is not as expected; empty where it is. `expect` as `playbooks.cases` reads it."""
    found = list(_all(expect, run))
    if len(found) > DIFFERENCES_MAX:
        return [*found[:DIFFERENCES_MAX], f"and {len(found) - DIFFERENCES_MAX} more"]
    return found


def _all(expect: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    for each in run.get("missing", ()):
        yield _missing(each)
    for each in run.get("unused", ()):
        yield f"an effect was never asked for: {_text(each)}"
    if "path" in expect:
        yield from _path(expect["path"], run.get("path", []))
    yield from _outcome("", expect, run)
    if "ctx" in expect:
        yield from _beside("ctx", expect["ctx"], run.get("ctx", {}), more=True)
    steps = run.get("steps", {})
    for name, wanted in expect.get("steps", {}).items():
        step = steps.get(name)
        if wanted.get("status") == "absent" or step is None:
            if (wanted.get("status") == "absent") != (step is None):
                yield f"step {name}: expected {wanted.get('status', 'it to run')}, got {_status(step)}"
            continue
        yield from _outcome(f"step {name}: ", wanted, step)


def _missing(each: Mapping[str, Any]) -> str:
    """Which effect a case lacks, and the line that would give it."""
    where = f"the {each['kind']} tool {each['task']} of step {each['step']}"
    line = {key: each[key] for key in ("step", "task", "visit", "item") if key in each}
    said = ", ".join(f"{key}: {value}" for key, value in line.items())
    mend = f"add {{{said}, value: …}} under `effects`, or record a case with --record"
    if "had" not in each:
        return f"no effect is recorded for {where}: {mend}"
    return (
        f"the recorded effects of {where} are used up ({each['had']}), and it asks on without an end: {mend}"
    )


def _status(step: Mapping[str, Any] | None) -> str:
    return "absent" if step is None else str(step["status"])


def _outcome(where: str, expect: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    """Of the run, or of one step."""
    problem = run.get("problem") or {}
    if "status" in expect and expect["status"] != run.get("status"):
        said = " ".join(filter(None, (problem.get("message"), problem.get("mend"))))
        because = f" ({problem.get('code')}: {said})" if problem else ""
        yield f"{where}status: expected {expect['status']}, got {run.get('status')}{because}"
    if "problem" in expect and expect["problem"] != problem.get("code"):
        said = f"{problem['code']}: {problem.get('message')}" if problem else "none"
        yield f"{where}problem: expected {expect['problem']}, got {said}"
    for key in ("result", "result_has"):
        if key not in expect:
            continue
        if "kept" in run:
            yield f"{where}result: it is {run['kept']}; look at a later step's result instead"
        else:
            yield from _beside(f"{where}result", expect[key], run.get("result"), more=key == "result_has")


def _path(wanted: list[str], came: list[str]) -> Iterator[str]:
    if wanted == came:
        return
    place = next(
        (n for n, (one, other) in enumerate(zip(wanted, came, strict=False)) if one != other),
        min(len(wanted), len(came)),
    )
    one = wanted[place] if place < len(wanted) else "the end"
    other = came[place] if place < len(came) else "the end"
    yield f"path: expected {' → '.join(wanted) or 'no step'}"
    yield f"      got      {' → '.join(came) or 'no step'}"
    yield f"      at step {place + 1}: expected {one}, got {other}"


def _beside(where: str, wanted: Any, came: Any, *, more: bool) -> Iterator[str]:
    """Two values side by side; where `more`, maps that came may hold further keys."""
    if isinstance(wanted, dict) and isinstance(came, dict):
        for key, value in wanted.items():
            yield from _beside(f"{where}.{key}", value, came.get(key, _ABSENT), more=more)
        if not more:
            for key in came.keys() - wanted.keys():
                yield f"{where}.{key}: not expected, got {_text(came[key])}"
    elif isinstance(wanted, list) and isinstance(came, list):
        for place, (one, other) in enumerate(zip(wanted, came, strict=False)):
            yield from _beside(f"{where}[{place}]", one, other, more=more)
        if len(wanted) != len(came):
            yield f"{where}: expected {len(wanted)} elements, got {len(came)}"
    elif not _same(wanted, came):
        yield f"{where}: expected {_text(wanted)}, got {_text(came)}"


def _same(wanted: Any, came: Any) -> bool:
    """Equal, a whole number being equal to the same number with a point, but not to true or false."""
    if isinstance(wanted, bool) or isinstance(came, bool):
        return wanted is came
    return bool(wanted == came)


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
