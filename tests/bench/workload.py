"""What the bench sends and what must come back. Pure, but for building the Arrow payload.

Read by `main` (which writes the payload to a file) and by `load` (which puts a number into each request and checks
a sample of the results). The load client must not import pyarrow, so only `arrow_payload` does.
"""

from __future__ import annotations

import functools
import math
import struct
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
THREE_STEP: Final = HERE / "three_step.yaml"
TWO_STEP: Final = HERE / "two_step.yaml"
THREE_STEP_PATH: Final = "bench/three_step"
TWO_STEP_PATH: Final = "bench/two_step"

ARROW: Final = "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"
TWO_STEP_INPUT: Final = b'{"reading":21.5,"limit":30}'
TWO_STEP_RESULT: Final = {"verdict": "normal", "excess": -8.5}

ROWS: Final = 64
#: Stands in the payload where each request gets a number of its own, so that no two tables are alike.
MARK: Final = struct.pack("<d", 9.876543210123e77)
_MARKED_ROW: Final = 17
_CELSIUS_LIMIT, _LOAD_LIMIT = 80.0, 4.0


def columns() -> dict[str, list[float]]:
    """The table, with the mark in it."""
    made = {
        "celsius": [41.5 + math.sin(row / 7) * 9 for row in range(ROWS)],
        "load": [abs(math.cos(row / 11)) * 3 for row in range(ROWS)],
        "memory": [38.25 + row / 8 for row in range(ROWS)],
        "network": [1000.0 * (row % 13) + 0.5 for row in range(ROWS)],
    }
    made["celsius"][_MARKED_ROW] = struct.unpack("<d", MARK)[0]
    return made


def arrow_payload() -> bytes:
    """The table as an Arrow IPC stream."""
    import pyarrow as pa

    table = pa.table({name: pa.array(values, pa.float64()) for name, values in columns().items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    payload = bytes(sink.getvalue())
    assert payload.count(MARK) == 1
    return payload


def marked_value(number: int) -> float:
    """What request `number` has in the marked place: always the column's largest, around the limit."""
    return 60.0 + number % 4001 / 100


@functools.cache
def _same_for_all() -> dict[str, Any]:
    made = columns()
    return {
        "rows": ROWS,
        "load_mean": math.fsum(made["load"]) / ROWS,
        "free_min": 100 - max(made["memory"]),
        "network_sum": math.fsum(made["network"]),
    }


def expected(number: int) -> dict[str, Any]:
    """The result that request `number` must have."""
    constant, celsius = _same_for_all(), marked_value(number)
    high = celsius > _CELSIUS_LIMIT or constant["load_mean"] > _LOAD_LIMIT
    return {"verdict": "high" if high else "normal", "celsius_max": celsius, **constant}


def same(result: Any, wanted: dict[str, Any]) -> bool:
    """Whether a result is the wanted one, floats to nine digits (sums may be taken in another order)."""
    if not isinstance(result, dict) or result.keys() != wanted.keys():
        return False
    return all(
        math.isclose(result[name], value, rel_tol=1e-9) if isinstance(value, float) else result[name] == value
        for name, value in wanted.items()
    )
