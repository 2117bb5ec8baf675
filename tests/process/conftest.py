"""Fixtures for tests that start real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.worker import landlock, seccomp
from tests.process import mosquitto as broker
from tests.process.box import Box


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("mosquitto") is not None:
        require_mosquitto()
    if item.get_closest_marker("sandbox") is not None:
        require_sandbox()
    if item.get_closest_marker("forks") is not None and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("this test forks its process, which here has threads: run it without -n")


def require_sandbox() -> None:
    """Skip where this machine cannot lock a worker in; under CI=true that is a failure."""
    if not landlock.abi() or not seccomp.machine():
        message = "this machine has no landlock, or no seccomp tables for its processor"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)


def require_mosquitto() -> None:
    """Skip by name where Debian's mosquitto is missing; under CI=true that is a failure."""
    if broker.MISSING:
        message = f"not installed: {broker.MISSING} (apt install mosquitto mosquitto-clients)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[broker.Mosquitto]:
    """A private mosquitto, running."""
    require_mosquitto()
    process = broker.Mosquitto(tmp_path)
    process.start()
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def box(tmp_path: Path, mosquitto: broker.Mosquitto) -> Iterator[Box]:
    """A whole box behind a private mosquitto, serving."""
    made = Box(tmp_path, mosquitto.port)
    made.up()
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def quiet_box(tmp_path: Path) -> Iterator[Box]:
    """A runtime alone, no broker and no gateway."""
    made = Box(tmp_path, 1)
    made.start("runtime")
    made.status()
    try:
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A runtime alone that the tests of a file share: for those that only look at what they have asked of it."""
    made = Box(tmp_path_factory.mktemp("shared"), 1)
    made.start("runtime")
    made.status()
    try:
        yield made
    finally:
        made.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the box's processes said when a test on one fails."""
    report = yield
    given = getattr(item, "funcargs", {})
    made = given.get("box") or given.get("quiet_box") or given.get("shared_box")
    if made is not None and call.when == "call" and call.excinfo is not None:
        report.sections.append(("box", made.words()[-4000:]))
    return report
