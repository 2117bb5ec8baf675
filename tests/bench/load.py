"""The load client's process: takes one command a line, answers one line. Started by `processes.LoadProcess`.

Owns the one connection that both the executions and the echoes of the floor go through, so that both pay the
same client. Any error, refusal, wrong result or stray answer fails the command, and with it the bench.

Commands: `open {box, payload}`, `first`, `one_by_one {count}`, `echo {count}`, `closed_loop {in_flight, seconds}`,
`paced {per_s, seconds}`, `lone`. Each answers `{…}` or `{"error": text}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.topics import request_topic, status_topic
from tests.bench import workload
from tests.bench.client import Call, ClientFailed, LoadClient, Template

ECHO_TOPIC: Final = "bench/echo"
_ANSWERS: Final = "bench/answers"
_PRINCIPAL: Final = "bench"
_PATIENCE_S: Final = 15.0
#: Every so many results one is read and compared, at least the first of each command.
_CHECK_EVERY: Final = 16


class Load:
    """Commands over one client."""

    def __init__(self, client: LoadClient) -> None:
        self._client = client
        self._online: asyncio.Event = asyncio.Event()
        self._online_ns = 0
        self._box = ""
        self._three: Template | None = None
        self._two: Template | None = None
        self._echo: Template | None = None
        self._checked = 0
        client.on_note = self._noted

    def _noted(self, topic: str, payload: bytes) -> None:
        if topic == status_topic(self._box) and json.loads(payload).get("online"):
            self._online_ns = time.monotonic_ns()
            self._online.set()

    async def open(self, box: str, payload: str) -> dict[str, Any]:
        """Aim at one box; its gateway may come later."""
        table = Path(payload).read_bytes()
        topics = [
            request_topic(box, _PRINCIPAL, path)
            for path in (workload.THREE_STEP_PATH, workload.TWO_STEP_PATH)
        ]
        self._three = Template(topics[0], table, workload.ARROW, _ANSWERS)
        self._two = Template(topics[1], workload.TWO_STEP_INPUT, workload.JSON, _ANSWERS)
        self._echo = Template(ECHO_TOPIC, table, workload.ARROW, _ANSWERS, wants_receipt=False)
        self._box = box
        self._online.clear()
        await self._client.subscribe(status_topic(box))
        return {"payload_bytes": len(table)}

    async def first(self) -> dict[str, Any]:
        """Wait until the gateway says online, then run one execution; what it asks for must be registered."""
        await asyncio.wait_for(self._online.wait(), 30)
        call = await self._one(self._three)
        self._check(call)
        return {"online_ns": self._online_ns, "result_ns": call.result_ns}

    async def one_by_one(self, count: int) -> dict[str, Any]:
        """Run executions, each after the one before: latencies from PUBLISH to receipt and to result."""
        calls = [await self._one(self._three) for _ in range(count)]
        self._check(calls[0])
        return {
            "latencies_us": [(call.result_ns - call.sent_ns) / 1000 for call in calls],
            "receipts_us": [(call.receipt_ns - call.sent_ns) / 1000 for call in calls],
        }

    async def echo(self, count: int) -> dict[str, Any]:
        """Round trips through the broker to the echo responder, one by one."""
        calls = [await self._one(self._echo) for _ in range(count)]
        return {"latencies_us": [(call.result_ns - call.sent_ns) / 1000 for call in calls]}

    async def lone(self) -> dict[str, Any]:
        """One execution of the two-step playbook: its receipt, and the sizes of what went in and came out."""
        call = await self._one(self._two)
        document = json.loads(call.result)
        if not workload.same(document["result"], workload.TWO_STEP_RESULT):
            raise ClientFailed(f"the two-step playbook answered {document}")
        return {"receipt": json.loads(call.receipt), "result": document["result"]}

    async def paced(self, per_s: float, seconds: float) -> dict[str, Any]:
        """Executions of the two-step playbook at a steady rate, earlier ones done or not; at least one."""
        assert self._two is not None
        two, client = self._two, self._client
        loop = asyncio.get_running_loop()
        drained: asyncio.Future[None] = loop.create_future()
        latencies_us: list[float] = []
        wanted = max(1, round(per_s * seconds))

        def completed(call: Call) -> None:
            latencies_us.append((call.result_ns - call.sent_ns) / 1000)
            if len(latencies_us) == wanted and not drained.done():
                drained.set_result(None)

        client.on_complete = completed
        started_s = loop.time()
        for number in range(wanted):
            await asyncio.sleep(max(0.0, started_s + number / per_s - loop.time()))
            client.send(two)
        await self._wait(drained, _PATIENCE_S)
        return {"completed": wanted, "latencies_us": latencies_us}

    async def closed_loop(self, in_flight: int, seconds: float) -> dict[str, Any]:
        """Keep so many executions in flight for so long, then wait for the rest."""
        assert self._three is not None
        three, client = self._three, self._client
        loop = asyncio.get_running_loop()
        drained: asyncio.Future[None] = loop.create_future()
        latencies_us: list[float] = []
        checked = self._checked
        end_ns = time.monotonic_ns() + int(seconds * 1e9)
        in_time = 0

        def completed(call: Call) -> None:
            nonlocal in_time
            latencies_us.append((call.result_ns - call.sent_ns) / 1000)
            if len(latencies_us) % _CHECK_EVERY == 1:
                self._check(call)
            if time.monotonic_ns() < end_ns:
                in_time += 1
                client.send(three)
            elif not client.pending and not drained.done():
                drained.set_result(None)

        client.on_complete = completed
        cpu_ns = time.process_time_ns()
        started_ns = time.monotonic_ns()
        end_ns = started_ns + int(seconds * 1e9)
        for _ in range(in_flight):
            client.send(three)
        await self._wait(drained, seconds + _PATIENCE_S)
        return {
            "completed": len(latencies_us),
            "per_s": in_time / seconds,
            "latencies_us": latencies_us,
            "checked": self._checked - checked,
            "client_cpu_us": (time.process_time_ns() - cpu_ns) / 1000,
        }

    async def _one(self, template: Template | None) -> Call:
        assert template is not None
        done: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._client.on_complete = done.set_result
        self._client.send(template)
        await self._wait(done, _PATIENCE_S)
        return done.result()

    async def _wait(self, done: asyncio.Future[Any], patience_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(done), patience_s)
        client = self._client
        if client.errors:
            raise ClientFailed("; ".join(client.errors[:5]) + f" ({len(client.errors)} in all)")
        if client.strays:
            raise ClientFailed(f"{client.strays} answers belong to no request that is open")
        if not done.done():
            missing = [call for call in client.pending.values() if not call.complete][:3]
            raise ClientFailed(f"{len(client.pending)} requests had no whole answer in time: {missing}")

    def _check(self, call: Call) -> None:
        document = json.loads(call.result)
        wanted = workload.expected(call.number)
        if not workload.same(document["result"], wanted):
            self._client.errors.append(f"a wrong result: {document}, not {wanted}")
        self._checked += 1


async def serve(port: int) -> None:
    """Run commands until stdin ends."""
    client = LoadClient()
    await client.open(port, "bench-load")
    await client.subscribe(_ANSWERS)
    load = Load(client)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            answer = await getattr(load, command.pop("do"))(**command)
        except (ClientFailed, TimeoutError) as error:
            answer = {"error": str(error) or "the box was not online in time"}
        print(json.dumps(answer), flush=True)
        gc.collect()
    client.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
