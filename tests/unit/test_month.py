"""What a pump guard's log weighs on its way upstream: bytes are the same everywhere, so a test can hold them."""

from __future__ import annotations

from pathlib import Path

from tests.bench.studies.month import EXECUTION_BYTES_MAX, MONTH_BYTES_MAX, record, weight


def test_a_month_of_a_pump_guard_stays_small(tmp_path: Path) -> None:
    """Two segments of it: under 50 B an execution, all in; a third of what the design allows."""
    found = weight(record(tmp_path, 333), 333)
    assert found["segments"] == 2
    assert 6 * 333 < found["events"] < 6 * 333 + 10
    # Measured: 49.5 and 49.9 B an execution; the log's own keys and ids differ from run to run by some bytes.
    assert found["bytes_per_execution"] < 51
    assert found["bytes_per_execution"] < EXECUTION_BYTES_MAX
    assert found["month_mb"] < MONTH_BYTES_MAX / 1e6
