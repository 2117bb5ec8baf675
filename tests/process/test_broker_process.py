"""`python -m gateway.embedded_broker` with outside clients: Debian's mosquitto tools and plain paho."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gateway.mqtt import IMPLEMENTATIONS, BrokerAddress, Message, Session, Settings, open_session

PATIENCE_S = 30
COMMAND = [sys.executable, "-m", "gateway.embedded_broker"]


class Running:
    """The broker as a process; what it logged can be read once it has ended."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:"), line
        self.port = int(line.rpartition(":")[2])

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, logged = self.process.communicate(timeout=PATIENCE_S)
        return logged


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end()


def tool(name: str, running: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [name, "-p", str(running.port), "-h", "127.0.0.1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_it_ends_in_good_order(running: Running) -> None:
    logged = running.end()
    assert running.process.returncode == 0
    assert logged == ""


def test_it_listens_on_loopback_only() -> None:
    done = subprocess.run([*COMMAND, "--host", "0.0.0.0"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "no access control" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(running: Running) -> None:
    command = [*COMMAND, "--port", str(running.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert str(running.port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.mosquitto
def test_mosquitto_pub_and_sub(running: Running) -> None:
    for qos in ("0", "1"):
        sent = tool(
            "mosquitto_pub", running, *("-V", "5", "-q", qos, "-r", "-t", f"kept/{qos}", "-m", "hällo"),
            *("-D", "publish", "content-type", "text/plain", "-D", "publish", "user-property", "k", "v"),
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        got = tool(
            "mosquitto_sub", running, *("-V", "5", "-q", "1", "-C", "1", "-t", "kept/#"),
            *("-F", "%t %p %q %r %C %P"),
        )  # fmt: skip
        assert got.returncode == 0, got.stderr
        assert got.stdout == f"kept/{qos} hällo {qos} 1 text/plain k:v\n"
        assert (
            tool("mosquitto_pub", running, "-V", "5", "-q", "1", "-r", "-n", "-t", f"kept/{qos}").returncode
            == 0
        )


@pytest.mark.mosquitto
def test_mosquitto_pub_with_qos_2_is_told(running: Running) -> None:
    sent = tool("mosquitto_pub", running, "-V", "5", "-q", "2", "-t", "t", "-m", "x")
    assert "QoS not supported" in sent.stderr


@pytest.mark.mosquitto
def test_a_shared_subscription_is_told(running: Running) -> None:
    got = tool("mosquitto_sub", running, "-V", "5", "-t", "$share/group/t", "-E")
    assert "denied" in got.stderr


@pytest.mark.mosquitto
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311"])
def test_older_clients_are_told_why(running: Running, version: str) -> None:
    sent = tool("mosquitto_pub", running, "-V", version, "-t", "t", "-m", "x")
    assert sent.returncode != 0
    assert "protocol version" in (sent.stdout + sent.stderr).lower()
    assert tool("mosquitto_pub", running, "-V", "5", "-t", "t", "-m", "x").returncode == 0
    logged = running.end()
    assert "this broker speaks only MQTT 5" in logged
    assert ("3.1.1" in logged) is (version == "mqttv311")


def test_paho_with_3_1_1_is_told_why(running: Running) -> None:
    told: list[str] = []
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id="old",
        protocol=MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=True,
    )
    client.on_connect = lambda client, userdata, flags, reason, properties: told.append(str(reason))
    client.connect("127.0.0.1", running.port)
    # paho answers the refusal by trying 3.1 once more, and reports that one.
    for _ in range(50):
        if told or client.loop(timeout=PATIENCE_S) != 0:
            break
    assert told == ["Unsupported protocol version"]
    client.disconnect()


@pytest.mark.mosquitto
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_request_and_response(running: Running, implementation: str) -> None:
    await answer_one_request(implementation, running.port, running.port)


@pytest.mark.mosquitto
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_request_and_response_over_mosquitto(implementation: str, mosquitto: object) -> None:
    port = mosquitto.port  # type: ignore[attr-defined]
    await answer_one_request(implementation, port, port)


async def answer_one_request(implementation: str, port: int, tool_port: int) -> None:
    received: asyncio.Queue[Message] = asyncio.Queue()
    session: Session = open_session(
        implementation,
        address=BrokerAddress("127.0.0.1", port),
        settings=Settings(client_id="answerer"),
        on_message=received.put_nowait,
        on_lost=lambda reason: None,
    )
    await session.connect()
    await session.subscribe([("ask/+", 1)])
    asking = await asyncio.create_subprocess_exec(
        "mosquitto_rr", *("-h", "127.0.0.1", "-p", str(tool_port), "-V", "5", "-q", "1"),
        *("-t", "ask/me", "-e", "answers/1", "-m", "question", "-D", "publish", "correlation-data", "c-1"),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    message = await asyncio.wait_for(received.get(), PATIENCE_S)
    assert (message.payload, message.response_topic, message.correlation) == (
        b"question",
        "answers/1",
        b"c-1",
    )
    session.acknowledge(message)
    assert await session.publish("answers/1", b"answer", correlation=message.correlation) == 0
    answer, _ = await asyncio.wait_for(asking.communicate(), PATIENCE_S)
    assert answer == b"answer\n"
    await session.close()
