"""`edge run`: one execution of one file, in a scratch folder, no broker. The author's everyday command.

It starts the same runtime as everywhere, on a folder that is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge.cli.client import NoAnswerInTime, RuntimeClient
from edge.cli.inputs import EXAMPLE, file_name, positive_seconds, read_input, read_source
from edge.cli.playbook_warnings import print_warnings
from edge.cli.scratch import scratch
from edge.cli.show import story_lines
from edge.cli.story import plain_json
from edge.cli.subplaybooks import found_below
from edge.core.codec import decode
from edge.core.errors import RequestRefused, Unavailable
from edge.core.records import record
from edge.core.settings import Settings, load_settings
from playbooks.blueprint import Blueprint

_START_S: Final = 20.0
_POLL_S: Final = 0.005
_ARROW: Final = "application/vnd.apache.arrow.stream"
_CBOR: Final = "application/cbor"


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "run",
        parents=[shared],
        help="run one playbook file once, without a broker",
        description="Run one playbook file once, in a scratch folder, without a broker. Of the data folder it uses\n"
        "the keychain alone, where the playbook is granted an alias of it (`edge keychain set`).",
        epilog="exit codes: 0 completed, 1 failed, 2 refused at compile time\n\n"
        'example:\n  edge run playbooks/library/hello.yaml --input \'{"name": "Ada"}\'',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=file_name, metavar="FILE.yaml")
    parser.add_argument("--input", metavar="JSON|@FILE", help=EXAMPLE)
    parser.add_argument(
        "--with",
        dest="named",
        action="append",
        default=[],
        type=file_name,
        metavar="FILE.yaml",
        help="a playbook that this one runs, where its file does not stand beside it; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every step's result")
    parser.add_argument(
        "--timeout", type=positive_seconds, default=600.0, metavar="S", help="seconds to wait for the end"
    )
    parser.set_defaults(command=_run)


@record
class Done:
    """A run that ended: its answer as it was sent, and its log while the scratch folder is there."""

    settings: Settings
    seq: int
    found: dict[str, Any]
    status: str
    content_type: str
    payload: bytes


def _run(given: argparse.Namespace) -> int:
    from playbooks.compile import compile_playbook

    source = read_source(given.file)
    blueprint = compile_playbook(source, str(given.file))
    print_warnings(source, str(given.file), blueprint)
    for path in given.named:
        read_source(path)
    below, _ = found_below(blueprint, given.file.resolve().parent, given.named)
    payload, content_type = read_input(given.input)
    try:
        with run_once(
            blueprint, payload, content_type, timeout_s=given.timeout, below=below, data=given.data
        ) as done:
            _say(done, as_json=given.json)
            return 0 if done.status == "completed" else 1
    except RequestRefused as error:
        if not given.json:
            raise
        whole: dict[str, Any] = {"execution_id": None, "status": "refused", "result": None, "steps": {}}
        print(plain_json({**whole, "error": error.problem()}))
        return 2


@contextmanager
def run_once(
    blueprint: Blueprint,
    payload: bytes,
    content_type: str,
    *,
    timeout_s: float,
    below: Sequence[Blueprint] = (),
    data: Path | None = None,
) -> Generator[Done]:
    """Run a playbook once on a runtime of its own in a scratch folder, which is there until this is left.

    `below` are the playbooks it runs, `data` the folder whose keychain they may use. Raises RequestRefused where the
    request is not accepted, Unavailable where it does not end in time.
    """
    with scratch("edge-run-") as made:
        settings = made.settings
        if any(step.access.keychain for each in (*below, blueprint) for step in each.steps):
            # A link, so that neither the sealed file nor its key is written anywhere else.
            settings.keychain_folder.symlink_to(load_settings(data).keychain_folder)
        process = made.start("edge.runtime", "--log-level", "warning", stdin=subprocess.DEVNULL)
        with _connect(settings, process, timeout_s) as runtime:
            for each in (*below, blueprint):
                runtime.call("register", blueprint=each.data)
            execution_id = runtime.submit(blueprint.path, payload, content_type, None)
            try:
                status, kind, answer = runtime.answer()
            except NoAnswerInTime as error:
                mend = "Give it longer with --timeout; what it had done is gone with its scratch folder."
                raise Unavailable(f"It did not end within {timeout_s:g} s.", mend=mend) from error
            found = runtime.call("execution", id=execution_id)
        yield Done(settings, int(execution_id.rpartition("-")[2]), found, status, kind, answer)


def _connect(settings: Settings, process: subprocess.Popen[bytes], timeout_s: float) -> RuntimeClient:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            return RuntimeClient(settings, timeout_s)
        except Unavailable:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise Unavailable("The runtime did not start.", mend="Its last words are above.") from None
            time.sleep(_POLL_S)


def _say(done: Done, *, as_json: bool) -> None:
    found, result = done.found, answer_of(done)
    if not as_json:
        print("\n".join(story_lines(found, done.settings)))
        print(f"\nresult\n  {plain_json(result)}")
        return
    steps = {
        name: {"status": step["status"], "result": _step_result(step), "attempts": step["attempts"]}
        for name, step in found["steps"].items()
    }
    whole = {
        "execution_id": found["execution_id"],
        "status": done.status,
        "result": result,
        "steps": steps,
        "error": found["problem"],
    }
    print(plain_json(whole))


def answer_of(done: Done) -> Any:
    """The result in a run's answer, which comes in the kind of the request; a table as its rows."""
    if done.content_type == _ARROW:
        return _table_as_rows(done.payload)
    document = decode(done.payload) if done.content_type == _CBOR else json.loads(done.payload)
    return document.get("result")


def _step_result(step: dict[str, Any]) -> Any:
    output = step["output"]
    if output is None:
        return None
    if output["kind"] == "value":
        return decode(output["value"])
    if output["kind"] == "table":
        return {"table": {"rows": output["rows"], "columns": output["columns"]}}
    if output["kind"] == "large":
        return {"value": {name: output[name] for name in ("size_bytes", "preview", "selected")}}
    return {"digest": output["digest"].hex()}


def _table_as_rows(data: bytes) -> Any:
    from edge.store.arrow_stream import table_from_stream

    return table_from_stream(data).to_pylist()
