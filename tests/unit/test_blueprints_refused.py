"""Bytes that are no blueprint: refused when they are read, whatever of their shape is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.codec import decode, encode, encode_canonical
from playbooks.blueprint import Blueprint
from playbooks.compile import compile_playbook

TWO_STEPS = b"""apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: a/p}
workflow:
  - {step: a, tool: {kind: noop}, next: [b]}
  - {step: b, tool: {kind: noop}}
"""


def _spoiled(body: dict[str, Any], **changes: Any) -> bytes:
    """A blueprint with its first step, or that step's one task, changed."""
    steps = [dict(step) for step in body["steps"]]
    task = {key: value for key, value in changes.items() if key in ("kind", "config", "rules")}
    steps[0] |= {key: value for key, value in changes.items() if key not in task}
    if task:
        steps[0]["tasks"] = [{**steps[0]["tasks"][0], **task}]
    return encode_canonical({**body, "steps": steps})


def test_blueprints_that_are_none() -> None:
    """A blueprint's whole shape is checked when it is read."""
    blueprint = compile_playbook(TWO_STEPS, "p.yaml")
    body = decode(blueprint.data)
    spoiled = [
        b"",
        b"\x00",
        blueprint.data[:-1],
        blueprint.data + b"\x00",
        encode(dict(reversed(body.items()))),
        encode_canonical({**body, "version": 4}),
        encode_canonical({**body, "version": 1}),
        encode_canonical({**body, "entry": 2}),
        encode_canonical({**body, "final": -1}),
        encode_canonical({**body, "steps": []}),
        encode_canonical({**body, "path": ""}),
        encode_canonical({**body, "workload": []}),
        encode_canonical({**body, "steps": body["steps"] * 2}),
        *(
            _spoiled(body, **changes)
            for changes in (
                {"kind": "shell"}, {"effect": "none"}, {"on_unknown": "guess"}, {"timeout_ms": 0}, {"memory_mb": 1},
                {"memory_mb": True}, {"input": ["nope"]}, {"arcs": [[7, None, False, [], []]]}, {"arcs": [[1]]},
                {"mode": "both"}, {"failure": 1}, {"tasks": []}, {"rules": [{}]},
                {"arcs": [[1, None, False, [], [["x", ["nope"]]]]]}, {"admit": [[None, 1]]}, {"run": 0},
                {"reads": ["nowhere"]}, {"set": [["x", ["const", {}]]]}, {"kind": "transform"}, {"name": None},
            )
        ),
    ]  # fmt: skip
    for data in spoiled:
        with pytest.raises(ValueError, match=r"not a|bytes|number of"):
            Blueprint.decode(data)
