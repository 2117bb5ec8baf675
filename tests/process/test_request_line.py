"""A request through real parts, asked by Debian's own clients as outsiders."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from typing import Any

import pytest

from edge.core.events import ExecutionRequested
from tests.process.box import BOX, Box

pytestmark = pytest.mark.mosquitto

HELLO = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: hello, path: demo/hello}
workload: {name: world}
workflow:
  - step: greet
    tool:
      kind: python
      code: |
        result = {"greeting": "Hello, " + args["name"]}
      input: {name: "{{ name }}"}
"""


@pytest.fixture
def hello(box: Box) -> Box:
    """A box with a playbook that greets."""
    box.register(HELLO)
    wait_until_serving(box)
    return box


def wait_until_serving(box: Box) -> None:
    """Return once the gateway's retained status says that it is online."""
    done = subprocess.run(
        [*client("mosquitto_sub", box), "-t", f"edge/v1/{BOX}/status", "-C", "1", "-W", "30"],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    assert json.loads(done.stdout) == {"online": True}


def client(name: str, box: Box, version: str = "5") -> list[str]:
    """One of Debian's clients with the broker's address."""
    port = box.settings.broker.rpartition(":")[2]
    return [name, "-h", "127.0.0.1", "-p", port, "-V", version]


def test_rr_without_receipt_gets_the_result(hello: Box) -> None:
    """`mosquitto_rr -V 5` with user property receipt=none gets the result as its one answer."""
    done = subprocess.run(
        [*client("mosquitto_rr", hello), "-t", f"edge/v1/{BOX}/request/ada/demo/hello", "-e", "answers/ada"]
        + [
            "-D",
            "publish",
            "user-property",
            "receipt",
            "none",
            "-m",
            '{"name": "Ada"}',
            "-W",
            "20",
            "-q",
            "1",
        ],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["status"] == "completed"
    assert answer["result"] == {"greeting": "Hello, Ada"}


def subscribe(box: Box, version: str, topic: str, count: int) -> subprocess.Popen[str]:
    """A mosquitto_sub that has its subscription when this returns."""
    # Into a pipe it would keep its words back until its end; stdbuf makes it speak line by line.
    listen = ["stdbuf", "-oL", *client("mosquitto_sub", box, version)]
    process = subprocess.Popen(
        [*listen, "-t", topic, "-C", str(count), "-W", "20", "-q", "1", "-d"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "SUBACK" in line:
            return process
    raise AssertionError("mosquitto_sub ended before it subscribed")


def documents(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a mosquitto_sub printed until its end, decoded."""
    assert process.stdout is not None
    with process:
        return [json.loads(line) for line in process.stdout if line.startswith("{")]


def test_sub_gets_receipt_and_result_in_v5(hello: Box) -> None:
    """A v5 publisher with a response topic gets `accepted` first, then the result."""
    listener = subscribe(hello, "5", "answers/bob", 2)
    publish = [*client("mosquitto_pub", hello), "-t", f"edge/v1/{BOX}/request/bob/demo/hello", "-q", "1"]
    properties = ["-D", "publish", "response-topic", "answers/bob"]
    properties += [
        "-D",
        "publish",
        "user-property",
        "request-id",
        "r-1",
        "-D",
        "publish",
        "correlation-data",
        "c-1",
    ]
    subprocess.run([*publish, *properties, "-m", '{"name": "Bob"}'], timeout=20, check=True)
    receipt, result = documents(listener)
    assert receipt["status"] == "accepted"
    assert receipt["accepted"]["seq"] > 0
    assert len(receipt["accepted"]["link"]) == 64
    assert receipt["request_id"] == "r-1"
    assert result["execution_id"] == receipt["execution_id"]
    assert result["result"] == {"greeting": "Hello, Bob"}


def test_sub_gets_receipt_and_result_in_v311(hello: Box) -> None:
    """A 3.1.1 publisher puts its request id into the topic and hears on the fixed topic."""
    listener = subscribe(hello, "311", f"edge/v1/{BOX}/response/eve/r-2", 2)
    topic = f"edge/v1/{BOX}/call/eve/r-2/demo/hello"
    subprocess.run(
        [*client("mosquitto_pub", hello, "311"), "-t", topic, "-q", "1", "-m", '{"name": "Eve"}'],
        timeout=20,
        check=True,
    )
    receipt, result = documents(listener)
    assert receipt["status"] == "accepted"
    assert result["result"] == {"greeting": "Hello, Eve"}


def test_the_same_request_id_is_one_execution(hello: Box) -> None:
    """Asked again with the same id: the same execution, its recorded result, one request in the log."""
    request_id = str(uuid.uuid4())
    arguments = ["request", "demo/hello", "--input", '{"name": "Ada"}', "--id", request_id]
    first = json.loads(hello.edge(*arguments).stdout)
    second = json.loads(hello.edge(*arguments).stdout)
    assert first == second
    requested = [event for event in hello.events() if event.type == "playbook.execution.requested"]
    assert len(requested) == 1


def test_the_same_request_id_with_another_payload_is_refused(hello: Box) -> None:
    """An id stands for one request: another payload under it is `request_id_reused`."""
    hello.edge("request", "demo/hello", "--input", '{"name": "Ada"}', "--id", "twice")
    refused = hello.edge("request", "demo/hello", "--input", '{"name": "Bob"}', "--id", "twice", check=2)
    assert "was used before" in refused.stderr


def test_cbor_is_answered_in_cbor_and_the_story_is_told(hello: Box, tmp_path: Any) -> None:
    """A CBOR payload passes unopened and comes back as CBOR; show, log and cache commands work beside it."""
    import cbor2

    path = tmp_path / "input.cbor"
    path.write_bytes(cbor2.dumps({"name": "Cleo"}))
    answer = json.loads(hello.edge("request", "demo/hello", "--input", f"@{path}").stdout)
    assert answer["result"] == {"greeting": "Hello, Cleo"}
    shown = hello.edge("show", answer["execution_id"]).stdout
    assert "greet" in shown
    assert "completed" in shown
    assert "whole" in hello.edge("log", "verify").stdout
    assert "budget" not in hello.edge("cache", "stat").stderr
    assert "demo/hello" in hello.edge("playbook", "list").stdout


def test_a_request_that_the_broker_kept_runs_once(hello: Box) -> None:
    """A request published with the retain flag runs when it comes, and not again whenever the gateway comes back."""
    topic = f"edge/v1/{BOX}/request/ada/demo/hello"
    subprocess.run(
        [*client("mosquitto_pub", hello), "-t", topic, "-m", '{"name": "Ada"}', "-r", "-q", "1"],
        timeout=40,
        check=True,
    )
    ask(hello, "Zoe")  # messages are acknowledged in order: the broker has ours for the first by now
    hello.kill("gateway", signal.SIGTERM)
    hello.start("gateway")  # the broker keeps its session: what is asked meanwhile waits there
    ask(hello, "Bob")
    requested = [event.body for event in hello.events() if isinstance(event.body, ExecutionRequested)]
    assert [body.payload for body in requested] == [
        b'{"name": "Ada"}',
        b'{"name": "Zoe"}',
        b'{"name": "Bob"}',
    ]


def ask(box: Box, name: str) -> None:
    """One request, and its answer waited for."""
    topic = f"edge/v1/{BOX}/request/ada/demo/hello"
    given = ["-t", topic, "-e", "answers/ada", "-m", json.dumps({"name": name}), "-q", "1"]
    given += ["-D", "publish", "user-property", "receipt", "none", "-W", "20"]
    subprocess.run([*client("mosquitto_rr", box), *given], capture_output=True, timeout=40, check=True)
