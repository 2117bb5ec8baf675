"""Arrow as workers have it: data sets only where a block asks for them, and then whole; its pages only when used."""

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

_RELEASES = """
from pathlib import Path
from edge.worker.arrow_import import import_arrow
import_arrow()
import pyarrow as pa
import pyarrow.compute as pc
from edge.store.mapped_pages import release_libraries

def mapped_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))

before = mapped_kb()
release_libraries()
after = mapped_kb()
table = pa.table({"key": [1, 1, 2], "a": [3.0, 4.0, 5.0]}).group_by("key").aggregate([("a", "sum")])
import ssl
sums = table.to_pylist() == [{"key": 1, "a_sum": 7.0}, {"key": 2, "a_sum": 5.0}]
print(before, after, sums, bool(ssl.OPENSSL_VERSION))
"""


def test_pages_of_libraries_are_given_back_and_read_again() -> None:
    """What importing mapped leaves the process's memory, all but a few MB, and everything works afterwards."""
    done = subprocess.run([sys.executable, "-c", _RELEASES], capture_output=True, text=True, check=False)
    before_kb, after_kb, *right = done.stdout.split()
    assert int(after_kb) < int(before_kb) / 2, (before_kb, after_kb)
    assert right == ["True", "True"], done.stderr


def test_data_sets_are_loaded_when_a_block_asks_and_join_as_tables_do() -> None:
    """The zygote has no data sets; a block that imports them joins them, and tables, as Arrow alone would."""
    done = subprocess.run([sys.executable, "-c", _JOINS], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True", "InMemoryDataset"], done.stderr
