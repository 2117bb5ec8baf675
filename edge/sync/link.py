"""Over what the box reaches its centre: a class of link, by the interface of the default route.

Called by `edge-sync` before it asks the budget, and by `edge sync status`. It only reads what the kernel shows. What
it cannot tell counts as metered: bytes spared where they cost nothing are a delay, the other way round it is a bill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.core.settings import Settings
from edge.sync.budget import ETHERNET, METERED, WIFI

_ROUTES: Final = Path("/proc/net/route")
_ROUTES_6: Final = Path("/proc/net/ipv6_route")
_INTERFACES: Final = Path("/sys/class/net")
_ANYWHERE: Final = "0" * 32
#: Names that the kernel and systemd give to wired interfaces; loopback is one for a centre on the same machine.
_WIRED: Final = ("eth", "en", "lo", "br", "bond")


def link_of(settings: Settings, routes: Path = _ROUTES, interfaces: Path = _INTERFACES) -> str:
    """The class of link: as the settings say, else by the interface of the default route; "" where there is none."""
    if settings.link != "auto":
        return settings.link
    name = _default_route(routes) or (_default_route_6(_ROUTES_6) if routes == _ROUTES else "")
    return class_of(name, interfaces) if name else ""


def class_of(name: str, interfaces: Path = _INTERFACES) -> str:
    """The class of an interface: wireless ones are wifi, wired ones ethernet, all else (mobile, tunnels) metered."""
    if (interfaces / name / "wireless").exists() or (interfaces / name / "phy80211").exists():
        return WIFI
    return ETHERNET if name.startswith(_WIRED) else METERED


def _default_route(routes: Path) -> str:
    """The interface of the IPv4 route to anywhere with the lowest metric."""
    found = [
        (int(parts[6]), parts[0])
        for line in _lines(routes)[1:]
        if len(parts := line.split()) > 7 and parts[1] == parts[7] == "00000000"
    ]
    return min(found)[1] if found else ""


def _default_route_6(routes: Path) -> str:
    found = [
        (int(parts[5], 16), parts[9])
        for line in _lines(routes)
        if len(parts := line.split()) > 9 and parts[0] == _ANYWHERE and parts[1] == "00" and parts[9] != "lo"
    ]
    return min(found)[1] if found else ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except OSError:
        return []
