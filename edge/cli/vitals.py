"""`edge vitals`: sample this machine 20 times a second and ask the box for a verdict, window by window.

A sender like any other: it reads the sensors (edge.vitals), publishes each window over MQTT as `edge request` would,
and prints receipt and verdict. The next window is sampled while one is being answered. Must never judge: limits and
verdict are the playbook's (playbooks/library/vitals.yaml).
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from typing import Any, Final

from edge.cli.inputs import whole_number
from edge.cli.request import Reply, add_client_options, ask, broker_of
from edge.cli.story import plain_json
from edge.core.clock import SystemClock
from edge.core.errors import RequestRefused
from edge.core.records import record
from edge.core.settings import Settings, load_settings
from edge.vitals.samples import SAMPLES_PER_S, WINDOW_ROWS, WINDOW_S, Look, Sample, sample_between
from edge.vitals.sources import Sources
from gateway.topics import request_topic, response_topic

PLAYBOOK: Final = "vitals"
_PERIOD_S: Final = 1 / SAMPLES_PER_S


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "vitals",
        parents=[shared],
        help="have a running box judge this machine's own readings",
        description="Sample temperature, load, memory, disk and network 20 times a second, publish each window of "
        f"{WINDOW_ROWS} rows ({WINDOW_S:g} s) as a request, print receipt and verdict.",
        epilog="example:\n  edge playbook register playbooks/library/vitals.yaml\n  edge vitals --windows 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--windows",
        type=whole_number,
        default=1,
        metavar="N",
        help="windows to send (default 1; 0: until Ctrl-C)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each window")
    add_client_options(parser, principal="vitals", timeout_s=30.0)
    parser.set_defaults(command=_vitals)


@record
class _Answered:
    """One window with all that came back for it."""

    number: int
    request_id: str
    rows: int
    payload_bytes: int
    topic: str
    receipt: dict[str, Any] | None
    reply: Reply


class _Sampler:
    """Looks at the sensors on a grid of 50 ms; a late look is taken at once, a missed one is not made up."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._before: Look = sources.look()
        self._due_s = asyncio.get_running_loop().time()

    async def window(self) -> list[Sample]:
        """The next window: WINDOW_ROWS samples."""
        loop = asyncio.get_running_loop()
        samples: list[Sample] = []
        while len(samples) < WINDOW_ROWS:
            self._due_s = max(self._due_s + _PERIOD_S, loop.time() - _PERIOD_S)
            await asyncio.sleep(self._due_s - loop.time())
            after = self._sources.look()
            samples.append(sample_between(self._before, after))
            self._before = after
        return samples


def _vitals(given: argparse.Namespace) -> int:
    if given.windows < 0:
        raise RequestRefused("--windows cannot be negative.", mend="Give a number, or 0 for no end.")
    settings = load_settings(given.data, **({"box": given.box} if given.box else {}))
    with Sources(SystemClock()) as sources:
        return asyncio.run(_send(given, settings, sources))


async def _send(given: argparse.Namespace, settings: Settings, sources: Sources) -> int:
    """Sample and ask until all windows are answered; 0 where every execution completed."""
    address = broker_of(settings, given.broker)
    sampler = _Sampler(sources)
    exit_code = 0
    number = 0
    coming = asyncio.ensure_future(sampler.window())
    try:
        while True:
            number += 1
            samples = await coming
            last = number == given.windows
            if not last:
                coming = asyncio.ensure_future(sampler.window())
            answered = await _ask(given, settings, address, number, samples)
            print(_json(answered) if given.json else _text(answered), flush=True)
            if answered.reply.status != "completed":
                exit_code = 1
            if last:
                return exit_code
    finally:
        coming.cancel()


async def _ask(
    given: argparse.Namespace, settings: Settings, address: Any, number: int, samples: list[Sample]
) -> _Answered:
    """Publish one window and wait for its verdict. Raises RequestRefused, Unavailable."""
    from edge.vitals.window import CONTENT_TYPE, stream_of

    payload = stream_of(samples)
    request_id = str(uuid.uuid4())
    topic = request_topic(settings.box, given.principal, PLAYBOOK)
    receipts: list[Reply] = []
    reply = await ask(
        address,
        topic,
        response_topic(settings.box, given.principal, request_id),
        payload,
        CONTENT_TYPE,
        request_id,
        given.timeout,
        receipts.append,
    )
    reply.require_accepted()
    receipt = receipts[0].document() if receipts else None
    return _Answered(number, request_id, len(samples), len(payload), topic, receipt, reply)


def _json(answered: _Answered) -> str:
    return plain_json(
        {
            "window": answered.number,
            "request_id": answered.request_id,
            "rows": answered.rows,
            "payload_bytes": answered.payload_bytes,
            "receipt": answered.receipt,
            **answered.reply.document(),
        }
    )


def _text(answered: _Answered) -> str:
    document = answered.reply.document()
    size_kb = answered.payload_bytes / 1000
    lines = [] if answered.number == 1 else [""]
    lines += [f"window {answered.number}   {answered.rows} rows, {size_kb:.1f} KB, to {answered.topic}"]
    if answered.receipt is not None:
        accepted = answered.receipt["accepted"]
        lines.append(
            f"receipt    accepted as event {accepted['seq']}, execution {answered.receipt['execution_id']}"
        )
    if answered.reply.status == "completed":
        lines += verdict_lines(document["result"])
    else:
        error = document.get("error") or {}
        lines.append(f"failed     {error.get('code')}: {error.get('message')}")
    return "\n".join(lines)


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """A verdict of the vitals playbook, for people: a sentence, then every figure beside its limit."""
    if "problem" in verdict:
        return [f"verdict    none: {verdict['problem']}"]
    said = (
        "ok: no limit broken" if verdict["ok"] else f"NOT ok: over the limit: {', '.join(verdict['broken'])}"
    )
    if verdict["missing"]:
        said += f"; this machine has no {', '.join(verdict['missing'])}"
    lines = [f"verdict    {said}", f"           {'':<18}{'mean':>12}{'max':>12}{'limit':>12}"]
    for figure in verdict["figures"]:
        numbers = "".join(f"{_number(figure[name]):>12}" for name in ("mean", "max", "limit"))
        lines.append(f"           {figure['name']:<18}{numbers}{'   over' if figure['over'] else ''}")
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"
