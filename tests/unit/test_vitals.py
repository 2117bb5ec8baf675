"""The sampler's pure parts on texts as kernels write them, and its one file reader on a made-up machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from edge.cli.vitals import verdict_lines
from edge.core.clock import Reading
from edge.vitals import readings
from edge.vitals.readings import CpuTime, Traffic
from edge.vitals.samples import FIGURES, Look, Sample, columns_of, sample_between
from edge.vitals.sources import Sources
from edge.vitals.window import SCHEMA, stream_of

STAT = """\
cpu  125142 7 25417 765597 2845 0 1185 3779 40 0
cpu0 48585 7 10561 399810 496 0 362 1905 40 0
cpu1 76556 0 14856 365787 2348 0 822 1873 0 0
intr 38210 0 9 0
btime 1795468134
"""
MEMINFO = """\
MemTotal:         931316 kB
MemFree:          402012 kB
MemAvailable:     698487 kB
Buffers:           33100 kB
"""
#: A Raspberry Pi: SD card with two partitions, compressed memory, loop devices of snaps.
DISKSTATS = """\
   7       0 loop0 16 0 122 0 1769 202 136680 1246 0 1104 2106 2 0 2097160 0
 179       0 mmcblk0 18604 8123 1402932 97210 22187 33907 966920 301442 0 131948 398652 0 0 0 0 0 0
 179       1 mmcblk0p1 213 1214 14090 519 6 3 21 44 0 396 563 0 0 0 0 0 0
 179       2 mmcblk0p2 18340 6909 1384050 96640 22181 33904 966899 301398 0 131900 398039 0 0 0 0 0 0
 254       0 zram0 51 0 1240 0 1 0 8 0 0 4 0 0 0 0 0 0 0
"""
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 957670228 1227889    0    0    0     0          0         0 957670228 1227889    0    0    0     0       0          0
  eth0:1156312050   44270    0    0    0     0          0         0  2127354   22824    0    0    0     0       0          0
 wlan0:    1000       3    0    0    0     0          0         0      200       2    0    0    0     0       0          0
"""  # noqa: E501 (as the kernel writes it)


def test_busy_time_counts_neither_idling_nor_waiting_for_a_drive() -> None:
    """Busy is all but idle and iowait; guest time stands in user time already and is not counted again."""
    total = 125142 + 7 + 25417 + 765597 + 2845 + 0 + 1185 + 3779
    assert readings.cpu_time(STAT) == CpuTime(total - 765597 - 2845, total)


def test_load_is_the_first_number() -> None:
    """The one-minute load."""
    assert readings.load_1m("0.52 0.58 0.59 2/173 12345\n") == 0.52


def test_memory_counts_what_could_be_had_as_free() -> None:
    """Caches that the kernel would give back are not in use."""
    assert readings.memory_used_pct(MEMINFO) == pytest.approx(25.0, abs=0.01)


def test_a_drives_traffic_is_counted_once() -> None:
    """Only whole drives count, in sectors of 512 bytes."""
    assert readings.disk_traffic(DISKSTATS, {"mmcblk0"}) == Traffic(1402932 * 512, 966920 * 512)


def test_network_traffic_is_summed_over_the_chosen_interfaces() -> None:
    """Loopback is left out; a number that touches the colon is read."""
    assert readings.network_traffic(NET_DEV, {"eth0", "wlan0"}) == Traffic(1156313050, 2127554)


@pytest.mark.parametrize(
    "found",
    [
        readings.cpu_time(""),
        readings.cpu_time("intr 38210 0 9\n"),
        readings.load_1m(""),
        readings.memory_used_pct(""),
        readings.memory_used_pct("MemTotal: 931316 kB\n"),
        readings.disk_traffic(DISKSTATS, frozenset()),
        readings.disk_traffic("", {"sda"}),
        readings.network_traffic("", {"eth0"}),
        readings.celsius(""),
        readings.celsius("none\n"),
    ],
)
def test_what_a_text_does_not_say_is_none(found: object) -> None:
    """A missing figure is never zero."""
    assert found is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("48312\n", 48.312), ("-5000\n", -5.0), ("0\n", None), ("-273150\n", None), ("255000", None)],
)
def test_a_temperature_no_processor_survives_is_none(text: str, expected: float | None) -> None:
    """A sensor that is switched off says zero or nonsense."""
    assert readings.celsius(text) == expected


def test_the_processors_own_sensor_is_chosen() -> None:
    """A drive's or a board's temperature is not taken for the processor's; the better name wins."""
    assert readings.choose_cpu_sensor({"a": "nvme", "b": "acpitz"}) is None
    assert readings.choose_cpu_sensor({"a": "nvme", "b": "coretemp", "c": "x86_pkg_temp"}) == "c"
    assert readings.choose_cpu_sensor({"zone0": "cpu-thermal"}) == "zone0"


def test_real_interfaces_are_counted_before_virtual_ones() -> None:
    """A bridge carries a device's bytes again; a container has nothing but virtual ones."""
    assert readings.choose_interfaces({"lo": False, "eth0": True, "br0": False}) == {"eth0"}
    assert readings.choose_interfaces({"lo": False, "eth0": False}) == {"eth0"}
    assert readings.choose_interfaces({"lo": False}) == frozenset()


FIRST = Look(
    mono_ns=5_000_000_000,
    wall_ns=1_795_000_000_123_999_999,
    cpu_temp_c=48.3,
    cpu=CpuTime(100, 1000),
    load_1m=0.5,
    memory_used_pct=25.0,
    disk=Traffic(1_000_000, 2_000_000),
    network=Traffic(0, 500),
)
SECOND = replace(
    FIRST,
    mono_ns=5_050_000_000,
    wall_ns=FIRST.wall_ns + 50_000_000,
    cpu=CpuTime(103, 1010),
    disk=Traffic(1_000_000, 2_050_000),
    network=Traffic(1_000, 500),
)


def test_two_looks_make_a_row_of_rates() -> None:
    """Counters become kB/s and per cent over the monotonic span; the wall clock only dates the row."""
    sample = sample_between(FIRST, SECOND)
    assert sample.at_ms == 1_795_000_000_173
    assert dict(zip(FIGURES, sample.figures, strict=True)) == {
        "cpu_temp_c": 48.3,
        "cpu_busy_pct": 30.0,
        "load_1m": 0.5,
        "memory_used_pct": 25.0,
        "disk_read_kb_s": 0.0,
        "disk_write_kb_s": 1000.0,
        "net_rx_kb_s": 20.0,
        "net_tx_kb_s": 0.0,
    }


def test_a_counter_that_went_back_gives_no_rate() -> None:
    """A drive that was pulled, or a counter that wrapped, is a null in that row and not a negative rate."""
    sample = sample_between(SECOND, replace(FIRST, mono_ns=SECOND.mono_ns + 1))
    figures = dict(zip(FIGURES, sample.figures, strict=True))
    assert [name for name, value in figures.items() if value is None] == [
        "cpu_busy_pct",
        "disk_read_kb_s",
        "disk_write_kb_s",
        "net_rx_kb_s",
        "net_tx_kb_s",
    ]


def test_no_tick_between_two_looks_gives_no_share() -> None:
    """Where the kernel counted nothing in between, busy is unknown."""
    sample = sample_between(FIRST, replace(SECOND, cpu=FIRST.cpu))
    assert sample.figures[FIGURES.index("cpu_busy_pct")] is None


def test_looks_in_the_wrong_order_are_a_programmers_error() -> None:
    """A rate over no time is asserted away."""
    with pytest.raises(AssertionError):
        sample_between(FIRST, FIRST)


def test_a_sensor_the_machine_lacks_is_a_column_of_nulls() -> None:
    """The column keeps its name and its type."""
    samples = [Sample(at, (None, *([1.5] * (len(FIGURES) - 1)))) for at in range(64)]
    table = pa.ipc.open_stream(stream_of(samples)).read_all()
    assert table.schema.equals(SCHEMA)
    assert table.column("cpu_temp_c").null_count == table.num_rows == 64
    assert table.column("net_tx_kb_s").to_pylist() == columns_of(samples)["net_tx_kb_s"]


class _Steps:
    """A clock that goes on 50 ms with every reading."""

    def __init__(self) -> None:
        self._mono_ns = 0

    def read(self) -> Reading:
        self._mono_ns += 50_000_000
        return Reading(self._mono_ns, self._mono_ns, 0)


def _machine(root: Path, *, sensor: str | None, drive: str | None) -> Path:
    """A folder that looks like `/` of a small box."""
    texts = {
        "proc/stat": STAT,
        "proc/loadavg": "0.52 0.58 0.59 2/173 12345\n",
        "proc/meminfo": MEMINFO,
        "proc/diskstats": DISKSTATS,
        "proc/net/dev": NET_DEV,
        "sys/class/net/eth0/device/vendor": "0x1\n",
        "sys/class/net/lo/mtu": "65536\n",
        "sys/block/loop0/size": "0\n",
    }
    if sensor:
        texts |= {
            "sys/class/thermal/thermal_zone0/type": f"{sensor}\n",
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
        }
    if drive:
        texts[f"sys/block/{drive}/device/type"] = "SD\n"
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_box_is_read_as_it_is_at_each_look(tmp_path: Path) -> None:
    """Files are found once and read again each time."""
    root = _machine(tmp_path, sensor="cpu-thermal", drive="mmcblk0")
    with Sources(_Steps(), root) as sources:
        first = sources.look()
        (root / "sys/class/thermal/thermal_zone0/temp").write_text("51000\n")
        second = sources.look()
    assert (first.cpu_temp_c, second.cpu_temp_c) == (48.312, 51.0)
    assert first.network == Traffic(1156312050, 2127354)
    assert first.disk == Traffic(1402932 * 512, 966920 * 512)
    assert second.mono_ns - first.mono_ns == 50_000_000


def test_a_machine_without_sensors_still_gives_a_look(tmp_path: Path) -> None:
    """What is missing is None, and the rest is there."""
    with Sources(_Steps(), _machine(tmp_path, sensor="acpitz", drive=None)) as sources:
        look = sources.look()
    assert (look.cpu_temp_c, look.disk) == (None, None)
    assert look.load_1m == 0.52


def test_a_machine_without_proc_gives_nothing(tmp_path: Path) -> None:
    """Nothing there at all is no error either."""
    with Sources(_Steps(), tmp_path) as sources:
        look = sources.look()
    assert {look.cpu_temp_c, look.cpu, look.load_1m, look.memory_used_pct, look.disk, look.network} == {None}


def test_a_verdict_is_told_in_a_sentence() -> None:
    """What is over its limit and what the machine lacks stand in the first line."""
    figure = {"name": "load_1m", "mean": 1.25, "max": 20.0, "limit": 16, "over": True}
    missing = {"name": "cpu_temp_c", "mean": None, "max": None, "limit": 80, "over": False}
    lines = verdict_lines(
        {"ok": False, "broken": ["load_1m"], "missing": ["cpu_temp_c"], "figures": [missing, figure]}
    )
    assert lines[0] == "verdict    NOT ok: over the limit: load_1m; this machine has no cpu_temp_c"
    assert lines[2].split() == ["cpu_temp_c", "-", "-", "80"]
    assert lines[3].split() == ["load_1m", "1.25", "20.00", "16", "over"]
