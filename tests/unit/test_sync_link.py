"""Over which class of link the box reaches its centre."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.errors import Misconfigured
from edge.core.settings import Settings, load_settings
from edge.sync.link import link_of

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def _route(name: str, metric: int, destination: str = "00000000", mask: str = "00000000") -> str:
    return f"{name}\t{destination}\t0102A8C0\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ([_route("eth0", 100), _route("wwan0", 700)], "ethernet"),
        ([_route("wlan0", 600), _route("wwan0", 700)], "wifi"),
        ([_route("enp1s0", 900), _route("wwan0", 700)], "metered"),
        ([_route("wg0", 0)], "metered"),
        ([_route("eth0", 0, "0000A8C0", "00FFFFFF")], ""),
        ([], ""),
    ],
)
def test_the_default_route_says_the_class(tmp_path: Path, routes: list[str], said: str) -> None:
    """The route to anywhere with the lowest metric decides; what nobody knows is metered."""
    (tmp_path / "route").write_text(HEAD + "".join(routes))
    (tmp_path / "net" / "wlan0" / "wireless").mkdir(parents=True)
    box = Settings(tmp_path, "box")
    assert link_of(box, tmp_path / "route", tmp_path / "net") == said


def test_what_is_set_goes_before_what_is_seen(tmp_path: Path) -> None:
    """A modem that looks like a cable is called metered by a person; a class that there is not is refused by name."""
    (tmp_path / "edge.toml").write_text('link = "metered"\n')
    assert link_of(load_settings(tmp_path), tmp_path / "none") == "metered"
    (tmp_path / "edge.toml").write_text('link = "lte"\n')
    with pytest.raises(Misconfigured, match="lte"):
        load_settings(tmp_path)
