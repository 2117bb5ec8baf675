"""From samples to figures, and from figures to a table and a JSON document. Pure.

The names in FIXED are read by others and stay for ever; more may be added, none renamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

FIXED: Final = (
    "floor_us",
    "latency_p50_us",
    "latency_p99_us",
    "executions_per_s",
    "pss_mb",
    "uss_mb",
    "idle_cpu_percent",
    "cold_start_s",
    "drive_bytes_per_execution",
    "journal_bytes_two_step",
    "events_two_step",
)
IN_FLIGHT: Final = (1, 32, 256)


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks; raises ValueError where there is nothing."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def latency_figures(
    latencies_us: Sequence[float],
    receipts_us: Sequence[float],
    echoes_us: Sequence[float],
    flushes_us: Sequence[float],
) -> dict[str, Any]:
    """Latencies, the floor they were measured beside, and the one as a multiple of the other."""
    parts = {
        "echo_p50": percentile(echoes_us, 50),
        "echo_p99": percentile(echoes_us, 99),
        "fdatasync_p50": percentile(flushes_us, 50),
        "fdatasync_p99": percentile(flushes_us, 99),
    }
    floor_us = parts["echo_p50"] + parts["fdatasync_p50"]
    floor_p99_us = parts["echo_p99"] + parts["fdatasync_p99"]
    p50_us, p99_us = percentile(latencies_us, 50), percentile(latencies_us, 99)
    return {
        "floor_us": floor_us,
        "floor_p99_us": floor_p99_us,
        "floor_parts_us": parts,
        "latency_p50_us": p50_us,
        "latency_p99_us": p99_us,
        "receipt_p50_us": percentile(receipts_us, 50),
        "p50_over_floor": p50_us / floor_us,
        "p99_over_floor": p99_us / floor_p99_us,
        "samples": len(latencies_us),
    }


def with_total(by_name: Mapping[str, float]) -> dict[str, float]:
    """The same with `total`."""
    return {**by_name, "total": sum(by_name.values())}


def rounded(value: Any) -> Any:
    """Figures with as many digits as they deserve."""
    if isinstance(value, float):
        return round(value, 1) if abs(value) >= 100 else round(value, 3)
    if isinstance(value, Mapping):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return value


def document(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON document: the fixed names first, each of them there. Raises KeyError where one is missing."""
    fixed = {name: figures[name] for name in FIXED}
    return dict(rounded({**fixed, **figures}))


def table(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [
        *_latency_lines(figures),
        "",
        *_throughput_lines(figures),
        "",
        *_cpu_lines(figures),
        "",
        *_memory_lines(figures),
        "",
        *_other_lines(figures),
    ]
    return "\n".join(lines)


def _latency_lines(figures: Mapping[str, Any]) -> list[str]:
    parts = figures["floor_parts_us"]
    return [
        f"{'one at a time':<24}{'p50 µs':>10}{'p99 µs':>10}",
        f"{'  MQTT echo, QoS 1':<24}{parts['echo_p50']:>10.0f}{parts['echo_p99']:>10.0f}",
        f"{'  one fdatasync':<24}{parts['fdatasync_p50']:>10.0f}{parts['fdatasync_p99']:>10.0f}",
        f"{'  floor = sum':<24}{figures['floor_us']:>10.0f}{figures['floor_p99_us']:>10.0f}",
        f"{'  PUBLISH to result':<24}{figures['latency_p50_us']:>10.0f}{figures['latency_p99_us']:>10.0f}",
        f"{'  as multiple of floor':<24}{figures['p50_over_floor']:>9.2f}×{figures['p99_over_floor']:>9.2f}×",
    ]


def _throughput_lines(figures: Mapping[str, Any]) -> list[str]:
    lines = [f"{'in flight':<12}{'executions/s':>14}{'p50 ms':>10}{'p99 ms':>10}"]
    for level, per_s in figures["executions_per_s"].items():
        p50_us, p99_us = figures["loaded_latency_us"][level]
        lines.append(f"{level:<12}{per_s:>14.0f}{p50_us / 1000:>10.2f}{p99_us / 1000:>10.2f}")
    return lines


def _cpu_lines(figures: Mapping[str, Any]) -> list[str]:
    levels = figures["cpu_us_per_execution"]
    names = list(next(iter(levels.values())))
    lines = [f"{'CPU µs/execution':<18}" + "".join(f"{name:>11}" for name in names)]
    for level, used in levels.items():
        lines.append(f"  {level:<16}" + "".join(f"{used[name]:>11.0f}" for name in names))
    return lines


def _memory_lines(figures: Mapping[str, Any]) -> list[str]:
    names = list(figures["pss_mb"])
    kinds = {"PSS": "pss_mb", "USS": "uss_mb", "PSS, anonymous": "pss_anon_mb"}
    return [
        f"{'memory MB':<18}" + "".join(f"{name:>11}" for name in names),
        *(
            f"  {title:<16}" + "".join(f"{figures[kind][name]:>11.1f}" for name in names)
            for title, kind in kinds.items()
        ),
    ]


def _subscription_lines(figures: Mapping[str, Any]) -> list[str]:
    per_s = figures.get("subscription_messages_per_s")
    if per_s is None:
        return []
    said = f"{per_s:.0f}   ({figures['subscription_executions']} executions)"
    return [f"{'subscription messages/s':<28}{said}"]


def _other_lines(figures: Mapping[str, Any]) -> list[str]:
    drive = figures["drive_bytes_per_execution"]
    if drive is None:
        drive_text = f"not measured: {figures['drive_bytes_reason']}"
    else:
        each = figures["drive_bytes_by_in_flight"].items()
        drive_text = (
            f"{drive:.0f}   (" + ", ".join(f"{level} in flight: {size:.0f}" for level, size in each) + ")"
        )
    two_step = f"{figures['journal_bytes_two_step']} bytes, {figures['events_two_step']} events"
    starts = ", ".join(f"{name} {at_s:.2f}" for name, at_s in figures["cold_start_parts_s"].items())
    return [
        *_subscription_lines(figures),
        f"{'idle CPU':<28}{figures['idle_cpu_percent']:.2f} % of a core",
        f"{'cold start to first result':<28}{figures['cold_start_s']:.2f} s   ({starts})",
        f"{'drive bytes per execution':<28}{drive_text}",
        f"{'two-step in the journal':<28}{two_step}",
        *_loop_lines(figures),
    ]


def _loop_lines(figures: Mapping[str, Any]) -> list[str]:
    """A thousand items side by side; nothing where that was not measured."""
    if "loop_items_per_s" not in figures:
        return []
    events = figures["loop_events_per_item"]
    lines = [
        f"{f'loop of {kind} blocks':<28}{per_s:.0f} items/s, {events[kind]:.3f} events per item"
        for kind, per_s in figures["loop_items_per_s"].items()
    ]
    return [*lines, f"{'memory after all loops':<28}{figures['loop_memory_growth_mb']:+.1f} MB"]
