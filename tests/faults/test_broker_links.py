"""A bad link between gateway and broker: pulled, slow and lossy, reset, half-open. What was accepted ends, once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from edge.core.settings import load_settings
from tests.faults.namespaces import BROKER_ADDRESS, Cable, cable, require
from tests.process import mosquitto as broker
from tests.process.box import Box
from tests.process.callers import Asked
from tests.process.conftest import require_mosquitto
from tests.process.test_kills import PURE, check

PORT = 1883
SEED = int(os.environ.get("EDGE_TEST_SEED", "20261125"))
#: How often something happens to the link; `--faults` asks for more.
TROUBLES = 6
TROUBLES_FULL = 80
_WAIT_S = 120.0
_CONFIG = (
    ("user root\n" if os.geteuid() == 0 else "")
    + "listener {port}\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 1024\n"
    "max_queued_messages 20000\nacl_file {acl}\nlog_dest file {log}\n"
)
_RIGHTS = "pattern write edge/v1/+/request/%u/#\npattern read answers/%u\nuser gateway\ntopic readwrite #\n"


class Calling:
    """The callers' process."""

    def __init__(self, link: Cable) -> None:
        command = [*link.at_broker, sys.executable, "-m", "tests.faults.calling", str(PORT), str(SEED)]
        names = [f"c{place}" for place in range(4)]
        self._process = subprocess.Popen(
            [*command, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        self.answers, self._last = 0, ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in cast("IO[bytes]", self._process.stdout):
            self._last = line.decode()
            if self._last.strip().isdigit():
                self.answers = int(self._last)

    def more(self, count: int) -> None:
        """Return once so many more were answered: the box is at work."""
        wanted, until_s = self.answers + count, time.monotonic() + _WAIT_S
        while self.answers < wanted:
            assert time.monotonic() < until_s, f"{self.answers} answers, {wanted} wanted"
            time.sleep(0.02)  # polls a process that has no other way to say it

    def end(self) -> list[Asked]:
        """Stop asking; everything that was asked, once all of it is answered."""
        cast("IO[bytes]", self._process.stdin).close()
        try:
            assert self._process.wait(timeout=_WAIT_S) == 0
        finally:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        cast("IO[bytes]", self._process.stdout).close()
        return [Asked(**{**one, "payload": one["payload"].encode()}) for one in json.loads(self._last)]


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Cable]:
    """A cable with a mosquitto at its far end."""
    require()
    require_mosquitto()
    assert broker.BINARY is not None
    acl, config = tmp_path / "acl", tmp_path / "mosquitto.conf"
    acl.write_text(_RIGHTS)
    acl.chmod(0o700)
    config.write_text(_CONFIG.format(port=PORT, acl=acl, log=tmp_path / "mosquitto.log"))
    with cable() as made:
        process = subprocess.Popen(
            [*made.at_broker, broker.BINARY, "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield made
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def box(tmp_path: Path, link: Cable) -> Iterator[Box]:
    """A box whose gateway is at the near end."""
    made = Box(tmp_path, 1)
    file = made.data / "edge.toml"
    address = f"mqtt://gateway:x@{BROKER_ADDRESS}:{PORT}"
    file.write_text(file.read_text().replace("mqtt://127.0.0.1:1", address))
    made.settings = load_settings(made.data)
    made.started_by["gateway"] = link.at_gateway
    made.up()
    try:
        yield made
    finally:
        made.down()


def pulled(link: Cable, seconds: float) -> None:
    """A partition of some seconds; TCP bridges it."""
    link.pull()
    time.sleep(seconds)
    link.plug()


def slowed(link: Cable, seconds: float) -> None:
    """A slow link that drops packets."""
    link.slow()
    time.sleep(seconds)
    print(f"{link.dropped()} packets dropped")
    link.fast()


def reset(link: Cable, seconds: float) -> None:
    """Both ends are told that the connection is gone."""
    link.reset(link.at_gateway)


def half_open(link: Cable, seconds: float) -> None:
    """The gateway's end is gone while the cable is pulled: the broker holds on to the old connection."""
    link.pull()
    link.reset(link.at_gateway)
    time.sleep(seconds)
    link.plug()


def other_half_open(link: Cable, seconds: float) -> None:
    """The broker's end is gone, and the gateway hears of it when it sends something."""
    link.pull()
    link.reset(link.at_broker)
    time.sleep(seconds)
    link.plug()


TROUBLE: list[Callable[[Cable, float], None]] = [pulled, slowed, reset, half_open, other_half_open]


def in_trouble(box: Box, link: Cable, count: int) -> None:
    """So many troubles, one after the other, under load; then what callers heard is held against the log."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    box.register(PURE)
    calling = Calling(link)
    kinds: list[Any] = []
    for place in range(count):
        calling.more(chance.randint(1, 20))
        trouble = TROUBLE[place % len(TROUBLE)] if place < len(TROUBLE) else chance.choice(TROUBLE)
        kinds.append(trouble.__name__)
        trouble(link, chance.uniform(0.1, 3.0))
    calling.more(1)
    asked = calling.end()
    print(f"{len(asked)} requests, {sum(len(one.receipts) for one in asked)} receipts, {kinds}")
    report = box.verify()
    assert report.whole, report.problems
    check(asked, box)


def test_a_bad_link_loses_and_doubles_nothing(box: Box, link: Cable) -> None:
    """Every request is in the log once and has one result; each receipt names that execution."""
    in_trouble(box, link, TROUBLES)


@pytest.mark.faults_full
def test_a_bad_link_for_long(box: Box, link: Cable) -> None:
    """As above, eighty troubles."""
    in_trouble(box, link, TROUBLES_FULL)
