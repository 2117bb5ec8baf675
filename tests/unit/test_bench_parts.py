"""The pure parts of scripts/bench: percentiles, kernel counters, the report's shape, the request template."""

from __future__ import annotations

import json
import struct
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mqtt5
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # tests/ is no installed package; `scripts/bench` runs from the checkout

from tests.bench import budget, hotspots, workload  # noqa: E402
from tests.bench.chart import charts  # noqa: E402
from tests.bench.client import Call, Template  # noqa: E402
from tests.bench.counters import (  # noqa: E402
    parse_busy_ticks,
    parse_schedstat,
    parse_sectors_written,
    parse_smaps_rollup,
)
from tests.bench.drive import DriveMark, bytes_between  # noqa: E402
from tests.bench.report import FIXED, document, latency_figures, percentile, table, with_total  # noqa: E402
from tests.bench.studies.limits import Group  # noqa: E402
from tests.bench.studies.lines import studies  # noqa: E402

SMAPS_ROLLUP = """\
55a0e5e0d000-7ffd3f5f9000 ---p 00000000 00:00 0                          [rollup]
Rss:               30720 kB
Pss:               20480 kB
Pss_Anon:           8192 kB
Shared_Clean:       8000 kB
Shared_Dirty:       1000 kB
Private_Clean:      1024 kB
Private_Dirty:      9216 kB
Swap:                  0 kB
"""


def figures() -> dict[str, object]:
    level = {"gateway": 40.0, "runtime": 80.0}
    return {
        **latency_figures([900.0, 1100.0], [700.0, 800.0], [200.0, 300.0], [90.0, 110.0]),
        "executions_per_s": {"1": 800.0, "32": 2500.0, "256": 3000.123456},
        "loaded_latency_us": {level_: [1000.0, 2000.0] for level_ in ("1", "32", "256")},
        "cpu_us_per_execution": {level_: with_total(level) for level_ in ("1", "32", "256")},
        "pss_mb": with_total({"gateway": 20.0, "runtime": 30.0}),
        "uss_mb": with_total({"gateway": 15.0, "runtime": 25.0}),
        "pss_anon_mb": with_total({"gateway": 12.0, "runtime": 22.0}),
        "idle_cpu_percent": 0.0312,
        "cold_start_s": 0.7,
        "cold_start_parts_s": {"listening": 0.5, "result": 0.7},
        "drive_bytes_per_execution": None,
        "drive_bytes_reason": "not root",
        "journal_bytes_two_step": 465,
        "events_two_step": 4,
    }


class TestPercentile:
    def test_of_one_sample_is_that_sample(self) -> None:
        assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0

    def test_lies_between_the_nearest_ranks(self) -> None:
        samples = [float(n) for n in range(100, -1, -1)]
        assert percentile(samples, 0) == 0
        assert percentile(samples, 50) == 50
        assert percentile(samples, 99) == 99
        assert percentile(samples, 100) == 100
        assert percentile([0.0, 10.0], 25) == 2.5

    def test_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no samples"):
            percentile([], 50)


class TestParsers:
    def test_schedstat_is_time_on_the_cpu(self) -> None:
        assert parse_schedstat("123456789 987654 42\n") == 123_456_789

    def test_smaps_rollup_is_pss_and_private_pages(self) -> None:
        assert parse_smaps_rollup(SMAPS_ROLLUP) == (20.0, 10.0, 8.0)

    def test_sectors_written_is_the_seventh_number(self) -> None:
        stat = "  11 12 13 14 15 16 1700 18 19 20 21 22 23 24 25 26 27\n"
        assert parse_sectors_written(stat) == 1700

    def test_busy_leaves_out_idle_and_iowait(self) -> None:
        assert parse_busy_ticks("cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n") == 63

    def test_own_process_is_readable(self) -> None:
        text = Path("/proc/self/schedstat").read_text()
        assert parse_schedstat(text) > 0
        pss_mb, uss_mb, _ = parse_smaps_rollup(Path("/proc/self/smaps_rollup").read_text())
        assert 0 < uss_mb <= pss_mb


class TestReport:
    def test_floor_is_the_sum_of_its_parts(self) -> None:
        made = figures()
        assert made["floor_us"] == 250 + 100
        assert made["latency_p50_us"] == 1000
        assert made["p50_over_floor"] == pytest.approx(1000 / 350)
        assert made["p99_over_floor"] == pytest.approx(made["latency_p99_us"] / made["floor_p99_us"])

    def test_document_has_every_fixed_name_first(self) -> None:
        made = document(figures())
        assert tuple(made)[: len(FIXED)] == FIXED
        assert json.loads(json.dumps(made)) == made
        assert made["drive_bytes_per_execution"] is None
        assert made["executions_per_s"]["256"] == 3000.1
        assert made["pss_mb"]["total"] == 50.0

    @pytest.mark.parametrize("name", FIXED)
    def test_document_misses_none_silently(self, name: str) -> None:
        made = figures()
        del made[name]
        with pytest.raises(KeyError):
            document(made)

    def test_table_says_why_the_drive_was_not_measured(self) -> None:
        assert "not measured: not root" in table(figures())

    def test_table_shows_drive_bytes(self) -> None:
        drive = {"drive_bytes_per_execution": 5000.0, "drive_bytes_by_in_flight": {"1": 5000.0, "32": 900.0}}
        assert "5000   (1 in flight: 5000, 32 in flight: 900)" in table({**figures(), **drive})


def test_zero_filling_is_charged_by_use() -> None:
    segment_bytes = 8 * 1024 * 1024
    before = DriveMark(sectors=0, prepared=2, journal_bytes=100_000)
    after = DriveMark(sectors=(segment_bytes + 300_000) // 512, prepared=3, journal_bytes=200_000)
    charged, counted = bytes_between(before, after)
    assert counted == after.sectors * 512
    assert charged == counted - segment_bytes + 100_000


def test_template_changes_only_what_differs_between_requests() -> None:
    payload = b"table" + workload.MARK + b"end"
    template = Template("edge/v1/box/request/bench/p", payload, workload.ARROW, "bench/answers")
    packets = []
    for number, packet_id in ((5, 17), (6, 65_535)):
        packet, _ = mqtt5.read(template.packet(packet_id, number))
        assert packet.packet_id == packet_id
        assert packet.correlation_data == number.to_bytes(8, "big")
        assert packet.user_properties == [("request-id", f"{number:016x}")]
        assert packet.payload == b"table" + struct.pack("<d", workload.marked_value(number)) + b"end"
        assert packet.response_topic == "bench/answers"
        assert packet.content_type == workload.ARROW
        packets.append(packet)
    assert packets[0].topic == packets[1].topic == "edge/v1/box/request/bench/p"


def test_a_call_is_complete_with_receipt_and_result() -> None:
    call = Call(1, wants_receipt=True, sent_ns=1, result_ns=5)
    assert not call.complete
    call.receipt_ns = 4
    assert call.complete
    assert Call(1, wants_receipt=False, sent_ns=1, result_ns=5).complete


def test_a_wrong_result_is_seen() -> None:
    wanted = workload.expected(7)
    assert workload.same(dict(wanted), wanted)
    assert not workload.same({**wanted, "celsius_max": wanted["celsius_max"] + 0.01}, wanted)
    assert not workload.same({**wanted, "rows": 63}, wanted)
    assert not workload.same({"rows": 64}, wanted)
    assert not workload.same(None, wanted)
    assert workload.expected(8) != wanted


def test_verdicts_differ_between_requests() -> None:
    verdicts = {workload.expected(number)["verdict"] for number in range(4001)}
    assert verdicts == {"high", "normal"}


def test_waiting_is_not_counted_as_work() -> None:
    stacks = "main (a/b.py:1);step (a/c.py:2) 30\nmain (a/b.py:9);wait (a/b.py:3);epoll_wait (libc.so.6) 50\n"
    stacks += "get (a/b.py:4);PyThread_acquire_lock_timed (libpython);0x7f3c (libc.so.6) 20\n"
    counted = hotspots.count(stacks)
    assert (counted.samples, counted.waiting) == (30, 70)
    assert counted.own["step (a/c.py)"] == counted.cumulative["main (a/b.py)"] == 30


class TestBudget:
    """Bounds on a run's figures."""

    def test_a_figure_over_its_bound_is_named(self) -> None:
        """Both sides are judged, at the bound nothing is crossed, and what was not measured is said to be so."""
        bounds = {"most": {"a.b": 2, "c": 5, "gone.x": 1}, "least": {"d": 3}}
        verdict = budget.judge({"a": {"b": 2.5}, "c": 5, "d": 2}, bounds)
        assert verdict.crossed == (
            "a.b is 2.5; the budget allows at most 2.",
            "d is 2; the budget allows at least 3.",
        )
        assert verdict.unjudged == ("gone.x",)

    def test_a_name_finds_its_figure_though_keys_hold_dots(self) -> None:
        """`0.1` is a rate, not two keys."""
        assert budget.find({"wear": {"0": {"0.1": 7.0, "0": {"1": 9.0}}}}, "wear.0.0.1") == 7.0

    def test_every_bound_is_of_a_figure_that_a_run_can_have(self) -> None:
        """A bound with a misspelt name would judge nothing for ever."""
        assert budget.judge({**figures(), **STUDIES}, budget.load()).unjudged == (
            "loop_events_per_item.transform",
            "loop_events_per_item.python",
            "loop_memory_growth_mb",
            "results_checked",
        )


STUDIES: dict[str, object] = {
    "growth": {
        length: {
            "restart_s": 0.6,
            "p50_us": 900.0,
            "p50_ratio": 1.0,
            "cpu_us_per_execution": 2000.0,
            "cpu_ratio": 1.0,
            "pss_mb": 90.0,
            "pss_anon_mb": 70.0,
            "data_mb": 12.0,
        }
        for length in ("10000", "1000000", "10000-100000-waiting")
    },
    "drive_bytes_per_event": {"0": {"0.1": 6000.0, "100": 3000.0}, "200": {"0.1": 5000.0, "100": 700.0}},
    "cached_table": {"1000000": {"count_us": 200.0, "sum_us": 300.0, "workers_grew_mb": 0.5}},
    "limits": {
        "192mb-2cores": {
            "executions_per_s": 400.0,
            "lone_p50_us": 4000.0,
            "peak_mb": 105.0,
            "major_faults_per_s": 0.0,
        },
        "128mb-2cores": {"failed": "The runtime <did> not start."},
    },
    "sustained": {
        "slices": [{"per_s": 500.0, "anon_mb": 70.0}],
        "last_over_first": {"per_s": 1.0, "anon_mb": 1.0},
    },
    "peers": {
        "this box": {"per_s": 600.0, "durability": "flushed"},
        **{
            name: {"per_s": 60.0, "durability": "full", "box_is_times": 10.0}
            for name in ("DBOS", "Huey", "litequeue")
        },
    },
}


class TestStudies:
    """What the longer studies show people."""

    def test_each_study_has_its_lines_and_others_none(self) -> None:
        """A failed size of machine is said in words; a run without studies has nothing more to show."""
        text = "\n".join(studies(STUDIES))
        assert "1,000,000" in text
        assert "failed: The runtime <did> not start." in text
        assert "10.0 ×" in text
        assert studies(figures()) == []

    def test_charts_are_sound_svg_of_what_was_measured(self) -> None:
        """Every chart parses, says its numbers as text, and escapes what it was given."""
        drawn = charts({**figures(), **STUDIES})
        assert set(drawn) == {
            "latency.svg",
            "memory.svg",
            "peers.svg",
            "wear.svg",
            "growth.svg",
            "limits.svg",
        }
        for text in drawn.values():
            ET.fromstring(text)
        assert "700 B" in drawn["wear.svg"]
        assert set(charts(figures())) == {"latency.svg", "memory.svg"}


class TestControlGroups:
    """Groups that stand for a smaller machine."""

    def test_faults_are_read_in_both_versions(self, tmp_path: Path) -> None:
        """Version 1 sums the groups below under another name."""
        for text, found in (("pgmajfault 3\ntotal_pgmajfault 5\n", 5), ("anon 7\npgmajfault 4\n", 4)):
            (tmp_path / "memory.stat").write_text(text)
            assert Group(tmp_path, tmp_path, 1).major_faults() == found
