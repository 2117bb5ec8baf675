"""Arrow as workers have it: data sets only where a block asks for them, and then whole."""

from __future__ import annotations

import subprocess
import sys

_JOINS = """
import sys
from edge.worker.arrow_import import import_arrow
import_arrow()
early = "pyarrow.dataset" in sys.modules or "pyarrow._dataset" in sys.modules
import pyarrow as pa
left, right = pa.table({"key": [1, 2], "a": [3, 4]}), pa.table({"key": [2, 3], "b": [5, 6]})
tables = left.join(right, "key", join_type="inner").to_pylist()
import pyarrow.dataset as ds
sets = ds.dataset(left).join(ds.dataset(right), "key", join_type="inner")
print(early, tables == sets.to_table().to_pylist() == [{"key": 2, "a": 4, "b": 5}], type(sets).__name__)
"""


def test_data_sets_are_loaded_when_a_block_asks_and_join_as_tables_do() -> None:
    """The zygote has no data sets; a block that imports them joins them, and tables, as Arrow alone would."""
    done = subprocess.run([sys.executable, "-c", _JOINS], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True", "InMemoryDataset"], done.stderr
