"""A small MQTT 5 broker on loopback for laptops and demos; production means mosquitto.

Embedded by `edge up`; run alone with `python -m gateway.embedded_broker`. Must never listen elsewhere.
"""

from __future__ import annotations

from gateway.embedded_broker.broker import Counters, EmbeddedBroker

__all__ = ["Counters", "EmbeddedBroker"]
