"""`edge playbook test`: a playbook's cases, run on the real engine without a broker and without waiting.

Called by `edge.cli.main` through the group `edge playbook`. The cases are read here and run in a process of their own
(`edge.rehearsal`) on a scratch folder that is removed afterwards; nothing outside is reached.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from edge.cli.inputs import file_name, read_source
from edge.cli.rehearsal_child import rehearse
from edge.cli.story import plain_json
from edge.core.errors import RequestRefused
from edge.rehearsal.compare import differences

_HELP: Final = """\
Run a playbook's cases: NAME.test.yaml beside NAME.yaml.

  cases:
    - case: a hot day is an alarm
      input: {device: d1}
      effects:                            # what tools that reach outside gave; they are not run
        - {step: fetch, value: {celsius: 41}}
      expect: {status: completed, path: [fetch, judge, alarm], result_has: {alarm: true}}

Real engine, sandboxed workers, virtual time: hours of waiting pass at once. A wait for a callback gets its effect's
value. A credential that a block reads is made up here: keychain: {api: {token: not-the-real-one}}. Every key:
playbooks/REFERENCE.md.
"""


def add(actions: Any, shared: argparse.ArgumentParser) -> None:
    """Add the action to `edge playbook`."""
    test = actions.add_parser(
        "test",
        parents=[shared],
        help="run a playbook's cases, without a broker and without waiting",
        description=_HELP,
        epilog="exit codes: 0 all as expected, 1 some are not, 2 refused\n\n"
        "example:\n  edge playbook test playbooks/library/hello.yaml\n"
        "  edge playbook test p.yaml --record 'a hot day' --input '{\"device\": \"d1\"}'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    test.add_argument(
        "files", nargs="+", type=file_name, metavar="FILE", help="playbooks, their NAME.test.yaml, or folders"
    )
    test.add_argument("--json", action="store_true", help="one JSON object for each case")
    test.add_argument(
        "--record", metavar="CASE", help="run FILE for real, once, and add what happened as this case"
    )
    test.add_argument("--input", metavar="JSON|@FILE", help="the input of the run that is recorded")
    test.set_defaults(command=_test)


def _test(given: argparse.Namespace) -> int:
    if given.record is not None:
        from edge.cli.playbook_record import record_case

        if len(given.files) != 1:
            raise RequestRefused("--record takes one playbook.", mend="Name one FILE.yaml.")
        return record_case(given.files[0], given.record, given.input, given.data)
    if given.input is not None:
        raise RequestRefused(
            "--input is of a run that is recorded.", mend="Add --record CASE, or write `input` into the case."
        )
    failed = 0
    for path in _files(given.files):
        failed += _run_file(path, as_json=given.json)
    return 1 if failed else 0


def _files(paths: list[Path]) -> list[Path]:
    """The files of cases that are meant. Raises RequestRefused where there are none."""
    from playbooks.cases import ENDING

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob(f"*{ENDING}"))
            if not inside:
                raise RequestRefused(f"{path} holds no file that ends in {ENDING}.", mend="Write one.")
            found += inside
            continue
        beside = path if path.name.endswith(ENDING) else path.with_name(path.stem + ENDING)
        if not beside.exists():
            read_source(path)  # what is not there needs no cases
            mend = f"Write {beside.name}, or record a case with --record."
            raise RequestRefused(f"{path} has no cases: there is no {beside}.", mend=mend)
        found.append(beside)
    return found


def _run_file(path: Path, *, as_json: bool) -> int:
    """Run the cases of one file; how many are not as expected."""
    from playbooks.cases import ENDING, read_cases
    from playbooks.compile import compile_playbook

    read = read_cases(read_source(path), str(path))
    name = read.playbook or path.name.removesuffix(ENDING) + ".yaml"
    playbook = path.parent / name
    blueprint = compile_playbook(read_source(playbook), str(playbook))
    runs = rehearse([(blueprint.data, case) for case in read.cases])
    failed = 0
    for case, run in zip(read.cases, runs, strict=True):
        found = differences(case.expect, run)
        failed += bool(found)
        if as_json:
            print(
                plain_json(
                    {"file": str(path), "case": case.name, "ok": not found, "differences": found, "run": run}
                )
            )
            continue
        print(f"{path}:{case.line}: {'not as expected' if found else 'ok'}: {case.name}")
        for line in found:
            print(f"    {line}")
    if not as_json:
        print(f"{path}: {len(runs) - failed} of {len(runs)} as expected")
    return failed
