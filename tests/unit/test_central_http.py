"""What the centre's server says to who comes too early, and to who stops in the midst of an upload."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.central import http_app
from edge.central import intake as intake_module
from edge.central.intake import Intake
from edge.security.signing import Signer
from edge.segments import box_token

NOW_NS = 1_790_000_000_000_000_000
BOX = "pump-7"
SIGNER = Signer(b"\1" * 32)
LOG = "0102030405060708"
VALUE = b"x" * 70_000


class Rig:
    """The server's application, asked without a network."""

    def __init__(self, data: Path) -> None:
        self.intake = Intake(data, lambda: NOW_NS, deep=True)
        self.intake.boxes.enrol(BOX, SIGNER.public, 1)
        self._app = http_app.app_of(self.intake)

    async def ask(
        self, method: str, target: str, *pieces: bytes, stalls: bool = False
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and document; a body that `stalls` never ends."""
        path, _, query = target.partition("?")
        signed = box_token.authorization(SIGNER, method, target, NOW_NS)
        left, answered = list(pieces), list[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            if not left and stalls:
                await asyncio.Event().wait()
            body = left.pop(0) if left else b""
            return {"type": "http.request", "body": body, "more_body": bool(left) or stalls}

        async def send(message: Any) -> None:
            answered.append(dict(message))

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"authorization", signed.encode())],
            "root_path": "",
            "scheme": "https",
        }
        await self._app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in answered[0]["headers"]}
        body = b"".join(each.get("body", b"") for each in answered)
        return answered[0]["status"], headers, json.loads(body) if body else None


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.intake.close()


async def test_who_comes_too_early_is_told_when_to_come_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too many wait: 503 with a time that differs from box to box, and nothing is begun."""
    assert (await rig.ask("GET", f"/v1/logs/{LOG}"))[0] == 200
    monkeypatch.setattr(intake_module, "INGESTS_WAITING_MAX", 3)
    rig.intake._waiting = 3
    status, headers, problem = await rig.ask("GET", f"/v1/logs/{LOG}")
    assert (status, headers["connection"]) == (503, "close")
    assert 6 <= int(headers["retry-after"]) <= 12
    assert problem["code"] == "unavailable"
    assert "more to look at" in problem["message"]


async def test_an_upload_that_stops_lets_go_and_goes_on_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds a place at the centre by saying nothing; what came is kept, and the rest completes it."""
    monkeypatch.setattr(http_app, "UPLOAD_IDLE_S", 0.01)
    target = f"/v1/values/{hashlib.sha256(VALUE).hexdigest()}"
    status, headers, _ = await rig.ask("PUT", f"{target}?offset=0&total=70000", VALUE[:30_000], stalls=True)
    assert (status, headers["connection"]) == (408, "close")
    assert (await rig.ask("GET", target))[2] == {"offset": 30_000}
    monkeypatch.setattr(http_app, "UPLOAD_IDLE_S", 30.0)
    status, _, _ = await rig.ask("PUT", f"{target}?offset=30000&total=70000", VALUE[30_000:])
    assert status == 200
    assert rig.intake.lacking([hashlib.sha256(VALUE).digest()]) == []
