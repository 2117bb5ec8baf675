"""Everything a caller or an author can do wrong: a clear error, a recorded outcome, and the box goes on."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, Self

import pytest

from edge.core.codec import decode
from edge.core.events import ExecutionFinished, RequestRefusedNoted
from edge.core.limits import PAYLOAD_BYTES_MAX
from gateway.mqtt import BrokerAddress, Message, Settings, open_session
from tests.process.box import BOX, Box, alive

pytestmark = pytest.mark.mosquitto

ECHO = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: echo, path: bad/echo}
workflow:
  - step: echo
    tool: {kind: transform, value: "{{ workload }}"}
"""
BLOCK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: block, path: bad/block}}
workflow:
  - step: block
    spec: {{{spec}}}
    tool:
      kind: python
      code: |
{code}
"""


class Asker:
    """Publishes what it is told to and collects every answer."""

    def __init__(self, box: Box) -> None:
        self._port = int(box.settings.broker.rpartition(":")[2])
        self.heard: asyncio.Queue[tuple[dict[str, str], Any]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._session = open_session(
            "codec",
            address=BrokerAddress("127.0.0.1", self._port),
            settings=Settings(client_id="asker", clean_start=True),
            on_message=self._received,
            on_lost=lambda reason: None,
        )
        await self._session.connect()
        await self._session.subscribe([("answers/asker", 1), (f"edge/v1/{BOX}/status", 1)])
        async with asyncio.timeout(30):
            while (await self.heard.get())[1] != {"online": True}:
                pass
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def _received(self, message: Message) -> None:
        self._session.acknowledge(message)
        self.heard.put_nowait((dict(message.user_properties), _decoded(message)))

    async def ask(self, playbook: str, payload: bytes, **more: Any) -> tuple[dict[str, str], Any]:
        """The first answer to one request that is no receipt."""
        topic = more.pop("topic", f"edge/v1/{BOX}/request/asker/{playbook}")
        properties = (("request-id", str(uuid.uuid4())), *more.pop("properties", ()))
        more = {"content_type": "application/json", "response_topic": "answers/asker", **more}
        self._session.publish(topic, payload, user_properties=properties, **more)
        async with asyncio.timeout(60):
            while True:
                kind, document = await self.heard.get()
                if kind.get("kind") != "receipt":
                    return kind, document


def _decoded(message: Message) -> Any:
    cbor = message.content_type == "application/cbor"
    return decode(message.payload) if cbor else json.loads(message.payload)


def pids(box: Box) -> set[int]:
    """The daemons, which must never go down."""
    status = box.status()
    return {status["pid"], status["zygote_pid"], box.processes["gateway"].pid}


REFUSED: list[tuple[str, dict[str, Any], str, int]] = [
    ("broken JSON", {"payload": b'{"n": '}, "payload_invalid", 0x99),
    ("JSON that is no object", {"payload": b"[1, 2]"}, "payload_invalid", 0x99),
    ("a key twice", {"payload": b'{"a": 1, "a": 2}'}, "payload_invalid", 0x99),
    ("nesting without end", {"payload": b"[" * 5000}, "payload_invalid", 0x99),
    ("broken CBOR", {"payload": b"\xa1\x61", "content_type": "application/cbor"}, "payload_invalid", 0x99),
    (
        "a CBOR number that takes for ever",
        {"payload": b"\xa1\x61n\xc4\x82\x1a\x7f\xff\xff\xff\x01", "content_type": "application/cbor"},
        "payload_invalid",
        0x99,
    ),
    ("unknown content type", {"payload": b"<a/>", "content_type": "text/xml"}, "content_type_unknown", 0x99),
    ("unknown playbook", {"playbook": "bad/nope", "payload": b"{}"}, "playbook_unknown", 0x90),
    ("wrong topic", {"topic": f"edge/v1/{BOX}/request/asker", "payload": b"{}"}, "topic_invalid", 0x90),
    ("payload too large", {"payload": b" " * (PAYLOAD_BYTES_MAX + 1)}, "payload_too_large", 0x95),
    ("JSON too large", {"payload": b" " * (2 * 1024 * 1024) + b"{}"}, "payload_too_large", 0x95),
    (
        "deadline that is none",
        {"payload": b"{}", "properties": (("deadline", "soon"),)},
        "deadline_invalid",
        0x83,
    ),
    (
        "receipt that is none",
        {"payload": b"{}", "properties": (("receipt", "maybe"),)},
        "receipt_invalid",
        0x83,
    ),
]


async def test_refusals_say_why_and_are_recorded(box: Box) -> None:
    """Each refused request gets a problem document and reason code, and an event; the daemons stay up."""
    box.register(ECHO)
    before = pids(box)
    async with Asker(box) as asker:
        for name, request, code, reason in REFUSED:
            kind, document = await asker.ask(**{"playbook": "bad/echo", **request})
            assert kind["kind"] == "refusal", name
            assert document["error"]["code"] == code, (name, document)
            assert document["error"]["message"], name
            assert document["error"]["mend"], name
            assert int(kind["reason-code"]) == reason, name
        _, document = await asker.ask("bad/echo", b'{"still": "there"}')
        assert document["result"] == {"still": "there"}
    assert pids(box) == before
    noted = [event.body.code for event in box.events() if isinstance(event.body, RequestRefusedNoted)]
    assert noted == [code for _, _, code, _ in REFUSED]
    assert box.verify().whole


async def test_an_answer_never_reaches_into_the_box_topics(box: Box) -> None:
    """A response topic that would make the gateway publish a request in another's name is refused."""
    box.register(ECHO)
    async with Asker(box) as asker:
        asker._session.publish(
            f"edge/v1/{BOX}/request/asker/bad/echo",
            b"{}",
            content_type="application/json",
            response_topic=f"edge/v1/{BOX}/request/admin/bad/echo",
            user_properties=(("request-id", "evil"),),
        )
        _, document = await asker.ask("bad/echo", b"{}")
        assert document["status"] == "completed"
    codes = [event.body.code for event in box.events() if isinstance(event.body, RequestRefusedNoted)]
    assert codes == ["response_topic_refused"]


NAP = "import time\ntime.sleep(60)\nresult = 1"
RUN = "import subprocess\nresult = subprocess.run(['true']).returncode"
#: What the block is, its spec, its code, the problem's code, and a text its message holds.
BLOCKS = [
    ("raises", "timeout: 5s", "result = 1 / 0", "python_raised", "ZeroDivisionError"),
    ("sleeps past its timeout", "timeout: 300ms", NAP, "timeout", "3 times"),
    ("loops", "timeout: 300ms", "while True: pass\nresult = 1", "timeout", "0.3 s"),
    (
        "prints a megabyte",
        "timeout: 5s",
        "print('x' * 1000000)\nresult = [][1]",
        "python_raised",
        "IndexError",
    ),
    ("forks", "timeout: 5s", "import os\nresult = os.fork()", "sandbox_denied", ""),
    ("starts a process", "timeout: 5s", RUN, "sandbox_denied", ""),
    (
        "opens a socket",
        "timeout: 5s",
        "import socket\nresult = socket.socket().fileno()",
        "sandbox_denied",
        "",
    ),
    ("reads the box's files", "timeout: 5s", "result = open('/etc/hostname').read()", "sandbox_denied", ""),
    ("allocates past its limit", "memory_mb: 16", "result = len(bytearray(1 << 30))", "memory_exceeded", ""),
    (
        "kills itself",
        "timeout: 5s",
        "import os\nos.kill(os.getpid(), 9)\nresult = 1",
        "worker_lost",
        "3 times",
    ),
    ("exits", "timeout: 5s", "import os\nos._exit(3)\nresult = 1", "worker_lost", "3 times"),
    ("returns what cannot be kept", "timeout: 5s", "result = object()", "result_invalid", ""),
    ("returns too much", "timeout: 5s", "result = 'x' * 9000000", "result_too_large", "8388608"),
]


@pytest.mark.parametrize(
    ("name", "spec", "code", "problem", "text"), BLOCKS, ids=[name for name, *_ in BLOCKS]
)
def test_a_block_that_misbehaves_fails_alone(
    shared_box: Box, name: str, spec: str, code: str, problem: str, text: str
) -> None:
    """A python block that misbehaves: its caller hears what it did, its end is recorded, nothing goes down."""
    shared_box.register(ECHO)
    shared_box.register(
        BLOCK.format(spec=spec, code="\n".join(f"        {line}" for line in code.splitlines()))
    )
    before, so_far = shared_box.status(), len(shared_box.events())
    answer = shared_box.run("bad/block")
    assert answer["status"] == "failed", answer
    assert answer["error"]["code"] == problem, (name, answer)
    assert text in answer["error"]["message"]
    assert answer["error"]["step"] == "block"
    events = shared_box.events()[so_far:]
    ends = [event.body for event in events if isinstance(event.body, ExecutionFinished)]
    assert [end.status for end in ends] == ["failed"]
    assert shared_box.run("bad/echo", {"still": "there"})["result"] == {"still": "there"}
    after = shared_box.status()
    assert (after["pid"], after["zygote_pid"]) == (before["pid"], before["zygote_pid"])
    assert alive(after["zygote_pid"])
    assert shared_box.verify().whole


EXPLODES = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: explodes, path: bad/explodes}
workflow:
  - step: grow
    tool: {kind: transform, value: "{{ ('x' * n) * n }}"}
"""
ROUTES = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: routes, path: bad/routes}
workflow:
  - step: first
    tool: {kind: transform, value: {n: 1}}
    next: [{step: second, when: "{{ first.nothing > 1 }}"}]
  - step: second
    tool: {kind: noop}
"""
ROUND = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: round, path: bad/round}
workflow:
  - step: again
    tool: {kind: noop}
    next: [{step: again}]
"""


def test_expressions_that_explode_fail_their_execution(shared_box: Box) -> None:
    """An expression that would fill the memory, or asks for what is not there, ends in a recorded failure."""
    for source in (EXPLODES, ROUTES, ROUND):
        shared_box.register(source)
    grown = shared_box.run("bad/explodes", {"n": 1_000_000_000})
    assert grown["error"]["code"] == "expression_too_large", grown
    routed = shared_box.run("bad/routes")
    assert routed["error"]["code"] == "expression_undefined", routed
    turned = shared_box.run("bad/round")
    assert turned["error"]["code"] == "visits_exceeded", turned
    assert shared_box.verify().whole
