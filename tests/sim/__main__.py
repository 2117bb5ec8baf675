"""`python -m tests.sim --seed N --steps M`: run seeds, print what happened, end with 1 where a claim did not hold.

A seed gives the same run every time: the digest at the end of its line says so. Without --seed a random one is taken.
`--plant` lets a bug in, to see that the run turns red.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Final

from tests.sim import planted
from tests.sim.virtual_time import SimLoop
from tests.sim.work import HOUR_S
from tests.sim.world import World

_HEAL_S: Final = 24 * HOUR_S
_HEAL_ROUNDS: Final = 40


async def act(world: World) -> None:
    """One step: something happens, or nothing does for a while."""
    chance, life = world.chance, world.life
    what = chance.choices(
        (
            "ask",
            "publish",
            "call",
            "rest",
            "kill",
            "cut",
            "refuse",
            "gateway",
            "sleep",
            "jump",
            "sync",
            "stop",
            "look",
            "centre",
        ),
        (30, 20, 6, 20, 3, 3, 2, 4, 2, 2, 3, 1, 5, 5),
    )[0]
    if what == "ask":
        world.ask()
    elif what == "publish":
        world.publish()
    elif what == "call":
        world.call_back()
    elif what in ("kill", "cut") and life is not None:
        getattr(world, what)()
    elif what == "refuse":
        world.disk.refuses = True
    elif what == "gateway" and world.gateway.connected:
        world.gateway.disconnect()
        if life is not None:
            world._connect(life)
    elif what == "sleep":
        world.tell("sleep")
        world.clock.sleep(chance.expovariate(1 / HOUR_S))
    elif what == "jump":
        world.tell("jump")
        world.clock.jump(chance.choice([-1, 1]) * chance.choice([5, 3_600, 315_360_000]))
    elif what == "sync":
        world.clock.synchronise()
    elif what == "stop" and life is not None:
        await world.stop()
    elif what == "look" and life is not None:
        life.look()
        if world.chance.random() < 0.3:  # the end comes in the midst of it
            await world.loop.pass_s(world.chance.expovariate(1 / 0.05))
            if world.life is not None:
                getattr(world, world.chance.choice(["kill", "cut"]))()
    elif what == "centre":
        world.store_upstream()
    # Bursts, and hours in which nothing happens.
    usual_s = chance.choice([0.001, 0.01, 0.01, 1.0, 60.0, 1_200.0])
    await world.loop.pass_s(chance.expovariate(1 / usual_s))


async def heal(world: World) -> None:
    """Nothing goes wrong any longer: everything that was accepted must end."""
    world.calm, world.disk.refuses = True, False
    world.clock.synchronise()
    for _ in range(_HEAL_ROUNDS):
        for _ in range(24):
            await world.loop.pass_s(_HEAL_S / 24)
            world.store_upstream()
            world.checks.step()
            if world.checks.all_ended():
                return
    open_still = [each.name for each in world.asked.values() if each.answer is None]
    raise AssertionError(f"not ended after {_HEAL_ROUNDS} calm days: {open_still}")


async def play(world: World, steps: int) -> None:
    """A whole run. Raises AssertionError."""
    with world.machine():
        await world.furnish()
        for _ in range(steps):
            await act(world)
            world.checks.step()
        await heal(world)
        assert world.life is not None
        await world.stop()
        world.checks.end()


def run(number: int, steps: int) -> tuple[World, BaseException | None]:
    """One seed; the world as it was left, and what did not hold."""
    random.seed(number)
    loop = SimLoop()
    failure: BaseException | None = None
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failed.append(context))
    with tempfile.TemporaryDirectory(prefix="edge-sim-") as folder:
        world = World(Path(folder), number, loop)
        task = loop.create_task(play(world, steps))
        try:
            while not task.done() and not failed:
                loop.run_until_complete(asyncio.wait([task], timeout=60))
            if failed:
                failure = failed[0].get("exception") or RuntimeError(failed[0]["message"])
            elif task.exception() is not None:
                failure = task.exception()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(BaseException):
                    loop.run_until_complete(task)
            if world.life is not None:
                world.life.leave()
            loop.close()
    return world, failure


def told(number: int, steps: int) -> bool:
    """Run one seed and say how it went."""
    began_s = time.process_time()
    world, failure = run(number, steps)
    days = world.clock.true_ns / 1e9 / 86_400
    counts = ", ".join(f"{count} {what}" for what, count in sorted(world.counts.items()))
    said = "ok" if failure is None else "FAILED"
    took_s = time.process_time() - began_s
    digest = world.told.hexdigest()[:12]
    print(
        f"seed {number}: {said}, {days:.1f} days of a box in {took_s:.1f} CPU s, {counts}; {digest}",
        flush=True,
    )
    if failure is not None:
        traceback.print_exception(failure, file=sys.stdout)
        print(f"again: python -m tests.sim --seed {number} --steps {steps}", flush=True)
    return failure is None


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description="A seeded simulation of a whole box."
    )
    parser.add_argument("--seed", type=int, help="the first seed (default: a random one)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other (default: 1)")
    parser.add_argument("--steps", type=int, default=400, help="what happens in each (default: 400)")
    parser.add_argument("--plant", choices=sorted(planted.BUGS), help="let a bug in, to see the run turn red")
    given = parser.parse_args()
    first = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    if given.plant is not None:
        planted.BUGS[given.plant]()
    results = [told(first + place, given.steps) for place in range(given.seeds)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is chance, too
        again = [sys.executable, "-m", "tests.sim", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
