"""What the processes on a box really load: `sys.modules` of a fresh interpreter, not what the text says.

The contracts of `.importlinter` read the source; a dynamic import escapes them, and memory is what is loaded.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

_COMPILE_SIDE = ("jinja2", "playbooks.compile", "pydantic", "yaml")

#: What each process imports at its start, and what must not come with it.
PROCESSES = {
    "gateway with paho": (
        "import gateway.__main__, gateway.daemon, gateway.mqtt.paho_session",
        (
            "pyarrow",
            "lmdb",
            "numpy",
            "mqtt5",
            "edge.store",
            "edge.runtime",
            "edge.tools",
            "edge.worker",
            "playbooks",
        )
        + _COMPILE_SIDE,
    ),
    "gateway with the codec": (
        "import gateway.__main__, gateway.daemon, gateway.mqtt.codec_session",
        (
            "pyarrow",
            "lmdb",
            "numpy",
            "paho",
            "edge.store",
            "edge.runtime",
            "edge.tools",
            "edge.worker",
            "playbooks",
        )
        + _COMPILE_SIDE,
    ),
    "embedded broker": (
        "import gateway.embedded_broker.__main__",
        (
            "pyarrow",
            "lmdb",
            "numpy",
            "paho",
            "edge.store",
            "edge.runtime",
            "edge.tools",
            "edge.worker",
            "playbooks",
        )
        + _COMPILE_SIDE,
    ),
    "runtime": (
        "import edge.runtime.__main__, edge.runtime.daemon",
        (
            "pyarrow",
            "numpy",
            "paho",
            "mqtt5",
            "gateway",
            "importlib.metadata",
            "email",
            "difflib",
        )
        + _COMPILE_SIDE,
    ),
    "zygote": (
        "import edge.worker.arrow_import as arrow, edge.worker.zygote, edge.worker.loop; arrow.import_arrow()",
        ("lmdb", "numpy", "paho", "mqtt5", "gateway", "edge.runtime", "edge.store.eventlog", *_COMPILE_SIDE),
    ),
}


def _loaded(statement: str) -> set[str]:
    """Names of the modules a fresh interpreter has after `statement`."""
    code = f"import sys\n{statement}\nprint(*(name for name, module in sys.modules.items() if module))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _with_parents(names: set[str]) -> set[str]:
    return {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_loads_only_what_it_may(process: str) -> None:
    """Starting a process brings none of the modules that belong to another one."""
    statement, forbidden = PROCESSES[process]
    loaded = _with_parents(_loaded(statement))
    assert not loaded & set(forbidden)


def test_the_check_sees_what_is_loaded() -> None:
    """The same look finds Arrow where it is imported, so an empty answer means something."""
    assert {"pyarrow", "edge.tools.arrow"} <= _loaded("import edge.tools.arrow")
