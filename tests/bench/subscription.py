"""Messages of a subscription per second: published at QoS 1, recorded, batched and carried out. Called by `main`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

from edge.cli.client import RuntimeClient
from gateway.mqtt import BrokerAddress, Session, Settings, open_session
from playbooks.documents import compile_document
from tests.bench.phases import Effort, say
from tests.bench.processes import Bench, BenchFailed, Box

_WINDOW: Final = 500
_PER_S_OF_LOAD: Final = 2_500
_TIMEOUT_S: Final = 120.0
_PLAYBOOK: Final = b"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: windows, path: bench/windows}
workflow:
  - step: figures
    tool:
      kind: arrow
      table: "{{ workload.table }}"
      ops: [{aggregate: {values: {rows: "{{ n | count }}", highest: "{{ n | max }}"}}}]
      output: row
"""
_SUBSCRIPTION: Final = b"""
apiVersion: noetl.io/v2
kind: Subscription
metadata: {name: readings, path: bench/readings}
spec:
  source: mqtt
  topics: [bench/readings/+]
  runtime: {batch: 500, timeout_ms: 200}
  dispatch: {playbook: bench/windows, batch_dispatch: true}
  limits: {max_backlog: 100000}
"""


def subscription(bench: Bench, running: Box, effort: Effort) -> dict[str, Any]:
    """From the first publish until every message's batch is settled; the box is asked for its own count."""
    count = round(effort.load_s * _PER_S_OF_LOAD)
    say(f"a subscription, {count} messages")
    with RuntimeClient(running.settings, _TIMEOUT_S) as runtime:
        for source in (_PLAYBOOK, _SUBSCRIPTION):
            runtime.call("register", blueprint=compile_document(source, "bench.yaml").data)
        asyncio.run(_publish(bench.broker.port, 1, until=lambda: _settled(runtime) > 0))
        first = runtime.call("subscription", path="bench/readings")["counts"]
        all_of_them = first["received"] + count
        started_s = time.monotonic()
        asyncio.run(_publish(bench.broker.port, count, until=lambda: True))
        published_s = time.monotonic() - started_s
        while _settled(runtime) < all_of_them:
            if time.monotonic() - started_s > _TIMEOUT_S:
                raise BenchFailed(f"Of {count} messages {_settled(runtime)} were carried out.")
            time.sleep(0.01)
        took_s = time.monotonic() - started_s
        found = runtime.call("subscription", path="bench/readings")
    if found["counts"]["received"] != all_of_them or found["counts"]["dead"]:
        raise BenchFailed(f"The subscription counts otherwise: {found['counts']}")
    return {
        "subscription_messages_per_s": count / took_s,
        "subscription_messages": count,
        "subscription_executions": found["counts"]["executions"] - first["executions"],
        "subscription_published_s": published_s,
    }


def _settled(runtime: RuntimeClient) -> int:
    found = runtime.call("subscription", path="bench/readings")
    return int(found["counts"]["received"]) - int(found["backlog"])


async def _publish(port: int, count: int, *, until: Any) -> None:
    """Publish `count` messages with _WINDOW in flight; again and again until the box says it has them."""
    session = open_session(
        "codec",
        address=BrokerAddress("127.0.0.1", port),
        settings=Settings(client_id="bench-publisher", clean_start=True),
        on_message=lambda message: None,
        on_lost=lambda reason: None,
    )
    await session.connect()
    while True:
        await _all(session, count)
        for _ in range(50):
            if until():
                await session.close()
                return
            await asyncio.sleep(0.02)


async def _all(session: Session, count: int) -> None:
    under_way: set[asyncio.Future[int]] = set()
    for n in range(count):
        if len(under_way) >= _WINDOW:
            _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        payload = json.dumps({"n": n, "celsius": 20 + n % 7}).encode()
        under_way.add(session.publish(f"bench/readings/{n % 8}", payload))
    await asyncio.wait(under_way)
