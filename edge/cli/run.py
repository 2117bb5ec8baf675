"""`edge run`: one execution of one file, in a scratch folder, no broker. The author's everyday command.

It starts the same runtime as everywhere, on a folder that is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from edge.cli.client import NoAnswerInTime, RuntimeClient
from edge.cli.inputs import EXAMPLE, positive_seconds, read_input
from edge.cli.playbook import read_source
from edge.cli.show import story_lines
from edge.cli.story import plain_json, tell
from edge.core.codec import decode
from edge.core.errors import EdgeError, RequestRefused, Unavailable
from edge.core.settings import Settings, load_settings

_START_S: Final = 20.0
_POLL_S: Final = 0.005
_ARROW: Final = "application/vnd.apache.arrow.stream"
_CBOR: Final = "application/cbor"


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "run",
        help="run one playbook file once, without a broker",
        description="Run one playbook file once, in a scratch folder, without a broker.",
        epilog="exit codes: 0 completed, 1 failed, 2 refused at compile time\n\n"
        'example:\n  edge run playbooks/library/hello.yaml --input \'{"name": "Ada"}\'',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.yaml")
    parser.add_argument("--input", metavar="JSON|@FILE", help=EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print one JSON object with every step's result")
    parser.add_argument(
        "--timeout", type=positive_seconds, default=600.0, metavar="S", help="seconds to wait for the end"
    )
    parser.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    from playbooks.compile import compile_playbook

    blueprint = compile_playbook(read_source(given.file), str(given.file))
    payload, content_type = read_input(given.input)
    scratch = Path(tempfile.mkdtemp(prefix="edge-run-"))
    settings = load_settings(scratch)
    process = _start_runtime(settings)
    try:
        with _connect(settings, process, given.timeout) as runtime:
            runtime.call("register", blueprint=blueprint.data)
            try:
                execution_id = runtime.submit(blueprint.path, payload, content_type, None)
            except RequestRefused as error:
                return _say_refused(error, as_json=given.json)
            try:
                status, kind, answer = runtime.answer()
            except NoAnswerInTime as error:
                mend = "Give it longer with --timeout; what it had done is gone with its scratch folder."
                raise Unavailable(f"It did not end within {given.timeout:g} s.", mend=mend) from error
            found = runtime.call("execution", id=execution_id)
        _say(found, status, kind, answer, settings, as_json=given.json)
        return 0 if status == "completed" else 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def _start_runtime(settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edge.runtime", "--data", str(settings.data), "--log-level", "warning"]
    environment = {name: value for name, value in os.environ.items() if name != "EDGE_DATA"}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)


def _connect(settings: Settings, process: subprocess.Popen[bytes], timeout_s: float) -> RuntimeClient:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            return RuntimeClient(settings, timeout_s)
        except Unavailable:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise Unavailable("The runtime did not start.", mend="Its last words are above.") from None
            time.sleep(_POLL_S)


def _say_refused(error: EdgeError, *, as_json: bool) -> int:
    if as_json:
        problem = error.problem()
        print(
            plain_json(
                {"execution_id": None, "status": "refused", "result": None, "steps": {}, "error": problem}
            )
        )
    else:
        print(f"edge: {error}", file=sys.stderr)
    return 2


def _say(
    found: dict[str, Any], status: str, kind: str, answer: bytes, settings: Settings, *, as_json: bool
) -> None:
    result = _result(kind, answer)
    if not as_json:
        tell(story_lines(found, settings))
        print(f"\nresult\n  {plain_json(result)}")
        return
    steps = {
        name: {"status": step["status"], "result": _step_result(step), "attempts": step["attempts"]}
        for name, step in found["steps"].items()
    }
    whole = {
        "execution_id": found["execution_id"],
        "status": status,
        "result": result,
        "steps": steps,
        "error": found["problem"],
    }
    print(plain_json(whole))


def _result(kind: str, answer: bytes) -> Any:
    """An answer comes in the kind of the request."""
    if kind == _ARROW:
        return _table_as_rows(answer)
    document = decode(answer) if kind == _CBOR else json.loads(answer)
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
