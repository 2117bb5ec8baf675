"""`edge sync push`: send all that waits to the centre, now, over HTTPS.

Called by `edge.cli.sync`. Works beside a running box and without one; Ctrl-C leaves an upload that the next call goes
on with. It must never take anything off the box but by the centre's receipt.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from edge.cli.inputs import require_log
from edge.cli.progress import Progress
from edge.cli.seal import seal
from edge.cli.story import counted
from edge.core.errors import Misconfigured
from edge.core.settings import Settings, load_settings
from edge.security.signing import SEED_BYTES, Signer
from edge.segments.cuts import read_head
from edge.store.key_file import read_or_make_key
from edge.sync import centre
from edge.sync.budget import METERED
from edge.sync.https import redeem
from edge.sync.link import link_of
from edge.sync.push import Backlog, Pushed, backlog, push
from edge.sync.ways import https_to_centre

#: What one request costs beside its body: its head and the answer, over TLS.
_REQUEST_BYTES = 900


def add(actions: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = actions.add_parser(
        "push",
        parents=[shared],
        help="send all that waits to the centre, now",
        description="Seal what is not sealed yet, and send all that the centre does not have, over HTTPS, whatever "
        "the budget says. Ctrl-C is safe: the same command goes on where it stopped.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(command=_push)


def redeemed(settings: Settings, enrolment: centre.Enrolment) -> centre.Enrolment:
    """Bring this box's key to the centre with a one-time token. Raises Misconfigured, RequestRefused, Unavailable."""
    if enrolment.box != settings.box:
        raise Misconfigured(
            f"The enrolment is for box {enrolment.box}, and this is {settings.box}.",
            mend=f'Take the right file, or set box = "{enrolment.box}" in {settings.data / "edge.toml"}.',
        )
    centre.require_same(settings, enrolment)
    return redeem(enrolment, Signer(read_or_make_key(settings.log_key_path, SEED_BYTES)))


def _push(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    require_log(settings)
    transport = https_to_centre(settings)
    if not given.dry_run:
        seal(settings)
    head = read_head(settings.sealed_folder)
    if head is None:
        print(json.dumps({"segments": 0}) if given.json else "nothing  is sealed yet")
        return 0
    try:
        due = backlog(settings, transport.state(head.log_id))
        if given.dry_run:
            return _dry_run(given, settings, due)
        with Progress(due.segments_bytes + sum(due.values.values()), "sending") as progress:
            made = push(settings, transport, head.log_id, progress)
    except KeyboardInterrupt:
        print("stopped  what was sent is at the centre; the same command goes on where it stopped")
        return 130
    finally:
        transport.close()
    return _told(given, made)


def _told(given: argparse.Namespace, made: Pushed) -> int:
    """What came of it, for a person or a program; the exit code."""
    if given.json:
        said = {"verdicts": dict(made.verdicts), "sent_bytes": made.sent_bytes, "through": made.through}
        print(json.dumps({**said, "resumed_bytes": made.resumed_bytes, "problems": made.problems}))
        return 1 if made.problems else 0
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(made.verdicts.items()))
    print(f"sent     {counts or 'nothing was waiting'}; {made.sent_bytes / 1e6:.2f} MB")
    if made.through:
        freed = counted(made.freed, "segment")
        print(f"receipt  the centre has every event up to {made.through}; {freed} left the queue")
    for problem in made.problems:
        print(f"wrong    {problem}")
    return 1 if made.problems else 0


def _dry_run(given: argparse.Namespace, settings: Settings, due: Backlog) -> int:
    """Bytes, requests and what they cost."""
    requests = len(due.parcels) + 2 * len(due.values) + 2
    size_bytes = due.segments_bytes + sum(due.values.values())
    link = link_of(settings)
    if given.json:
        said = {
            "segments": len(due.paths),
            "bytes": size_bytes,
            "values": len(due.values),
            "requests": requests,
        }
        print(json.dumps({**said, "link": link}))
        return 0
    wire = (size_bytes + requests * _REQUEST_BYTES) / 1e6
    print(f"would    send {len(due.paths)} segments and {len(due.values)} values, {size_bytes / 1e6:.2f} MB")
    print(f"requests {requests}, some {wire:.2f} MB with what goes around them")
    print("beside   what is not sealed yet, or was lost from the queue: --dry-run seals nothing")
    cost = "metered: it may cost" if link == METERED else f"{link or 'none'}"
    print(f"link     {cost}")
    for each in due.unreadable:
        print(f"wrong    {each}")
    return 0
