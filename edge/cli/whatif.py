"""`edge whatif`: what executions of this box, or of a bundle, would have come to with another playbook.

Called by `edge.cli.main`. It also holds what `edge central whatif` shares: the question's options, and how the
results are told: a histogram of changed fields and the ten that changed most. It edits no log.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from edge.cli.inputs import positive_count, read_source, require_log
from edge.cli.replayed import number_of, wall_ns
from edge.cli.story import counted, plain_json, shorten
from edge.core.errors import RequestRefused
from edge.core.settings import load_settings
from edge.replay.derived import Asked, Derived, Unit, over, parts_of_journal, parts_of_segments
from edge.replay.difference import NO_CHANGE
from edge.replay.effects import MODEL, MODES, STOP
from edge.replay.journal_source import JournalSource

_WORST: Final = 10
_FIELDS: Final = 20
DESCRIPTION: Final = (
    "Run executions with another playbook of the same path, on what was recorded: an effect that is\n"
    "asked the same gets the recorded response. Nothing outside is asked, and no log is edited."
)
EXIT_CODES: Final = "exit codes: 0 nothing would change, 1 something would, 2 refused\n\n"


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "whatif",
        parents=[shared],
        help="what executions would have come to with another playbook",
        description=DESCRIPTION,
        epilog=EXIT_CODES
        + "examples:\n  edge whatif --playbook guard.yaml\n  edge whatif 42 --playbook guard.yaml\n"
        "  edge whatif --playbook guard.yaml --bundle /media/stick/noetl-edge-pump7-…",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="read a bundle instead of this box's log"
    )
    add_question(parser)
    parser.set_defaults(command=_whatif)


def add_question(parser: argparse.ArgumentParser) -> None:
    """The options that say what is asked."""
    parser.add_argument("execution", metavar="EXEC", nargs="?", help="one execution alone")
    parser.add_argument("--playbook", type=Path, required=True, metavar="FILE", help="the other playbook")
    parser.add_argument("--from", dest="since", metavar="TIME", help="requested at that time or later")
    parser.add_argument("--to", dest="until", metavar="TIME", help="requested at that time or before")
    parser.add_argument(
        "--on-other-request", choices=MODES, default=STOP,
        help="an effect is asked something else: stop there, assume the recorded response, or ask the model",
    )  # fmt: skip
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="JSON list of {step, task, kind, value | problem}"
    )
    parser.add_argument("--jobs", type=positive_count, default=1, metavar="N", help="processes")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _whatif(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    if given.bundle is not None:
        from edge.replay.sealed_source import (
            folder_source,  # opens segments: zstd and signatures, for this only
        )

        segments = folder_source(given.bundle)
        asked = asked_of(given, 0 if given.execution is None else number_of(given.execution, segments))
        derived = begun(settings.data, asked)
        parts, last_seq = parts_of_segments(segments, asked), segments.files[-1].last_seq
        return told(list(over(segments, parts, last_seq, asked, derived, given.jobs)), asked, derived, given)
    require_log(settings)
    journal = JournalSource(settings)
    asked = asked_of(given, 0 if given.execution is None else number_of(given.execution, journal))
    derived = begun(settings.data, asked)
    parts, last_seq = parts_of_journal(journal, asked)
    return told(list(over(journal, parts, last_seq, asked, derived, given.jobs)), asked, derived, given)


def asked_of(given: argparse.Namespace, only: int) -> Asked:
    """What is asked. Raises RequestRefused, PlaybookInvalid."""
    from playbooks.compile import compile_playbook

    blueprint = compile_playbook(read_source(given.playbook), str(given.playbook))
    if (given.on_other_request == MODEL) != (given.model is not None):
        raise RequestRefused("A model goes with --on-other-request model.", mend="Give both, or neither.")
    model = _model(given.model) if given.model is not None else ()
    since = 0 if given.since is None else wall_ns(given.since)
    until = 1 << 62 if given.until is None else wall_ns(given.until)
    return Asked(blueprint, given.on_other_request, model, since, until, only)


def _model(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        made = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestRefused(f"{path} cannot be read: {error}.", mend="It is a list in JSON.") from error
    if not isinstance(made, list) or any(
        not isinstance(each, dict) or ("value" in each) == ("problem" in each) for each in made
    ):
        raise RequestRefused(
            f"{path} is no list of effects.",
            mend='Write [{"step": "ask", "value": {"n": 1}}]; step, task and kind say of which effect.',
        )
    return tuple(made)


def begun(data: Path, asked: Asked) -> Derived:
    """Where the results are kept, made. Raises StorageFailed."""
    derived = Derived(data, asked)
    derived.begin()
    return derived


def told(units: list[Unit], asked: Asked, derived: Derived, given: argparse.Namespace) -> int:
    """Say what came out. Raises RequestRefused where nothing was asked about."""
    results = [each for unit in units for each in unit.results]
    if not results:
        derived.drop()
        if asked.only:
            raise RequestRefused(
                f"Execution {asked.only} is not in this log, or is of another playbook than {asked.blueprint.path}.",
                mend="The other playbook must have the same metadata.path: `edge replay` shows the execution.",
            )
        raise RequestRefused(
            f"No execution of {asked.blueprint.path} that was asked for is in these logs.",
            mend="The other playbook must have the same metadata.path; look at --from and --to, and at which log.",
        )
    return _print(results, units, derived, as_json=given.json)


def _print(results: list[dict[str, Any]], units: list[Unit], derived: Derived, *, as_json: bool) -> int:
    kinds = Counter(each["kind"] or "same" for each in results)
    fields = Counter(path for each in results for path in each["fields"])
    worst = sorted((each for each in results if each["kind"] == "changed"), key=_weight, reverse=True)[
        :_WORST
    ]
    changed = any(each["kind"] not in NO_CHANGE for each in results)
    told = {
        "executions": len(results), "kinds": kinds, "fields": dict(fields.most_common()), "worst": worst,
        "open": sum(unit.open for unit in units), "timeless": sum(unit.timeless for unit in units),
        "assumed": sum(each["assumed"] for each in results), "results": str(derived.folder),
    }  # fmt: skip
    if as_json:
        print(plain_json(told))
        return 1 if changed else 0
    print(f"executions {len(results)}: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}")
    if told["assumed"]:
        print(f"assumed    {told['assumed']} answers that were never given to that request")
    most = max(fields.values(), default=1)
    for path, count in fields.most_common(_FIELDS):
        print(f"  {path:<32} {count:>8}  {'#' * max(1, round(30 * count / most))}")
    for each in worst or [each for each in results if each["kind"] not in ("", "changed")][:_WORST]:
        first = each["first"] or {}
        at = f"step {first['step']}" if "step" in first else first.get("what", "")
        print(f"{each['execution']}  {each['kind']}  {first.get('class', '')} {at}".rstrip())
        if "step" in first:
            for side, word in (("was", "recorded"), ("now", "now     ")):
                print(f"  {word} {shorten(plain_json(first.get(side)))}")
    print(f"results    {counted(len(units), 'unit')} in {derived.folder}")
    return 1 if changed else 0


def _weight(each: dict[str, Any]) -> tuple[int, float]:
    """How much changed: how many fields, then how far numbers moved."""
    far = 0.0
    for was, now in each["fields"].values():
        if isinstance(was, int | float) and isinstance(now, int | float):
            far = max(far, abs(now - was) / max(abs(was), 1e-9))
    return len(each["fields"]), far
