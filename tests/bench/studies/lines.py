"""The figures of the longer studies for people: a block of lines each, where it was measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def studies(figures: Mapping[str, Any]) -> list[str]:
    """Lines to stand under the table of the usual figures."""
    lines: list[str] = []
    for key, block in (
        ("growth", _growth),
        ("drive_bytes_per_event", _wear),
        ("cached_table", _cached_table),
        ("pruning", _pruning),
        ("limits", _limits),
        ("sustained", _sustained),
        ("peers", _peers),
        ("month", _month),
        ("central", _central),
        ("again", _again),
        ("shipping", _shipping),
    ):
        if figures.get(key):
            lines += ["", *block(figures[key])]
    return lines


def _growth(by_length: Mapping[str, Mapping[str, float]]) -> list[str]:
    head = f"{'events (+ waiting)':<20}{'restart s':>10}{'p50 µs':>10}{'ratio':>8}{'CPU ratio':>11}"
    head += f"{'anon MB':>10}{'data MB':>10}"
    return [
        head,
        *(
            f"  {log_name(length):<18}{found['restart_s']:>10.2f}{found['p50_us']:>10.0f}{found['p50_ratio']:>8.2f}"
            f"{found['cpu_ratio']:>11.2f}{found['pss_anon_mb']:>10.1f}{found['data_mb']:>10.0f}"
            for length, found in by_length.items()
        ),
    ]


def log_name(name: str) -> str:
    """A growth study's log in words: `10000-500-waiting` is "10,000 + 500"."""
    events, _, waiting = name.partition("-")
    return f"{int(events):,}" + (f" + {int(waiting.partition('-')[0]):,}" if waiting else "")


def _wear(by_window: Mapping[str, Mapping[str, float]]) -> list[str]:
    rates = list(next(iter(by_window.values())))
    lines = [f"{'drive bytes/event':<24}" + "".join(f"{f'{rate}/s':>10}" for rate in rates)]
    for name, sizes in by_window.items():
        window, _, mounted = name.partition("-")
        lines.append(
            f"{f'  window {window} ms {mounted}':<24}" + "".join(f"{sizes[rate]:>10.0f}" for rate in rates)
        )
    return lines


def _cached_table(by_rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [f"{'step over a cached table':<28}{'count µs':>10}{'sum µs':>10}{'workers grew':>15}"]
    for rows, found in by_rows.items():
        lines.append(
            f"  {f'{int(rows):,} rows':<26}{found['count_us']:>10.0f}{found['sum_us']:>10.0f}"
            f"{found['workers_grew_mb']:>12.1f} MB"
        )
    return lines


def _pruning(found: Mapping[str, float]) -> list[str]:
    ratios = f"p50 × {found['p50_ratio']:.2f}, p99 × {found['p99_ratio']:.2f}"
    return [f"{'lone, while it prunes':<28}{ratios}   ({found['turns']:.0f} turns)"]


def _limits(by_size: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        f"{'limited to':<22}{'executions/s':>14}{'lone p50 ms':>13}{'peak MB':>10}{'major faults/s':>16}"
    ]
    for size, found in by_size.items():
        if "failed" in found:
            lines.append(f"  {size:<20}  failed: {found['failed']}")
            continue
        lines.append(
            f"  {size:<20}{found['executions_per_s']:>14.0f}{found['lone_p50_us'] / 1000:>13.1f}"
            f"{found['peak_mb']:>10.0f}{found['major_faults_per_s']:>16.1f}"
        )
    return lines


def _sustained(found: Mapping[str, Any]) -> list[str]:
    drift = found["last_over_first"]
    said = ", ".join(f"{name} × {value:.3f}" for name, value in drift.items())
    return [f"{'steady load, end/beginning':<28}{said}   ({len(found['slices'])} slices)"]


def _peers(found: Mapping[str, Any]) -> list[str]:
    lines = [f"{'durable engines':<18}{'executions/s':>14}{'the box is':>12}   durability"]
    for name, each in found.items():
        times = f"{each['box_is_times']:.1f} ×" if "box_is_times" in each else ""
        lines.append(f"  {name:<16}{each['per_s']:>14.0f}{times:>12}   {each['durability']}")
    return lines


def _month(found: Mapping[str, float]) -> list[str]:
    return [
        f"{'a pump guard, sealed':<28}{found['executions']:>10,.0f} executions, {found['events']:,.0f} events",
        f"{'  bytes an execution':<28}{found['bytes_per_execution']:>10.1f}   (bound: 150)",
        f"{'  bytes an event':<28}{found['bytes_per_event']:>10.1f}",
        f"{'  MB a month':<28}{found['month_mb']:>10.2f}   (bound: 6.5)",
    ]


def _central(found: Mapping[str, float]) -> list[str]:
    def rate(name: str, figure: str, bound: str) -> str:
        return f"{f'  {name}':<28}{found[figure] / 1000:>10,.0f}   (bound: {bound})"

    def plain(name: str, text: str) -> str:
        return f"{f'  {name}':<28}{text:>10}"

    return [
        f"{'a centre, one processor':<28}{'k/s':>10}",
        rate("ingest, shallow", "ingest_shallow_per_s", "500"),
        rate("ingest, deep", "ingest_deep_per_s", "150"),
        rate("segments to tables", "compacted_per_s", "none; 149 in research"),
        rate(f"fold, {found['large_events']:,.0f} events", "fold_per_s", "10,000"),
        plain("bytes an event, tables", f"{found['table_bytes_per_event']:.1f}"),
        plain("one execution, ms", f"{found['lookup_arrow_ms']:.1f}") + "   (bound: 5)",
        plain("  in SQL, ms", f"{found['lookup_sql_ms']:.1f}"),
        plain("start and answer, CPU s", f"{found['start_cpu_s']:.2f}") + "   (bound: 0.5)",
        plain("  by the clock, s", f"{found['start_s']:.2f}"),
        plain("  PSS, MB", f"{found['start_pss_mb']:.0f}") + "   (bound: 100)",
        plain("10,000 additions, µs", f"{found['additions_us']:.0f}"),
    ]


def _again(found: Mapping[str, float]) -> list[str]:
    def line(name: str, text: str, bound: str = "") -> str:
        return f"{f'  {name}':<28}{text:>10}" + (f"   (bound: {bound})" if bound else "")

    return [
        "a log again, one processor",
        line("segments read, k events/s", f"{found['groups_per_s'] / 1e3:,.0f}"),
        line("events decoded, k/s", f"{found['events_per_s'] / 1e3:,.0f}"),
        line("states and digests, k/s", f"{found['reconstruct_per_s'] / 1e3:,.0f}", "300"),
        line("executions run again /s", f"{found['rerun_per_s']:,.0f}", "the box's own"),
        line("  the box recorded /s", f"{found['box_executions_per_s']:,.0f}"),
        line("  came out the same, %", f"{found['rerun_same'] * 100:.1f}", "100"),
        line("one execution, ms", f"{found['one_ms']:.1f}", "5"),
        line("  of a hundred, the 95th", f"{found['one_p95_ms']:.1f}"),
    ]


def _shipping(found: Mapping[str, float]) -> list[str]:
    sizes = f"{found['bytes'] / 1e6:>10.2f} MB of segments, {found['wire_bytes'] / 1e6:.2f} MB over the wire"
    return [
        f"{'a backlog at 1 Mbit/s':<28}{sizes}",
        f"{'  seconds':<28}{found['seconds']:>10.1f}   (bound: 60 for a month)",
        f"{'  budget used, %':<28}{found['share'] * 100:>10.1f}   (bound: 98 to 100)",
        f"{'  in segments alone, %':<28}{found['share_in_segments'] * 100:>10.1f}",
        f"{'  edge-sync, CPU s':<28}{found['cpu_s']:>10.2f}",
        f"{'  written for it, kB':<28}{found['written_bytes'] / 1e3:>10.0f}",
        f"{'  at rest: PSS, MB':<28}{found['pss_mb']:>10.1f}",
        f"{'  at rest: CPU, ms/s':<28}{found['idle_cpu_ms_per_s']:>10.2f}",
        f"{'  at rest: written, bytes':<28}{found['idle_written_bytes']:>10.0f}",
    ]
