"""Callers in a process of their own, to be started inside a network namespace: `PORT SEED NAME…`.

A number on each line of its output says how many requests were answered so far. The end of its input stops it, and
its last line is what every request heard, as JSON. Used by test_broker_links.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

from tests.process.callers import Caller

PLAYBOOK = "kill/pure"


async def main(port: int, seed: int, names: list[str]) -> None:
    """Call until the input ends; every request that was begun is brought to its end."""
    callers = [Caller(name, port, [PLAYBOOK], seed + place, name) for place, name in enumerate(names)]
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    stopped = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not stopped.done():
        await asyncio.sleep(0.05)
        print(sum(bool(one.results) for caller in callers for one in caller.asked), flush=True)
    for caller in callers:
        caller.stopping = True
    await asyncio.gather(*tasks)
    print(
        json.dumps(
            [dataclasses.asdict(one) for caller in callers for one in caller.asked], default=bytes.decode
        )
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
