"""`edge doctor`: is this machine fit to be a box, and is this box well? One line each, with the mend.

Runs every check of `edge.doctor`, beside a running box or without one; what a check may not look at is a finding of
its own. Must never mend anything, and never say a secret.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from edge.cli.client import NoAnswerInTime, RuntimeClient
from edge.cli.inputs import whole_number
from edge.cli.request import broker_of
from edge.cli.story import plain_json
from edge.core.errors import EdgeError, Unavailable
from edge.core.settings import BROKER_VARIABLE, Settings, load_settings

if TYPE_CHECKING:  # the checks themselves are imported when they are run: no other command pays for them
    from edge.doctor.findings import Finding

_RUNTIME_S: Final = 5.0


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "doctor",
        parents=[shared],
        help="check drive, clock, power, broker, kernel and the rest",
        description="Check whether this machine is fit to be a box: one line each, and how to mend it.\n"
        "Exit code 1 where something fails; a warning is none.",
        epilog="examples:\n  edge doctor\n  sudo -u edge EDGE_BROKER=mqtt://user:password@host edge doctor "
        "--data /var/lib/edge\n  edge doctor --json\n\n"
        "Does the drive keep what it flushed when the plug is pulled? With a second machine that notes numbers:\n"
        "  there:  nc -l 7070 | tee acks            (some: nc -l -p 7070)\n"
        "  here:   edge doctor --drive-test THERE:7070     and pull the plug while it runs\n"
        "  after:  edge doctor --drive-check NUMBER        with the last whole line of acks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--broker", metavar="URL", help="mqtt://[user:password@]host[:port] (default: the box's)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    plug = parser.add_mutually_exclusive_group()
    plug.add_argument(
        "--drive-test", metavar="HOST:PORT", help="write and tell numbers until the plug is pulled"
    )
    plug.add_argument(
        "--drive-check",
        metavar="NUMBER",
        type=whole_number,
        help="after it: is all up to there on the drive?",
    )
    parser.set_defaults(command=_doctor)


def _doctor(given: argparse.Namespace) -> int:
    from edge.doctor.findings import FAIL

    broker = given.broker or os.environ.get(BROKER_VARIABLE)
    settings = load_settings(given.data, **({"broker": broker} if broker else {}))
    findings = [_plug(settings, given)] if _is_plug(given) else list(_findings(settings))
    failed = any(finding.grade == FAIL for finding in findings)
    if given.json:
        rows = [
            {"subject": each.subject, "grade": each.grade, "says": each.says, "mend": each.mend}
            for each in findings
        ]
        print(plain_json({"data": str(settings.data), "well": not failed, "findings": rows}))
    else:
        for each in findings:
            print(f"{each.grade:<5} {each.subject:<12} {each.says} {each.mend}".rstrip())
    return 1 if failed else 0


def _is_plug(given: argparse.Namespace) -> bool:
    return given.drive_test is not None or given.drive_check is not None


def _plug(settings: Settings, given: argparse.Namespace) -> Finding:
    from edge.cli import doctor_plug

    if given.drive_test is not None:
        return doctor_plug.write(settings, given.drive_test)
    return doctor_plug.check(settings, given.drive_check)


def _findings(settings: Settings) -> Iterable[Finding]:
    """Every finding, in the order in which a person would ask: the drive, the machine, the box."""
    from edge.doctor import drive, machine

    runtime, serving = _runtime(settings)
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("file system", lambda: drive.file_systems(settings)),
        ("flush", lambda: [drive.flush(settings)]),
        ("free space", lambda: drive.space(settings)),
        ("log", lambda: [drive.log(settings)]),
        ("log's size", lambda: drive.budget(settings)),
        ("mirror", lambda: drive.mirror(settings)),
        ("clock", lambda: [_clock(settings)]),
        ("power", lambda: [machine.power()]),
        ("memory", lambda: [machine.memory(settings, serving=serving)]),
        ("kernel", lambda: [machine.kernel()]),
        ("serial", machine.serial),
        ("versions", lambda: [machine.versions()]),
        ("runtime", lambda: [runtime]),
        ("broker", lambda: _broker(settings)),
    )
    for subject, check in checks:
        yield from _looked_at(subject, check)


def _looked_at(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """A check's findings, or that it could not look."""
    from edge.doctor.findings import fail

    try:
        return list(check())
    except EdgeError as error:
        return [fail(subject, error.message, error.mend or "See what the box's processes logged.")]
    except OSError as error:
        where = error.filename or "something there"
        return [
            fail(subject, f"{where}: {error.strerror}.", "Run this as the user who runs the box, or as root.")
        ]


def _clock(settings: Settings) -> Finding:
    from edge.doctor import drive, machine

    try:
        newest = drive.newest_group(settings)
    except (EdgeError, OSError):  # told of the log already
        newest = None
    return machine.clock(log_ended=newest.context.at if newest is not None else None)


def _runtime(settings: Settings) -> tuple[Finding, bool]:
    """What a running runtime says, and whether there is one."""
    from edge.doctor.findings import fail, ok

    try:
        with RuntimeClient(settings, _RUNTIME_S) as runtime:
            status = runtime.call("status")
    except NoAnswerInTime:
        return fail("runtime", "it is there and does not answer.", "See its log, then start it again."), True
    except Unavailable:
        return ok("runtime", f"none serves {settings.data} at the moment."), False
    except EdgeError as error:
        return fail("runtime", error.message, error.mend or "See its log."), True
    says = f"serves box {status['box']} with version {status['version']}, {status['open']} executions open."
    return ok("runtime", says), True


def _broker(settings: Settings) -> list[Finding]:
    from edge.doctor import broker

    try:
        address = broker_of(settings, None)
    except Unavailable:
        return [broker.none_is_set()]
    return asyncio.run(broker.check(address, settings.box))
