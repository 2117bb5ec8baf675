"""Two network namespaces with a cable between them: a gateway in one, a broker in the other.

Used by test_broker_links.py, as root only. What it does to the link is the kernel's own: the cable is pulled, made so
slow and short of memory that packets are dropped, or connections are reset. Nothing outside the two is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

BROKER_ADDRESS: Final = "10.99.7.2"
_GATEWAY_ADDRESS: Final = "10.99.7.1"
#: A link that carries some 20 packets a second and forgets what it cannot queue: TCP's own retransmission is at work.
_SLOW: Final = ("tbf", "rate", "64kbit", "burst", "1600", "limit", "1700")


def require() -> None:
    """Skip where this machine has no namespaces, or they are not ours to make; under CI=true that is a failure."""
    why = ""
    if os.geteuid() != 0:
        why = "only root makes network namespaces"
    elif missing := [name for name in ("ip", "tc", "ss") if shutil.which(name) is None]:
        why = f"not installed: {', '.join(missing)} (apt install iproute2)"
    elif subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        why = "this kernel gives no network namespaces"
    if why:
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)


class Cable:
    """The link, and what may happen to it."""

    def __init__(self) -> None:
        self.gateway, self.broker = f"edge-gw-{os.getpid()}", f"edge-br-{os.getpid()}"
        #: In front of a command that is to run on either side.
        self.at_gateway = ["ip", "netns", "exec", self.gateway]
        self.at_broker = ["ip", "netns", "exec", self.broker]

    @staticmethod
    def _do(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    def lay(self) -> None:
        """Both namespaces, and the cable."""
        for name in (self.gateway, self.broker):
            self._do("ip", "netns", "add", name)
            self._do("ip", "-n", name, "link", "set", "lo", "up")
        ends = ("near", "type", "veth", "peer", "name", "far", "netns", self.broker)
        self._do("ip", "-n", self.gateway, "link", "add", *ends)
        for name, end, address in (
            (self.gateway, "near", _GATEWAY_ADDRESS),
            (self.broker, "far", BROKER_ADDRESS),
        ):
            self._do("ip", "-n", name, "addr", "add", f"{address}/24", "dev", end)
            self._do("ip", "-n", name, "link", "set", end, "up")

    def take_away(self) -> None:
        """As it was before."""
        for name in (self.gateway, self.broker):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def pull(self) -> None:
        """Nothing passes, and nobody is told."""
        self._do("ip", "-n", self.broker, "link", "set", "far", "down")

    def plug(self) -> None:
        """Everything passes again."""
        self._do("ip", "-n", self.broker, "link", "set", "far", "up")

    def slow(self) -> None:
        """Little passes in either direction, and what waits too long is dropped."""
        for side, end in ((self.at_gateway, "near"), (self.at_broker, "far")):
            self._do(*side, "tc", "qdisc", "replace", "dev", end, "root", *_SLOW)

    def fast(self) -> None:
        """As before."""
        for side, end in ((self.at_gateway, "near"), (self.at_broker, "far")):
            self._do(*side, "tc", "qdisc", "del", "dev", end, "root")

    def dropped(self) -> int:
        """How many packets the slow link has dropped."""
        count = 0
        for side in (self.at_gateway, self.at_broker):
            told = subprocess.run(
                [*side, "tc", "-s", "qdisc"], capture_output=True, text=True, check=True
            ).stdout
            count += sum(int(part.split(",")[0]) for part in told.split("dropped ")[1:])
        return count

    def reset(self, side: list[str]) -> None:
        """Connections over the cable are aborted on this side; where it is plugged in, the other one hears of it."""
        peer = BROKER_ADDRESS if side is self.at_gateway else _GATEWAY_ADDRESS
        self._do(*side, "ss", "-K", "dst", peer)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """A cable, taken away afterwards whatever happens."""
    made = Cable()
    try:
        made.lay()
        yield made
    finally:
        made.take_away()
