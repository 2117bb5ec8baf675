"""A window as the payload of a request: one Arrow IPC stream of `at_ms` and the figures.

Called by edge.cli.vitals only. It is the sender's side, so it makes its table itself, like any client of the box;
kept apart from the rest because importing Arrow costs 50 ms and 20 MB. Must never run in a process of the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from edge.store.arrow_stream import stream_from_table
from edge.vitals.samples import FIGURES, Sample, columns_of

CONTENT_TYPE: Final = "application/vnd.apache.arrow.stream"
SCHEMA: Final = pa.schema(
    [pa.field("at_ms", pa.int64(), nullable=False), *(pa.field(name, pa.float64()) for name in FIGURES)]
)


def stream_of(samples: Sequence[Sample]) -> bytes:
    """The window's table; a figure the machine lacks is a column of nulls."""
    columns = {"at_ms": [sample.at_ms for sample in samples], **columns_of(samples)}
    return stream_from_table(pa.table(columns, schema=SCHEMA))
