"""The keychain: what its file keeps, whom it opens for, what it refuses; and secrets taken out of values."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest

from edge.core.codec import decode, encode
from edge.core.errors import Misconfigured, ToolFailed
from edge.core.scrub import Scrubber
from edge.core.values import Credential
from edge.runtime.dispatch.secrets import Secrets as RuntimeSecrets
from edge.security.keychain import CREDENTIAL, KINDS, Keychain
from edge.worker.credentials import Secrets
from playbooks.compile import check_playbook
from playbooks.model import keychain as language

SECRET = 's3cr3t/with "quotes" & ünicode+='


@pytest.fixture
def keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keychain:
    """An empty keychain whose key lies beside it."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return Keychain(tmp_path / "keychain")


def test_entries_come_back_and_never_lie_open(keychain: Keychain, tmp_path: Path) -> None:
    """What was set is opened whole, its version counts, and no file holds the value or is read by others."""
    assert keychain.entries() == []
    assert keychain.put("api", "bearer", {"token": SECRET}) == 1
    assert keychain.put("api", "bearer", {"token": SECRET + "2"}) == 2
    keychain.put("meter", "basic", {"username": "ada", "password": SECRET})
    assert [(each.alias, each.version) for each in keychain.entries()] == [("api", 2), ("meter", 1)]
    assert keychain.entries()[0].fields == {"token": SECRET + "2"}
    for path in (tmp_path / "keychain").iterdir():
        assert SECRET.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0, path
    assert keychain.remove("api")
    assert not keychain.remove("api")
    assert [each.alias for each in Keychain(tmp_path / "keychain").entries()] == ["meter"]


def test_a_changed_file_or_another_key_opens_nothing(keychain: Keychain, tmp_path: Path) -> None:
    """Entries that changed places, a flipped bit and a foreign key are refused by name."""
    keychain.put("a", "bearer", {"token": "aaaaaaaa1"})
    keychain.put("b", "bearer", {"token": "bbbbbbbb1"})
    path = tmp_path / "keychain" / "sealed"
    version, sealed = decode(path.read_bytes())
    path.write_bytes(encode([version, {"a": sealed["b"], "b": sealed["a"]}]))
    with pytest.raises(Misconfigured, match="alias a cannot be opened"):
        keychain.entries()
    kind, number, nonce, data = sealed["a"]
    path.write_bytes(encode([version, {"a": ["map", number, nonce, data]}]))
    with pytest.raises(Misconfigured, match="alias a cannot be opened"):
        keychain.entries()
    path.write_bytes(encode([version, {"a": [kind, number, nonce, data]}]))
    (tmp_path / "keychain" / "key").write_bytes(bytes(32))
    with pytest.raises(Misconfigured, match="edge keychain set a"):
        keychain.entries()
    (tmp_path / "keychain" / "key").unlink()
    with pytest.raises(Misconfigured, match="is gone"):
        keychain.put("c", "bearer", {"token": "cccccccc1"})
    path.write_bytes(b"nonsense")
    with pytest.raises(Misconfigured, match="is no keychain"):
        keychain.entries()


def test_rotation_seals_anew_and_survives_a_cut(keychain: Keychain, tmp_path: Path) -> None:
    """After rotating the old key opens nothing; cut between its two steps, everything still opens."""
    folder = tmp_path / "keychain"
    keychain.put("a", "bearer", {"token": SECRET})
    old_key, old = (folder / "key").read_bytes(), (folder / "sealed").read_bytes()
    assert keychain.rotate() == 1
    assert keychain.entries()[0].fields == {"token": SECRET}
    new_key = (folder / "key").read_bytes()
    assert new_key != old_key
    (folder / "key").write_bytes(old_key)
    (folder / "key.new").write_bytes(new_key)
    assert keychain.entries()[0].fields == {"token": SECRET}
    (folder / "sealed").write_bytes(old)
    assert keychain.entries()[0].fields == {"token": SECRET}


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("second", range(4))
def test_a_rotation_cut_twice_loses_nothing(
    keychain: Keychain, monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    """Wherever a rotation ends, and the next one after it: every entry still opens."""
    keychain.put("a", "bearer", {"token": SECRET})
    replace = os.replace
    for steps in (first, second):
        left = iter(range(steps))

        def cut_short(*paths: Any, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError("the power fails")
            replace(*paths)

        monkeypatch.setattr(os, "replace", cut_short)
        with contextlib.suppress(OSError):
            keychain.rotate()
        monkeypatch.setattr(os, "replace", replace)
        assert keychain.entries()[0].fields == {"token": SECRET}
    assert keychain.rotate() == 1
    assert SECRET not in f"{keychain.entries()}{Credential('bearer', {'token': SECRET})}"


def test_a_keychain_that_cannot_be_opened_fails_its_steps_alone(
    keychain: Keychain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process that opens it ends without a word, an alias is missing, with the reason."""
    keychain.put("a", "bearer", {"token": SECRET})
    monkeypatch.setattr(sys, "executable", "/bin/true")
    taken = RuntimeSecrets(tmp_path / "keychain").take(["a"])
    assert taken is not None
    assert "cryptography" in taken["a"].missing


def test_a_key_of_systemds_is_used_and_not_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd gives the key none is written beside the file."""
    (tmp_path / CREDENTIAL).write_bytes(os.urandom(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    keychain = Keychain(tmp_path / "keychain")
    keychain.put("a", "bearer", {"token": SECRET})
    assert keychain.entries()[0].fields == {"token": SECRET}
    assert not (tmp_path / "keychain" / "key").exists()
    with pytest.raises(Misconfigured, match="systemd"):
        keychain.rotate()


@pytest.mark.parametrize(
    ("alias", "kind", "fields", "said"),
    [
        ("1a", "bearer", {"token": SECRET}, "cannot be an alias"),
        ("a", "jwt", {"token": SECRET}, "no kind"),
        ("a", "basic", {"password": SECRET}, "username"),
        ("a", "map", {}, "fields"),
        ("a", "bearer", {"token": "short"}, "8 to 16384"),
    ],
)
def test_what_is_no_credential_is_refused(
    keychain: Keychain, alias: str, kind: str, fields: dict[str, str], said: str
) -> None:
    """A credential lacks nothing its kind has, and is long enough to be told from ordinary text."""
    with pytest.raises(Misconfigured, match=said):
        keychain.put(alias, kind, fields)


def test_a_key_that_others_may_read_is_refused(keychain: Keychain, tmp_path: Path) -> None:
    """A key with loose permissions is no secret any more."""
    keychain.put("a", "bearer", {"token": SECRET})
    (tmp_path / "keychain" / "key").chmod(0o644)
    with pytest.raises(Misconfigured, match="Others may read"):
        keychain.entries()


def test_language_and_keychain_know_the_same_kinds() -> None:
    """What a playbook may declare is what can be set."""
    assert tuple(KINDS) == language.KINDS


SPELLINGS = {
    "plain": SECRET,
    "in a text": f"before {SECRET} after",
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 in a header": base64.b64encode(f"ada:{SECRET}".encode()).decode(),
    "base64 in the middle": base64.b64encode(f"xx{SECRET}yyyy".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"x{SECRET}".encode()).decode(),
    "percent": quote(SECRET, safe=""),
    "percent, slashes left": quote(SECRET),
    "hexadecimal": SECRET.encode().hex(),
    "JSON": json.dumps(SECRET),
    "JSON, letters left": json.dumps(SECRET, ensure_ascii=False),
    "repr": repr(SECRET),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_secret_is_found_in_every_spelling(name: str) -> None:
    """In texts, bytes, keys and depths a secret becomes its alias's mark."""
    scrubber = Scrubber({"api": {"token": SECRET}})
    text = SPELLINGS[name]
    assert "***api***" in scrubber.text(text)
    assert scrubber.finds(encode({"a": [text]}))
    cleaned = scrubber.value({"a": [1, {text: text.encode()}], "b": (text, None)})
    assert not scrubber.finds(encode(cleaned["a"]))
    assert cleaned["b"] == (scrubber.text(text), None)


def test_other_values_stay_as_they_are() -> None:
    """What holds no secret is the same; a header's name and a user's are no secret, nor is what is too short."""
    scrubber = Scrubber(
        {"a": {"header": "X-API-Key-Long", "api_key": "short"}, "b": {"username": "administrator"}}
    )
    value = {"X-API-Key-Long": ["short", "administrator", 1.5, None, b"\x00"]}
    assert scrubber.value(value) == value
    assert not scrubber.needles


def test_tables_are_cleaned_or_refused() -> None:
    """Columns of texts lose secrets; one in a nested column or a name cannot be taken out and is refused."""
    secrets = Secrets({"api": Credential("bearer", {"token": SECRET})})
    table = pa.table({"t": ["a", f"x {SECRET}", None], "n": [1, 2, 3]})
    assert secrets.without(table).column("t").to_pylist() == ["a", "x ***api***", None]
    assert secrets.without(table.slice(0, 1)).column("t").to_pylist() == ["a"]
    for bad in (
        {"l": [[SECRET]]},
        {SECRET: [1]},
        {"b": [SECRET.encode()]},
        {"d": pa.array([SECRET]).dictionary_encode()},
    ):
        with pytest.raises(ToolFailed, match="secret of the keychain"):
            secrets.without(pa.table(bad))


HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: a/p}\n"
API = "[{name: api}]"
GRANTED = "spec: {policy: {access: {hosts: [h], keychain: [api]}}}\n    "


def http(more: str = "") -> str:
    return f"tool: {{kind: http, url: 'http://h/'{more}}}"


def python(reads: str) -> str:
    return f"tool: {{kind: python, code: result = 1, input: {{k: '{{{{ {reads} }}}}'}}}}"


WHERE: list[tuple[str, str, str | None]] = [
    (API, GRANTED + http(", auth: api"), None),
    (API, GRANTED + http(", auth: '{{ keychain.api }}'"), None),
    (API, GRANTED + http(", headers: {X: '{{ keychain.api.token }}'}"), None),
    (API, GRANTED + python("keychain.api"), None),
    (API, GRANTED + http(", auth: other"), "'other' is not granted"),
    ("[]", GRANTED + http(), "'api' is not declared"),
    (API, python("keychain.api.token"), "read here and not granted"),
    (API, GRANTED + python("keychain"), "taken whole"),
    (API, GRANTED + "tool: {kind: python, auth: api, code: result = 1}", "goes by no credential"),
    (API, f"{GRANTED}{http()}\n    set: {{x: '{{{{ keychain.api }}}}'}}", "means nothing here"),
    (
        API,
        f"{GRANTED}{http()}\n    next: [{{step: a, when: '{{{{ keychain.api }}}}'}}]",
        "means nothing here",
    ),
    (API, GRANTED.replace("policy", "effect: pure, policy") + python("1"), "pure step"),
    (API, f"{GRANTED}tool: [{{kind: wait, seconds: 1}}, {python('keychain.api')[6:]}]", "is recorded"),
    ("[{name: api, kind: secret_manager, provider: gcp}]", http(), "data centre"),
    ("[{name: api, kind: oauth2}]", http(), "resolved in a data centre"),
    ("[{name: api}, {name: api}]", http(), "two aliases"),
]


@pytest.mark.parametrize(("keychain", "step", "said"), WHERE)
def test_where_aliases_may_stand(keychain: str, step: str, said: str | None) -> None:
    """Declared, granted, and read in inputs and tools only: everything else is refused while compiling."""
    problems = check_playbook(
        f"{HEAD}keychain: {keychain}\nworkflow:\n  - step: a\n    {step}\n".encode(), "p"
    )
    if said is None:
        assert not problems
    else:
        assert any(said in str(problem) for problem in problems), problems
