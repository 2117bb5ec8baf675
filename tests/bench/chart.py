"""Charts of a run as SVG, from its JSON document. Pure: text in, text out. Called by `main` with `--svg FOLDER`.

Plain SVG 1.1 without scripts or fonts, so that a browser, a README and a printer show the same. One hue for what is
measured, grey for what it is compared with; every bar carries its number, so that nobody has to read an axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

from tests.bench.studies.lines import log_name

_WIDTH: Final = 720
_LEFT: Final = 190
_RIGHT: Final = 190
_TOP: Final = 64
_ROW: Final = 30
_BAR: Final = 18
_OWN, _OTHER, _TEXT, _QUIET, _PAPER = "#1f6feb", "#9aa4b2", "#1b1f24", "#5b6570", "#ffffff"
_FACE: Final = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its value, the number as people read it, whether it is this box's own."""

    name: str
    value: float
    said: str
    own: bool = True


def bars(title: str, note: str, rows: Sequence[Bar]) -> str:
    """A chart of horizontal bars from zero on, in the given order."""
    height = _TOP + _ROW * len(rows) + 16
    most = max((row.value for row in rows), default=0.0) or 1.0
    room = _WIDTH - _LEFT - _RIGHT
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' role='img' {_FACE}>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{_WIDTH}' height='{height}' fill='{_PAPER}'/>",
        _text(16, 26, title, 16, _TEXT, weight="600"),
        _text(16, 46, note, 12, _QUIET),
    ]
    for place, row in enumerate(rows):
        top = _TOP + place * _ROW
        middle = top + _BAR / 2 + 4
        width = max(1.0, row.value / most * room)
        colour = _OWN if row.own else _OTHER
        parts += [
            _text(_LEFT - 10, middle, row.name, 12, _TEXT, anchor="end"),
            f"<rect x='{_LEFT}' y='{top}' width='{width:.1f}' height='{_BAR}' rx='2' fill='{colour}'/>",
            _text(_LEFT + width + 8, middle, row.said, 12, _TEXT),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(
    x: float, y: float, text: str, size: int, colour: str, *, anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{colour}' text-anchor='{anchor}' "
        f"font-weight='{weight}'>{escape(text)}</text>"
    )


def charts(document: Mapping[str, Any]) -> dict[str, str]:
    """All charts that a document has the figures for, by file name."""
    made = {"latency.svg": _latency(document), "memory.svg": _memory(document)}
    for name, key, draw in (
        ("peers.svg", "peers", _peers),
        ("wear.svg", "drive_bytes_per_event", _wear),
        ("growth.svg", "growth", _growth),
        ("limits.svg", "limits", _limits),
    ):
        if document.get(key):
            made[name] = draw(document[key])
    return made


def _latency(document: Mapping[str, Any]) -> str:
    parts = document["floor_parts_us"]
    rows = [
        Bar("MQTT echo, p50", parts["echo_p50"], f"{parts['echo_p50']:.0f} µs", own=False),
        Bar("one fdatasync, p50", parts["fdatasync_p50"], f"{parts['fdatasync_p50']:.0f} µs", own=False),
        Bar("floor, p50", document["floor_us"], f"{document['floor_us']:.0f} µs", own=False),
        Bar(
            "request to result, p50",
            document["latency_p50_us"],
            f"{document['latency_p50_us']:.0f} µs = {document['p50_over_floor']:.1f} ×",
        ),
        Bar("floor, p99", document["floor_p99_us"], f"{document['floor_p99_us']:.0f} µs", own=False),
        Bar(
            "request to result, p99",
            document["latency_p99_us"],
            f"{document['latency_p99_us']:.0f} µs = {document['p99_over_floor']:.1f} ×",
        ),
    ]
    note = "Three pure steps over a 64 × 4 table, one request at a time, receipt and result at QoS 1"
    return bars("From PUBLISH to result, beside the floor of the same run", note, rows)


def _memory(document: Mapping[str, Any]) -> str:
    rows = [
        Bar(name, value, f"{value:.1f} MB, {document['uss_mb'][name]:.1f} its own")
        for name, value in document["pss_mb"].items()
    ]
    return bars("Memory after load", "Proportional set size by process, shared pages divided", rows)


def _peers(peers: Mapping[str, Any]) -> str:
    rows = []
    for name, found in peers.items():
        times = found.get("box_is_times")
        said = f"{found['per_s']:.0f}/s" + (f", 1/{times:.1f}" if times else "")
        rows.append(Bar(name, found["per_s"], said, own=times is None))
    return bars(
        "Durable executions of three steps per second",
        "Same run, every one flushed to the drive before it is acknowledged",
        rows,
    )


def _wear(by_window: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        Bar(
            f"{rate} events/s, window {name.replace('-', ' ms, ', 1) if '-' in name else f'{name} ms'}",
            size,
            f"{size:.0f} B",
        )
        for name, rates in by_window.items()
        for rate, size in rates.items()
    ]
    return bars("Bytes to the drive per event", "Counted at the block device, file system included", rows)


def _growth(by_length: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        Bar(
            f"{log_name(length)} events" + (" waiting" if "-" in length else ""),
            found["p50_us"],
            f"{found['p50_us']:.0f} µs, × {found['p50_ratio']:.2f}",
        )
        for length, found in by_length.items()
    ]
    return bars("A lone request by the length of the log", "p50, boxes asked by turns in the same run", rows)


def _limits(by_size: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        Bar(
            size.replace("mb-", " MB, ").replace("cores", " cores").replace("_", "."),
            found.get("executions_per_s", 0.0),
            f"{found['executions_per_s']:.0f}/s" if "executions_per_s" in found else "did not run",
        )
        for size, found in by_size.items()
    ]
    return bars("Executions per second on smaller machines", "256 in flight, limited by control groups", rows)
