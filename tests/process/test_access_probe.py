"""The gateway asks the broker whether it keeps principals apart, and believes only a denial."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import Misconfigured
from gateway.mqtt import BrokerAddress
from gateway.probe import require_access_list
from tests.process.mosquitto import Mosquitto

pytestmark = pytest.mark.mosquitto


async def test_an_open_broker_is_accepted_on_loopback_only(mosquitto: Any, caplog: Any) -> None:
    """Anybody may publish as anybody: said on loopback, refused under an address that is none."""
    with caplog.at_level(logging.WARNING):
        await require_access_list("codec", "b", BrokerAddress("127.0.0.1", mosquitto.port))
    assert "in any principal's name" in caplog.text
    with pytest.raises(Misconfigured, match="in any principal's name"):
        # 0.0.0.0 reaches this machine and is no loopback address.
        await require_access_list("codec", "b", BrokerAddress("0.0.0.0", mosquitto.port))


async def test_a_broker_with_an_access_list_passes(tmp_path: Path, caplog: Any) -> None:
    """A broker that denies nobody's publish in somebody's name is one to serve on, wherever it is."""
    rules = tmp_path / "acl"
    rules.write_text("pattern write edge/v1/+/request/%u/#\n")
    rules.chmod(0o644)
    broker = Mosquitto(tmp_path, extra=f"acl_file {rules}\n")
    broker.start()
    try:
        await require_access_list("codec", "b", BrokerAddress("0.0.0.0", broker.port))
    finally:
        broker.kill()
    assert "in any principal's name" not in caplog.text
