"""Rules for all tests: the fault beds run whole only where that is asked for (--faults); under CI=true a test
of real processes that is skipped has failed; and whatever playbook a test compiles, the JSON Schema thinks of it as
the compiler does.

CI promises that those tests ran; a skip there would hide a missing broker or a kernel without landlock. Owned by
scripts/test; must never start a process or hold any other fixture (those live beside the tests that use them).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.schema_agreement import looked_at

#: Markers of what runs only where its option is given.
_ASKED_FOR = {"faults_full": "--faults", "booted": "--booted", "emulated": "--emulated"}
_MUST_RUN = ("process", "faults")
#: What no package can give a container: there the power cuts are left out, and the summary says so.
_KERNEL_CANNOT = "only root may mount"
_HERE = Path(__file__).parent
_FORKS = _HERE / "process"


@pytest.fixture(scope="session", autouse=True)
def _schema_agrees() -> Generator[None]:
    """Every playbook of every test is one more example for the schema."""
    with looked_at():
        yield


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport, path: Path) -> None:
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    if path.is_relative_to(_HERE) and path.relative_to(_HERE).parts[0] in _MUST_RUN:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if _KERNEL_CANNOT in reason:
            return
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not be skipped under CI=true. {reason}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="run the fault beds whole, not samples of them")
    parser.addoption(
        "--booted", action="store_true", help="run also what needs a systemd of its own, as root"
    )
    parser.addoption("--emulated", action="store_true", help="run also a box on an emulated aarch64, as root")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the whole beds out of a usual run; refuse a test that forks where scripts/test does not look for one."""
    lost = [item.nodeid for item in items if item.get_closest_marker("forks") and item.path.parent != _FORKS]
    if lost:
        raise pytest.UsageError(f"tests that fork belong into {_FORKS}, or nothing runs them: {lost}")
    for marker, option in _ASKED_FOR.items():
        marked = [item for item in items if item.get_closest_marker(marker) is not None]
        if marked and not config.getoption(option):
            config.hook.pytest_deselected(items=marked)
            items[:] = [item for item in items if item not in marked]
    if config.getoption("--faults"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    """A test of minutes that begins at the end keeps one process busy while the others have nothing left to do."""
    if item.get_closest_marker("minutes"):
        return 0
    return 1 if item.get_closest_marker("faults_full") else 2


def pytest_collection_finish() -> None:
    """Leave thousands of tests out of every garbage collection from here on: they stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of one test into a failure."""
    report = yield
    _refuse_skip(report, item.path)
    return report


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure."""
    report = yield
    _refuse_skip(report, collector.path)
    return report
