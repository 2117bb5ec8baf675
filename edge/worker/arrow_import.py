"""Arrow as the zygote imports it: without numpy, and without the readers of files until a block asks for them.

Called by the zygote once, before it forks. Must never make a thread: the zygote forks afterwards.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any, Final

#: Readers and writers of files and cloud stores, which `pyarrow.acero` imports for joins of data sets: 2.7 MB, and
#: 9 MB of mapped code. No built-in kind uses them.
_DATASETS: Final = "pyarrow.dataset"


class _NoDataset:
    """What nothing is an instance of: stands for a data set's class until there can be data sets."""


class _DatasetsWhenImported:
    """Stands for `pyarrow.dataset` in `pyarrow.acero`: no data set is there before a block imported the module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules.get(_DATASETS), name, _NoDataset)


def _scan_node_options(*given: Any, **named: Any) -> Any:
    """Acero's source node for a data set; whoever has one has loaded the module."""
    from pyarrow._dataset import ScanNodeOptions

    return ScanNodeOptions(*given, **named)


def import_arrow() -> None:
    """Import pyarrow and what the tools use of it, without numpy."""
    # The system's allocator: mimalloc reserves 1 GiB at once, and a block's memory limit would then hold nothing.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    kept_out = [name for name in ("numpy", _DATASETS) if name not in sys.modules]
    sys.modules.update(dict.fromkeys(kept_out))  # type: ignore[arg-type]
    if find_spec("dateutil") is None:
        # Arrow looks for it at every untyped value: 198 µs for a small table instead of 24.
        sys.modules["dateutil"] = sys.modules["dateutil.relativedelta"] = None  # type: ignore[assignment]
    import pyarrow.acero
    import pyarrow.compute

    from edge.tools.registry import preload
    from edge.worker import loop, sandbox

    assert loop.run is not None, "imported for the pages that workers share"
    preload()
    sandbox.prepare()
    for name in kept_out:
        del sys.modules[name]
    if _DATASETS in kept_out:
        pyarrow.acero.ds = _DatasetsWhenImported()
        pyarrow.acero.ScanNodeOptions = _scan_node_options
